"""training.json: what an expert was trained on, so that a finished one is neither trained again nor mistaken."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TRAINING_RECORD = "training.json"


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return the record in ``folder``, or ``None`` if nothing was finished there.

    Raises:
        ValueError: if the record is not readable.
    """
    path = folder / TRAINING_RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text())
        if not isinstance(record["identity"], dict):
            raise TypeError("`identity` is not a mapping")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"`{path}` is damaged ({error}). Delete `{folder}`; it will be trained again.") from error
    return dict(record)


def as_json(record: Mapping[str, Any]) -> bytes:
    """Return a record as the file's content."""
    return (json.dumps(record, indent=2, sort_keys=True) + "\n").encode()


def check_same(found: Mapping[str, Any], asked: Mapping[str, Any], folder: Path) -> None:
    """Refuse to take what is in ``folder`` for something that was asked for differently.

    Raises:
        ValueError: naming each difference.
    """
    found, asked = json.loads(json.dumps(found)), json.loads(json.dumps(asked))
    keys = sorted({*found, *asked})
    differences = [
        f"{key}: {_short(found.get(key))} there, {_short(asked.get(key))} here"
        for key in keys
        if found.get(key) != asked.get(key)
    ]
    if differences:
        raise ValueError(
            f"`{folder}` was trained differently from what this run asks for: {'; '.join(differences)}."
            " Give this run another experts' folder, or delete that one to train it again."
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:18]}…{text[-8:]}"
