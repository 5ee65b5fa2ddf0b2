"""Prompts out of arguments, files and pipes, and decisions into JSON lines: in order, in bounded memory."""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ir3de.serving.bounds import NoneBecause
from ir3de.serving.compiled import CompiledRouter, Reading, Route
from ir3de.serving.text import without_surrogates

_NONE: dict[NoneBecause, str] = {"unsure": "below the threshold", "unusual": "unusual, by the alarm"}
_AT_ONCE = 1 << 16  # bytes; a pipe holds no more, so whoever writes a line and waits for its answer gets it
_MARK = b"\xef\xbb\xbf"  # a byte order mark, which some programs begin a file in UTF-8 with; it is none of the text
_UNPACK = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}
_encode = json.JSONEncoder(ensure_ascii=False).encode


class Line(NamedTuple):
    """A prompt, or why there is none; ``source`` is its file, ``replaced`` whether something of it was no character."""

    text: str
    source: str | None = None
    replaced: bool = False
    error: str | None = None


@dataclass
class Tally:
    """What became of the prompts."""

    prompts: int = 0
    replaced: int = 0
    none_because: dict[NoneBecause, int] = field(default_factory=dict)
    in_window: int = 0
    errors: dict[str, int] = field(default_factory=dict)

    def report(self) -> list[str]:
        """Return a sentence for everything that was not as usual."""
        said = []
        if self.errors:
            kinds = ", ".join(f"{count:,} {error}" for error, count in sorted(self.errors.items()))
            said.append(f"{self._share(sum(self.errors.values()))} were not routed: {kinds}")
        if self.replaced:
            said.append(f"{self._share(self.replaced)} had what is no UTF-8 or no character; it was read as U+FFFD")
        if self.in_window:
            said.append(f"{self._share(self.in_window)} were longer than the window; the rest of them was not read")
        for because, count in sorted(self.none_because.items()):
            said.append(f"{self._share(count)} were {_NONE[because]}")
        return said

    def _share(self, count: int) -> str:
        return f"{count:,} of {self.prompts:,} prompts"


def check_files(paths: Iterable[Path]) -> None:
    """Refuse, before any is read, paths that no text can be read from; a pipe or a device is a file, too.

    Raises:
        FileNotFoundError: if nothing is there.
        ValueError: if it is a folder, or compressed by its name.
    """
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"Expected a file of prompts at `{path}`, but there is none.")
        if path.is_dir():
            raise ValueError(f"Expected a file of prompts, but `{path}` is a folder. Name the files in it.")
        if (program := _UNPACK.get(path.suffix.lower())) is not None:
            raise ValueError(
                f"Expected a file of text, but `{path}` is compressed. Unpack it first, or pipe into the command what"
                f" `{program} -dc` gives."
            )


def field_of(path: Path, given: str | None) -> str | None:
    """Return the prompt's field, if a file's lines are JSON objects: ``given``, or ``text`` in a ``.jsonl`` file."""
    if given is not None:
        return given
    return "text" if path.suffix.lower() == ".jsonl" else None


def standard_input() -> BinaryIO:
    """Return standard input.

    Raises:
        ValueError: if it is closed.
    """
    if sys.stdin is None:
        raise ValueError(
            "Expected prompts on standard input, but it is closed. Pipe some into the command, or name files."
        )
    return sys.stdin.buffer


def lines_of(file: BinaryIO, *, json_field: str | None, source: str | None = None) -> Iterator[list[Line]]:
    """Yield the prompts of a file, one a line, as they come; with ``json_field``, of a JSON object a line.

    A byte order mark at the beginning and a carriage return at the end of a line are not read.
    """
    rest: list[bytes] = []  # of a line that has no end yet
    mark = _MARK
    read = getattr(file, "read1", file.read)
    while chunk := read(_AT_ONCE):
        if b"\n" not in chunk:
            rest.append(chunk)
            continue
        *whole, last = b"".join([*rest, chunk]).split(b"\n")
        rest = [last]
        whole[0] = whole[0].removeprefix(mark)
        mark = b""
        yield [_line(one.removesuffix(b"\r"), json_field, source) for one in whole]
    if tail := b"".join(rest).removeprefix(mark):
        yield [_line(tail.removesuffix(b"\r"), json_field, source)]


def text_as_prompt(text: str, source: str | None = None) -> Line:
    """Return a text as a prompt."""
    clean = without_surrogates(text)
    return Line(clean, source, clean != text)


def file_as_prompt(path: Path) -> Line:
    """Return a whole file as one prompt, without a byte order mark."""
    return _line(path.read_bytes().removeprefix(_MARK), None, str(path))


def answers(router: CompiledRouter, batches: Iterable[list[Line]], tally: Tally) -> Iterator[bytes]:
    """Yield a JSON line in UTF-8 for every prompt, in order; what became of them is added to ``tally``.

    What comes together is at most ``_AT_ONCE`` bytes and a line, however many experts have scores in it; all of a batch
    comes before the next one is taken.
    """
    for batch in batches:
        readings = iter(router.read_many([line.text for line in batch if line.error is None]))
        some = bytearray()
        for line in batch:
            row = _decision(router, line, next(readings) if line.error is None else None, tally)
            some += (_encode(row) + "\n").encode("utf-8", "backslashreplace")  # a file's name may be no text
            if len(some) >= _AT_ONCE:
                yield bytes(some)
                some.clear()
        yield bytes(some)


def route_as_dict(router: CompiledRouter, route: Route) -> dict[str, Any]:
    """Return a route as plain values; ``highest`` is the expert with the highest score, whatever ``none_because``."""
    return {
        "expert": route.expert,
        "highest": router.expert_names[route.expert_index],
        "confidence": route.confidence,
        "scores": dict(zip(router.expert_names, route.scores.tolist(), strict=True)),
        "tokens": route.tokens,
        "window": None if route.window is None else route.window.as_dict(),
        "p_value": route.p_value,
        "none_because": route.none_because,
    }


def _decision(router: CompiledRouter, line: Line, reading: Reading | None, tally: Tally) -> dict[str, Any]:
    tally.prompts += 1
    tally.replaced += line.replaced
    found: dict[str, Any] = {} if line.source is None else {"source": line.source}
    if line.replaced:
        found["replaced"] = True
    if reading is None or not len(reading.ids_T):
        error = line.error or "without a token"
        tally.errors[error] = tally.errors.get(error, 0) + 1
        return {"expert": None, "error": error, **found}
    route = router.route_reading(reading)
    tally.in_window += route.window is not None
    if route.none_because is not None:
        tally.none_because[route.none_because] = tally.none_because.get(route.none_because, 0) + 1
    return {**route_as_dict(router, route), **found}


def _line(content: bytes, json_field: str | None, source: str | None) -> Line:
    try:
        text, replaced = content.decode(), False
    except UnicodeDecodeError:
        text, replaced = content.decode(errors="replace"), True
    if json_field is None:
        return Line(text, source, replaced)
    if not text.strip():
        return Line("", source, replaced, "without a token")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return Line("", source, replaced, "not JSON")
    if not isinstance(value, dict) or not isinstance(value.get(json_field), str):
        return Line("", source, replaced, f"without a string in `{json_field}`")
    found = text_as_prompt(value[json_field], source)
    return found._replace(replaced=found.replaced or replaced)
