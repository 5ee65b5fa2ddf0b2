"""Files of prompts, one JSON object a line with the fields `domain` and `text`, checked before anything is measured."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from texts import Texts

FEWEST = 10  # training prompts of a domain: a fifth is held out, and a dictionary of zstd's needs some


def read_prompts(path: Path) -> Texts:
    """Return the prompts of a file by domain.

    Raises:
        ValueError: if a line is not an object with a domain and a text, or there is none.
        OSError: if the file can't be read.
    """
    found: Texts = {}
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if line.strip():
            domain, text = _row(line, f"{path}, line {number}")
            found.setdefault(domain, []).append(text)
    if not found:
        raise ValueError(f"{path} has no prompts: expected a JSON object with `domain` and `text` on each line.")
    return dict(sorted(found.items()))


def read_both(train: Path, test: Path) -> tuple[Texts, Texts]:
    """Return training and test prompts by domain.

    Raises:
        ValueError: if a file can't be used, a domain is in one file only, or has too few training prompts.
        OSError: if a file can't be read.
    """
    taught, tested = read_prompts(train), read_prompts(test)
    for has, other, missing in ((train, test, taught.keys() - tested), (test, train, tested.keys() - taught)):
        if missing:
            raise ValueError(
                f"{other} has no prompt of the domain {min(missing)!r}, which {has} has: expected the same domains in "
                "both files; add prompts, or take the domain out."
            )
    for domain, texts in taught.items():
        if len(texts) < FEWEST:
            raise ValueError(
                f"{train} has {len(texts)} prompts of the domain {domain!r}, but at least {FEWEST} are needed to teach "
                "with: add prompts, or take the domain out of both files."
            )
    return taught, tested


def prompts_of(parser: argparse.ArgumentParser, paths: Sequence[Path] | None) -> tuple[Texts, Texts] | None:
    """Return the prompts of the option `--prompts`, if it is given; end the program if they can't be used."""
    if paths is None:
        return None
    try:
        return read_both(*paths)
    except (OSError, ValueError) as error:
        parser.error(str(error))


def _row(line: bytes, where: str) -> tuple[str, str]:
    try:
        row = json.loads(line)
    except ValueError as error:  # also bytes that are not UTF-8
        raise ValueError(f"{where} is not JSON: {error}.") from error
    if not isinstance(row, dict):
        raise ValueError(f"{where} is not a JSON object, but {str(row)[:60]!r}.")
    values = []
    for field in ("domain", "text"):
        value = row.get(field)
        if not isinstance(value, str) or not value.strip():
            shown = "missing" if field not in row else f"{value!r}"
            raise ValueError(f"{where}: expected the field `{field}` to be a string that is not empty; it is {shown}.")
        if not value.isprintable() and any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError(f"{where}: the field `{field}` has half of a surrogate pair, which no UTF-8 text has.")
        values.append(value)
    return values[0], values[1]
