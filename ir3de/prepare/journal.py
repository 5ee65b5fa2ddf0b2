"""What has been written of a domain: kept with every file, so that a run that was killed goes on where it stopped."""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ir3de.data.splits import SPLITS
from ir3de.files import alone_in, replace_file

MANIFEST = "prepare.json"
_SHOWN = 3


@dataclass
class SplitState:
    """What is written of a split, and what comes next.

    ``files`` have name, rows, bytes and SHA-256. The next row begins with the ids ``carry`` and goes on with token
    ``token`` of document ``document``; the counts are those of the documents before it.
    """

    files: list[dict[str, Any]] = field(default_factory=list)
    document: int = 0
    token: int = 0
    carry: list[int] = field(default_factory=list)
    complete: bool = False
    documents: int = 0
    tokens: int = 0
    rows: int = 0
    tokens_in_rows: int = 0
    tokens_cut: int = 0
    tokens_left_over: int = 0
    documents_without_row: int = 0


@dataclass
class Journal:
    """The state of a domain that is being made, in its folder.

    ``tokenizer`` is the tokenizer's name; ``left_out`` is what each pass that has ended passed over, by its splits.
    """

    folder: Path
    settings: Mapping[str, Any]
    tokenizer: str
    splits: dict[str, SplitState]
    left_out: dict[str, Mapping[str, int]]

    @classmethod
    def opened(cls, folder: Path, settings: Mapping[str, Any], tokenizer: str) -> "Journal":
        """Return the journal of ``folder``, as it was left or new; files that it does not name are removed.

        Raises:
            ValueError: if it was begun with other settings.
        """
        journal = cls(folder, settings, tokenizer, {split: SplitState() for split in SPLITS}, {})
        path = folder / MANIFEST
        if path.is_file():
            content = json.loads(path.read_text())
            check_same(content["settings"], settings, f"The unfinished `{folder}`", f"Delete `{folder}`")
            journal.splits = {split: SplitState(**state) for split, state in content["splits"].items()}
            journal.left_out = content["left_out"]
        for split, state in journal.splits.items():
            named = {one["name"] for one in state.files}
            for file in (folder / split).glob("*"):
                if file.name not in named:  # of a run that was killed while it wrote
                    file.unlink()
        for file in folder.glob(f".{MANIFEST}.*"):
            file.unlink()
        return journal

    def save(self) -> None:
        """Write the state in one step."""
        content = {
            "settings": self.settings,
            "tokenizer": self.tokenizer,
            "splits": {split: asdict(state) for split, state in self.splits.items()},
            "left_out": self.left_out,
        }
        replace_file(self.folder / MANIFEST, json.dumps(content, indent=1, sort_keys=True).encode())


def finished(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the manifest of a domain that is done, or None where there is no such folder.

    Raises:
        ValueError: if the folder was made otherwise, by something else, or has lost files since.
    """
    if not folder.exists():
        return None
    path = folder / MANIFEST
    if not path.is_file():
        raise ValueError(
            f"`{folder}` is there already, and `prepare` did not make it (it has no {MANIFEST}). If it holds data that"
            " are tokenized, nothing needs to be prepared; otherwise move it, or set another `data.root`."
        )
    manifest: dict[str, Any] = json.loads(path.read_text())
    check_same(manifest["settings"], settings, f"`{folder}`", f"Delete `{folder}`, or set another `data.root`,")
    for split, state in manifest["splits"].items():
        for one in state["files"]:
            file = folder / split / one["name"]
            if not file.is_file() or file.stat().st_size != one["bytes"]:
                raise ValueError(
                    f"`{file}` is missing or not of {one['bytes']} bytes. Delete `{folder}` and run again."
                )
    return manifest


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], what: str, remedy: str) -> None:
    """Refuse settings that differ from those that something was made with.

    Raises:
        ValueError: naming the first differences.
    """
    old, new = _flat(before), _flat(json.loads(json.dumps(now)))
    differing = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    if differing:
        shown = "; ".join(f"`{key}` was {old.get(key)} and is now {new.get(key)}" for key in differing[:_SHOWN])
        more = f" (and {len(differing) - _SHOWN} more)" if len(differing) > _SHOWN else ""
        raise ValueError(f"{what} was made with other settings: {shown}{more}. {remedy} to make it anew.")


def locked(folder: Path) -> AbstractContextManager[None]:
    """Keep other processes from making the same domain meanwhile; a folder in which nothing was begun is removed.

    Raises:
        ValueError: if another one is at it, when the context is entered.
    """
    return alone_in(folder, busy=f"Another process is preparing `{folder}`. Run this one when it is done.")


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        parts = [(f"{key}.{name}" if key else str(name), inner) for name, inner in value.items()]
    elif isinstance(value, list):
        parts = [(f"{key}[{number}]", inner) for number, inner in enumerate(value)]
    else:
        return {key: value}
    return {name: one for inner_key, inner in parts for name, one in _flat(inner, inner_key).items()} or {key: value}
