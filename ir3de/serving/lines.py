"""Prompts out of arguments, files and pipes, and decisions into JSON lines: in order, in bounded memory."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ir3de.serving.bounds import NoneBecause
from ir3de.serving.compiled import CompiledRouter, Reading, Route
from ir3de.serving.text import without_surrogates

_NONE: dict[NoneBecause, str] = {"unsure": "below the threshold", "unusual": "unusual, by the alarm"}
_AT_ONCE = 1 << 16  # bytes; a pipe holds no more, so whoever writes a line and waits for its answer gets it


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


def lines_of(file: BinaryIO, *, json_field: str | None, source: str | None = None) -> Iterator[list[Line]]:
    """Yield the prompts of a file, one a line, as they come; with ``json_field``, of a JSON object a line."""
    rest: list[bytes] = []  # of a line that has no end yet
    read = getattr(file, "read1", file.read)
    while chunk := read(_AT_ONCE):
        if b"\n" not in chunk:
            rest.append(chunk)
            continue
        *whole, last = b"".join([*rest, chunk]).split(b"\n")
        rest = [last]
        yield [_line(one, json_field, source) for one in whole]
    if tail := b"".join(rest):
        yield [_line(tail, json_field, source)]


def text_as_prompt(text: str, source: str | None = None) -> Line:
    """Return a text as a prompt."""
    clean = without_surrogates(text)
    return Line(clean, source, clean != text)


def file_as_prompt(path: Path) -> Line:
    """Return a whole file as one prompt."""
    return _line(path.read_bytes(), None, str(path))


def decisions(router: CompiledRouter, batches: Iterable[list[Line]], tally: Tally) -> Iterator[list[dict[str, Any]]]:
    """Yield an object for every prompt, in order; what became of them is added to ``tally``."""
    for batch in batches:
        readings = iter(router.read_many([line.text for line in batch if line.error is None]))
        yield [_decision(router, line, next(readings) if line.error is None else None, tally) for line in batch]


def as_json(rows: Iterable[dict[str, Any]]) -> bytes:
    """Return objects as JSON lines in UTF-8."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return text.encode("utf-8", "backslashreplace")  # a file's name may be no text


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
    if source is None or json_field is not None:
        content = content.removesuffix(b"\r")
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
