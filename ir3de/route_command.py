"""``python main.py route``: prompts in, JSON lines out; without torch and transformers, so that it starts at once."""

import argparse
import os
import sys
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import get_args

from ir3de.files import check_writable, replace_file
from ir3de.serving.bounds import Bounds
from ir3de.serving.compiled import CompiledRouter
from ir3de.serving.lines import (
    Line,
    Tally,
    answers,
    check_files,
    field_of,
    file_as_prompt,
    lines_of,
    standard_input,
    text_as_prompt,
)
from ir3de.serving.source import compiled_folder
from ir3de.serving.window import Keep, Window

_EXPLAINED = 100  # prompts at most: an explanation is for reading
_PIPE_CLOSED = 141  # what a shell shows of a program that SIGPIPE ended


def route(arguments: Sequence[str]) -> int:
    """Route what the arguments name; return the exit status: 1 if a prompt could not be routed.

    Raises:
        FileNotFoundError: if the router or a file is not there.
        ValueError: if the router is damaged, the arguments do not go together, or standard input or output is needed
            and closed.
    """
    parser = _parser()
    given = parser.parse_args(list(arguments))
    if given.texts and given.files:
        parser.error("give texts or --files, not both")
    if given.texts and given.field is not None:
        parser.error("--field is for lines of files or of standard input; a text is a prompt as it is")
    if sys.stdout is None:
        raise ValueError("Expected standard output for the answers, but it is closed. Send it to a file or a pipe.")
    Bounds(threshold=given.threshold, alarm=given.alarm, fallback=given.fallback)  # refused before anything is compiled
    check_files(given.files)
    if given.html is not None:
        check_writable(given.html, option="--html", such_as="why.html")
    router = CompiledRouter.load(
        _compiled(given.router),
        window=_window(given), threshold=given.threshold, alarm=given.alarm, fallback=given.fallback,
    )  # fmt: skip
    if router.not_fast is not None:
        _say(f"text is read by the package tokenizers: {router.not_fast}")
    if router.deaf is not None:
        _say(router.deaf)
    try:
        if given.explain or given.html is not None:
            _explain(router, given)
            return 0
        tally = Tally()
        for lines in answers(router, _batches(given), tally):
            sys.stdout.buffer.write(lines)
            sys.stdout.buffer.flush()
    except BrokenPipeError:  # whoever read the answers has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would try again at its end
        return _PIPE_CLOSED
    for sentence in tally.report():
        _say(sentence)
    return 1 if tally.errors else 0


def main(arguments: Sequence[str]) -> None:
    """Run the command as a program; a user's mistake ends with one sentence and exit status 1."""
    try:
        sys.exit(route(arguments))
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, OSError) as error:
        if os.environ.get("IR3DE_TRACEBACK"):
            traceback.print_exc()
        _say(f"error: {error}")
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="main.py route",
        description="Route prompts: JSON lines out, one for each prompt, in order.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("texts", nargs="*", help="Prompts. Without texts and --files, standard input has a prompt a line.")
    saved = "A saved router's folder (compiled when it is first used), a compiled one's, or the hub's owner/name[@v2]."
    add("--router", required=True, help=saved)
    files = "Files: a .jsonl file, and with --field every file, has a prompt a line; any other is one."
    add("--files", nargs="+", type=Path, default=[], help=files)
    field = "Lines, of files or of standard input, are JSON objects with the prompt in this field."
    add("--field", help=f"{field} Not given, it is `text` for .jsonl files.")
    add("--window", choices=get_args(Keep), help="Read only this part of a prompt that is longer than ...")
    add("--window-characters", type=int, help="... so many characters (cut before the text is tokenized), or ...")
    add("--window-tokens", type=int, help="... so many tokens (cut after it).")
    add("--threshold", type=float, help="Below this confidence the answer is null: none of the experts.")
    alarm = "With this p-value or a lower one a prompt is unusual for all experts: null, too. 0 just tells the p-value."
    add("--alarm", type=float, metavar="LEVEL", help=alarm)
    add("--fallback", help="The expert that answers below the threshold, or what is unusual, in the place of null.")
    add("--explain", action="store_true", help="Show in the terminal what each token gives to each expert.")
    add("--html", type=Path, help="Write the explanations to this file, a page that stands alone.")
    return parser


