"""Shards of the training text: the unit in which it is read, counted, and kept when a run is killed."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow.parquet as arrow_parquet
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch.utils.data import Dataset

from ir3de.data.cache import SequenceFile
from ir3de.data.corpus import cache_key
from ir3de.data.dataset import NO_ROW
from ir3de.files import replace_file
from ir3de.functional.counts import add_token_counts_
from ir3de.types import ShardCounts

_VERSION = 1  # of what is counted here; a new one makes old journals be ignored
_ROWS_AT_ONCE = 1024
T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """A run of one domain's training text; ``key`` changes when its content does.

    With ``field`` the rows are the row groups of a Parquet file with that column, without it the rows of a file of
    sequences. ``masked_id`` is a token id that is not text (the separator of packed documents). ``fill`` is a width
    and an id with which shorter rows are filled, see ``Faults``.
    """

    domain: int
    path: Path
    first: int
    last: int
    key: str
    field: str | None = None
    masked_id: int | None = None
    fill: tuple[int, int] | None = None

    def tokens(self) -> Iterator[np.ndarray]:
        """Yield the token ids, a piece at a time.

        Raises:
            ValueError: if a row has no value.
        """
        if self.field is not None:
            yield from _parquet_tokens(self.path, self.field, range(self.first, self.last))
            return
        file = SequenceFile(self.path)
        for low in range(self.first, self.last, _ROWS_AT_ONCE):
            rows = np.arange(low, min(low + _ROWS_AT_ONCE, self.last))
            length, begin = file.length_N[rows], file.begin_N[rows]
            if bool((begin[:-1] + length[:-1] == begin[1:]).all()):  # nothing but tokens between the first and the last
                yield file.ids_M[begin[0] : begin[-1] + length[-1]]
            else:
                yield np.concatenate(file.rows(rows))
            if self.fill is not None:
                width, filling = self.fill
                yield np.full(int(np.maximum(width - length, 0).sum()), filling, dtype=np.int32)


class CountedShards(Dataset[ShardCounts]):
    """The counts of each shard, taken from the journal where a run before has counted it.

    Args:
        shards: all shards, the same list on every process.
        vocab_size: entries of the tokenizer's vocabulary.
        journal: the folder that the counts of each shard are kept in, by its key.
    """

    def __init__(self, shards: Sequence[Shard], *, vocab_size: int, journal: Path) -> None:
        self.shards = list(shards)
        self._vocab_size = vocab_size
        self._journal = journal

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, indices: Sequence[int]) -> ShardCounts:
        """Return the counts of one shard; ``NO_ROW`` gives no counts of no domain."""
        (index,) = indices
        if index == NO_ROW:
            nothing = np.zeros(0, dtype=np.int64)
            return _batch(NO_ROW, NO_ROW, {"ids": nothing.astype(np.int32), "counts": nothing, "source": nothing[:1]})
        shard = self.shards[index]
        kept = self._kept(shard)
        if kept is None:
            kept = count(shard, self._vocab_size)
            replace_file(self._path(shard), save(kept))
        return _batch(index, shard.domain, kept)

    def num_kept(self) -> int:
        """Return how many shards the journal has."""
        return sum(self._path(shard).is_file() for shard in self.shards)

    def _path(self, shard: Shard) -> Path:
        return self._journal / f"{cache_key(_VERSION, shard.key, self._vocab_size)}.safetensors"

    def _kept(self, shard: Shard) -> dict[str, np.ndarray] | None:
        try:
            return load(self._path(shard).read_bytes())
        except (FileNotFoundError, SafetensorError):  # not counted yet, or damaged: counted again
            return None


def count(shard: Shard, vocab_size: int) -> dict[str, np.ndarray]:
    """Return a shard's entries that occur (``ids`` int32) and how often (``counts`` int64), and its content's hash.

    ``source`` ``(1,)`` int64 has 64 bits of the SHA-256 of the ids of a Parquet file; it is 0 for text, whose documents
    have hashes of their own.

    Raises:
        ValueError: if a row has no value, or an id is not in the vocabulary.
    """
    counts_V = np.zeros(vocab_size, dtype=np.int64)
    digest = hashlib.sha256()
    for ids_M in shard.tokens():
        try:
            add_token_counts_(counts_V, ids_M)
        except ValueError as error:
            raise ValueError(f"In `{shard.path}`: {error}") from error
        if shard.field is not None:
            digest.update(np.ascontiguousarray(ids_M, dtype="<i4").data)
    if shard.masked_id is not None:
        counts_V[shard.masked_id] = 0
    ids_S = np.flatnonzero(counts_V)
    source = np.frombuffer(digest.digest()[:8] if shard.field is not None else bytes(8), dtype="<i8")
    return {"ids": ids_S.astype(np.int32), "counts": counts_V[ids_S], "source": source.astype(np.int64)}


def sequence_shards(
    path: Path,
    *,
    domain: int,
    digest: str,
    masked_id: int | None,
    shard_tokens: int,
    fill: tuple[int, int] | None = None,
    num_rows: int | None = None,
) -> list[Shard]:
    """Return the shards of a file of sequences whose content has the hash ``digest``; of its first ``num_rows``."""
    ends = np.cumsum(SequenceFile(path).length_N[:num_rows])
    edges = [0]
    while edges[-1] < len(ends):
        before = int(ends[edges[-1] - 1]) if edges[-1] else 0
        edges.append(max(edges[-1] + 1, int(np.searchsorted(ends, before + shard_tokens, side="right"))))
    content = ["sequences", digest, masked_id, *([] if fill is None else ["filled", *fill])]
    return [
        Shard(domain, path, first, last, cache_key(*content, first, last), masked_id=masked_id, fill=fill)
        for first, last in pairwise(edges)
    ]


def parquet_shards(
    path: Path, *, field: str, domain: int, stamp: list[object], masked_id: int | None, shard_tokens: int
) -> list[Shard]:
    """Return the shards of a Parquet file: its row groups, put together up to ``shard_tokens``."""
    edges, tokens = [0], 0
    for group, size in enumerate(row_group_tokens(path, field)):
        if tokens and tokens + size > shard_tokens:
            edges.append(group)
            tokens = 0
        tokens += size
    edges.append(arrow_parquet.read_metadata(path).num_row_groups)
    content = ["parquet", stamp, field, masked_id]
    return [
        Shard(domain, path, first, last, cache_key(*content, first, last), field=field, masked_id=masked_id)
        for first, last in pairwise(edges)
        if last > first
    ]


def row_group_tokens(path: Path, field: str) -> list[int]:
    """Return the number of tokens in each row group of a Parquet file, from its footer."""
    metadata = arrow_parquet.read_metadata(path)
    paths = [metadata.schema.column(i).path.split(".")[0] for i in range(metadata.num_columns)]
    column = paths.index(field)
    return [metadata.row_group(group).column(column).num_values for group in range(metadata.num_row_groups)]


def _parquet_tokens(path: Path, field: str, groups: range) -> Iterator[np.ndarray]:
    file = arrow_parquet.ParquetFile(path, memory_map=True)
    for batch in _ahead(file.iter_batches(_ROWS_AT_ONCE, row_groups=list(groups), columns=[field], use_threads=False)):
        column = batch.column(0)
        values = column.flatten()
        if column.null_count or values.null_count:
            raise ValueError(f"Expected token ids in every row of `{field}` in `{path}`, but a row has no value.")
        yield values.to_numpy(zero_copy_only=False)


def _ahead(values: Iterator[T]) -> Iterator[T]:
    """Yield the same values, the next of which is made beside: Arrow decodes while NumPy counts."""
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(next, values, None)
        while (value := pending.result()) is not None:
            pending = pool.submit(next, values, None)
            yield value


def _batch(index: int, domain: int, kept: dict[str, np.ndarray]) -> ShardCounts:
    return {
        "index": torch.tensor(index),
        "domain": torch.tensor(domain),
        "ids": torch.from_numpy(kept["ids"]),
        "counts": torch.from_numpy(kept["counts"]),
        "source": torch.from_numpy(kept["source"]).sum(),
    }
