"""The parts in which a column of the loss table is written as it is computed, so that a killed run goes on."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ir3de.files import replace_file
from ir3de.modules.expert_batches import Blocks

SHARD_TOKENS = 1 << 18  # padded tokens of a part: under a minute for a small expert on a CPU, under a second on a GPU
_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class SequenceLosses:
    """``nll_N`` float64 in nats and ``tokens_N`` int64 of sequences, and ``embedding_ND`` float32 where asked for.

    ``index_N`` says which sequences of the split they are.
    """

    index_N: Tensor
    nll_N: Tensor
    tokens_N: Tensor
    embedding_ND: Tensor | None = None

    @classmethod
    def joined(cls, parts: list["SequenceLosses"]) -> "SequenceLosses":
        """Put parts under one another."""
        embeddings = [part.embedding_ND for part in parts if part.embedding_ND is not None]
        return cls(
            torch.cat([part.index_N for part in parts]),
            torch.cat([part.nll_N for part in parts]),
            torch.cat([part.tokens_N for part in parts]),
            torch.cat(embeddings) if embeddings else None,
        )

    def of_split(self, num_rows: int) -> "SequenceLosses":
        """Return all rows of a split in its order.

        Raises:
            ValueError: if one is missing.
        """
        place_N = torch.full((num_rows,), -1)
        place_N[self.index_N] = torch.arange(len(self.index_N))
        missing = (place_N < 0).nonzero().flatten()
        if len(missing):
            raise ValueError(
                f"{len(missing)} of {num_rows} sequences have no loss, the first is {int(missing[0])}. The processes"
                " must see one `data.cache_dir`; run the command again, it goes on where it was."
            )
        embedding_ND = None if self.embedding_ND is None else self.embedding_ND[place_N]
        return SequenceLosses(torch.arange(num_rows), self.nll_N[place_N], self.tokens_N[place_N], embedding_ND)


class LossShards:
    """The parts of one column in a folder: each is whole or absent, and any process may have written it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, part: SequenceLosses) -> None:
        """Write one part, under a name made of its rows."""
        name = hashlib.sha256(part.index_N.numpy().tobytes()).hexdigest()[:16]
        write_part(self._folder / f"{name}.parquet", part)

    def read(self) -> list[SequenceLosses]:
        """Return the parts that are there; a damaged one is deleted, and so computed again."""
        parts = []
        for path in sorted(self._folder.glob("*.parquet")):
            try:
                table = pq.read_table(path, page_checksum_verification=True, memory_map=False)
                index, nll, tokens = (table[name].to_numpy().copy() for name in ("index", "nll", "tokens"))
            except (pa.ArrowException, OSError, KeyError):
                path.unlink(missing_ok=True)
                continue
            embedding_ND = read_embeddings(table) if "embedding" in table.column_names else None
            parts.append(
                SequenceLosses(torch.from_numpy(index), torch.from_numpy(nll), torch.from_numpy(tokens), embedding_ND)
            )
        return parts

    def rows(self) -> set[int]:
        """Return the rows that have been written."""
        return {row for part in self.read() for row in part.index_N.tolist()}


def write_part(path: Path, part: SequenceLosses) -> None:
    """Write sequences as Parquet in one step: index, nll, tokens, and embedding (lists of one length) if there."""
    table = pa.table({"index": part.index_N.numpy(), "nll": part.nll_N.numpy(), "tokens": part.tokens_N.numpy()})
    if part.embedding_ND is not None:
        values = pa.array(np.ascontiguousarray(part.embedding_ND.float().numpy()).reshape(-1))
        vectors = pa.FixedSizeListArray.from_arrays(values, part.embedding_ND.shape[1])
        table = table.append_column("embedding", vectors)
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, write_page_checksum=True)
    replace_file(path, buffer.getvalue().to_pybytes())


def read_embeddings(table: pa.Table) -> Tensor:
    """Return the column ``embedding`` of a Parquet file as ``(N, D)`` float32."""
    column = table["embedding"].combine_chunks()
    return torch.from_numpy(column.flatten().to_numpy(zero_copy_only=False).copy()).view(len(column), -1)


def shards_of(split: Blocks, *, batch_size: int, shard_tokens: int = SHARD_TOKENS) -> list[list[list[int]]]:
    """Return the batches of each shard: rows of like length together, the longest first, whatever runs them.

    Sequences of similar length share a batch so that little padding is computed, and memory that is short runs out
    at once.
    """
    lengths = np.zeros(len(split), dtype=np.int64)
    for start in range(0, len(split), _AT_ONCE):
        batch = split.__getitems__(list(range(start, min(start + _AT_ONCE, len(split)))))
        lengths[batch["index"].numpy()] = batch["attention_mask"].sum(1).numpy()
    order = np.argsort(-lengths, kind="stable").tolist()
    shards: list[list[list[int]]] = []
    room = 0
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        cost = len(rows) * max(1, int(lengths[rows[0]]))
        if room < cost or not shards:
            shards.append([])
            room = max(shard_tokens, cost)
        shards[-1].append(rows)
        room -= cost
    return shards