def _window(given: argparse.Namespace) -> Window | None:
    sizes = [size for size in (given.window_characters, given.window_tokens) if size is not None]
    if given.window is None and not sizes:
        return None
    if given.window is None or len(sizes) != 1:
        raise ValueError(
            "A window takes --window and its size, --window-characters or --window-tokens, but"
            f" got --window {given.window} and {len(sizes)} sizes."
        )
    return Window(given.window, sizes[0], "tokens" if given.window_characters is None else "characters")


def _compiled(router: str) -> Path:
    folder = compiled_folder(router)
    if folder is not None:
        return folder
    from ir3de.compiling.router import compile_router  # noqa: PLC0415 - loads torch, and is needed once

    _say(f"compiling the router in {router}; this takes some seconds, once")
    return compile_router(router)


def _batches(given: argparse.Namespace) -> Iterator[list[Line]]:
    if given.texts:
        yield [text_as_prompt(text) for text in given.texts]
    elif given.files:
        for path in given.files:
            json_field = field_of(path, given.field)
            if json_field is None:
                yield [file_as_prompt(path)]
            else:
                with path.open("rb") as file:
                    yield from lines_of(file, json_field=json_field, source=str(path))
    else:
        file = standard_input()
        if file.isatty():
            _say("reading prompts from the terminal, one a line, until Ctrl-D")
        yield from lines_of(file, json_field=given.field)


def _explain(router: CompiledRouter, given: argparse.Namespace) -> None:
    from rich.console import Console  # noqa: PLC0415 - not needed to route

    from ir3de.serving.explain import explain, in_terminal  # noqa: PLC0415
    from ir3de.serving.explain_page import page  # noqa: PLC0415

    lines = list(islice((line for batch in _batches(given) for line in batch), _EXPLAINED + 1))
    if len(lines) > _EXPLAINED:
        raise ValueError(f"Expected at most {_EXPLAINED} prompts to explain, but there are more. Explain some of them.")
    explanations = []
    for place, line in enumerate(lines):
        try:
            if line.error is not None:
                raise ValueError(f"Expected a prompt, but got what is {line.error}.")
            explanations.append(explain(router, line.text))
        except ValueError as error:
            raise ValueError(f"{_place(lines, place, given)} cannot be explained. {error} Leave it out.") from error
    console = Console(highlight=False)
    for one in explanations:
        console.print(*in_terminal(one), "", sep="\n", soft_wrap=True)
    if given.html is not None:
        replace_file(given.html, page(explanations).encode("utf-8", "replace"))
        _say(f"written {given.html}")
    routes = [one.route for one in explanations]
    tally = Tally(
        prompts=len(lines),
        replaced=sum(line.replaced for line in lines),
        none_because=Counter(route.none_because for route in routes if route.none_because is not None),
        in_window=sum(route.window is not None for route in routes),
    )
    for sentence in tally.report():
        _say(sentence)


def _place(lines: Sequence[Line], place: int, given: argparse.Namespace) -> str:
    """Return what a user calls a prompt: a text or a line by its number in what it is from, or a file."""
    source = lines[place].source
    number = 1 + sum(line.source == source for line in lines[:place])
    if source is None:
        return f"Text {number}" if given.texts else f"Line {number}"
    return f"`{source}`" if field_of(Path(source), given.field) is None else f"Line {number} of `{source}`"


def _say(sentence: str) -> None:
    if sys.stderr is not None:  # print would take standard output where it is closed
        print(sentence, file=sys.stderr)
