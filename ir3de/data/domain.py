"""A domain as a config gives it: one source that is to be split, or a source for each split."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as arrow_parquet

from ir3de.data.sources import TEXT_SUFFIXES, Source, TextFiles
from ir3de.data.splits import SPLITS
from ir3de.data.tables import TABLE_SUFFIXES, TableFiles, TokenizedParquet, source_from_path

_TOKEN_IDS = "input_ids"


@dataclass(frozen=True)
class Splits:
    """A domain that comes with splits of its own.

    Args:
        train: a path or a source.
        validation: a path or a source.
        test: a path or a source.
    """

    train: str | Source
    validation: str | Source
    test: str | Source


def sources_of(domain: str | Source | Splits, *, root: str | None = None) -> list[tuple[str | None, Source]]:
    """Return a domain's sources with the split that each is for, or ``None`` for one that is to be split.

    A path is looked up in ``root``. A folder that has each of train, validation and test, as a folder or a file, has
    splits of its own; Parquet with the column ``input_ids`` in such a folder is used as it is.

    Raises:
        FileNotFoundError: if such a folder has some of the splits only.
    """
    if isinstance(domain, str):
        path = path_in(root, domain)
        parts = _parts(path)
        if parts:
            return [(split, _source_at(parts[split])) for split in SPLITS]
        return [(None, source_from_path(str(path)))]
    if isinstance(domain, Splits):
        given = {split: getattr(domain, split) for split in SPLITS}
        return [
            (split, _source_at(path_in(root, one)) if isinstance(one, str) else one) for split, one in given.items()
        ]
    return [(None, domain)]


def path_in(root: str | None, path: str) -> Path:
    """Return a path as it is, or within ``root`` where that is given and the path is relative."""
    return Path(path).expanduser() if root is None else Path(root).expanduser() / path


def _parts(folder: Path) -> dict[str, Path]:
    """Return the folder or file of each split, or nothing where the folder is no such folder."""
    found = {}
    for split in SPLITS:
        candidates = [folder / split, *(folder / f"{split}{suffix}" for suffix in (*TABLE_SUFFIXES, *TEXT_SUFFIXES))]
        there = [path for path in candidates if path.exists()]
        if there:
            found[split] = there[0]
    missing = [split for split in SPLITS if split not in found]
    if found and missing:
        raise FileNotFoundError(
            f"Expected train, validation and test in `{folder}`, which has {sorted(found)}: there is no"
            f" {' and no '.join(missing)}. Add it, or give each split's source by name."
        )
    return found


def _source_at(path: Path) -> Source:
    """Return the source of one split: tokenized Parquet as it is, tables, or text files."""
    if not path.is_dir():
        return source_from_path(str(path))
    parquet = next(iter(sorted(path.rglob("*.parquet"))), None)
    if parquet is not None and _TOKEN_IDS in arrow_parquet.read_schema(parquet).names:
        return TokenizedParquet(str(path), as_is=True)
    has_tables = any(next(path.rglob(f"*{suffix}"), None) is not None for suffix in TABLE_SUFFIXES)
    return TableFiles(str(path)) if has_tables else TextFiles(str(path))
