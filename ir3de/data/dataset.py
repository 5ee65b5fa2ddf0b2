"""A split as a map-style data set that is gathered many rows at a time, and the order in which rows are taken."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from ir3de.data.cache import SequenceFile
from ir3de.types import Batch

NO_ROW = -1  # a row that is not there: fully masked


class BlockDataset(Dataset[Batch]):
    """The sequences of a split, domain after domain.

    Args:
        files: one file of sequences per domain.
        domains: the number of each file's domain.
        digests: the content hash of each file.
        names: the names of all domains, in order.
        masked_id: a token id that is not text (the separator of packed documents), masked in every batch.
        with_text: whether batches carry the text.
        decode: makes text of token ids, for rows that came without.
        fill: a width and an id with which shorter rows are filled, and the filling is not masked; see ``Faults``.
    """

    def __init__(
        self,
        files: Sequence[Path],
        *,
        domains: Sequence[int],
        digests: Sequence[str],
        names: Sequence[str],
        masked_id: int | None = None,
        with_text: bool = False,
        decode: Callable[[Sequence[np.ndarray]], list[str]] | None = None,
        fill: tuple[int, int] | None = None,
    ) -> None:
        self._files = [SequenceFile(file) for file in files]
        self._domains = list(domains)
        self._starts = np.cumsum([0, *(len(file) for file in self._files)])
        self._masked_id = masked_id
        self._with_text = with_text
        self._decode = decode
        self._fill = fill
        if with_text and decode is None and not all(file.has_text for file in self._files):
            raise ValueError(
                "Expected text beside the token ids, but a domain is already tokenized. Set `with_text: false`,"
                " or give that domain as text."
            )
        #: The SHA-256 of what was read, however it is filled and masked.
        self.content: str = hashlib.sha256(json.dumps([list(names), self._domains, list(digests)]).encode()).hexdigest()
        identity = json.dumps([list(names), self._domains, list(digests), masked_id, *([] if fill is None else fill)])
        self.fingerprint: str = hashlib.sha256(identity.encode()).hexdigest()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int | Sequence[int]) -> Batch:
        return self.__getitems__([index] if isinstance(index, int) else index)

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """Gather rows into one batch; ``NO_ROW`` gives a row that is fully masked."""
        index_B = np.asarray(indices, dtype=np.int64)
        file_B = np.searchsorted(self._starts, index_B, side="right") - 1
        parts = [(int(k), np.flatnonzero(file_B == k)) for k in np.unique(file_B) if k >= 0]
        width = max([self._width(k, index_B[places]) for k, places in parts], default=1)
        gathered_width, width = width, max(width, 0 if self._fill is None or not parts else self._fill[0])
        whole = len(parts) == 1 and len(parts[0][1]) == len(index_B) and width == gathered_width
        ids_BT = np.empty((0, 0), dtype=np.int32) if whole else np.zeros((len(index_B), width), dtype=np.int32)
        length_B = np.zeros(len(index_B), dtype=np.int64)
        domain_B = np.zeros(len(index_B), dtype=np.int64)
        next_B = np.full(len(index_B), -1, dtype=np.int64)
        for k, places in parts:
            file, rows = self._files[k], index_B[places] - self._starts[k]
            gathered = file.gather(rows, gathered_width)
            if whole:
                ids_BT = gathered
            else:
                ids_BT[places, :gathered_width] = gathered
            length_B[places] = file.length_N[rows]
            domain_B[places] = self._domains[k]
            if file.next_N is not None:
                next_B[places] = file.next_N[rows]
        mask_BT = _mask(length_B, width)
        full = bool((length_B == width).all())
        ids = torch.from_numpy(ids_BT.astype(np.int64))
        if not full:
            ids.masked_fill_(~mask_BT, 0)
        if self._fill is not None and not full:
            size, filling = self._fill
            next_B[(length_B < size) & (index_B >= 0)] = filling
            filled_BT = ~mask_BT & (torch.arange(width) < size) & torch.from_numpy(index_B >= 0)[:, None]
            ids.masked_fill_(filled_BT, filling)
            mask_BT |= filled_BT
        if self._masked_id is not None:
            mask_BT &= ids != self._masked_id
        batch: Batch = {
            "input_ids": ids,
            "attention_mask": mask_BT,
            "domain": torch.from_numpy(domain_B),
            "index": torch.from_numpy(index_B),
        }
        if any(file.next_N is not None for file in self._files) or self._fill is not None:
            batch["next"] = torch.from_numpy(next_B)
        if self._with_text:
            batch["text"] = self.texts(index_B)
        return batch

    def texts(self, indices: Sequence[int] | np.ndarray) -> list[str]:
        """Return the text of rows, whether or not batches carry it: decoded, for rows that came as token ids.

        Raises:
            ValueError: if a row came as token ids and nothing decodes them.
        """
        index_B = np.asarray(indices, dtype=np.int64)
        found = [""] * len(index_B)
        file_B = np.searchsorted(self._starts, index_B, side="right") - 1
        for k in np.unique(file_B[file_B >= 0]).tolist():
            places = np.flatnonzero(file_B == k)
            file, rows = self._files[k], index_B[places] - self._starts[k]
            if file.has_text:
                texts = file.texts(rows)
            elif self._decode is not None:
                texts = self._decode(file.rows(rows))
            else:
                raise ValueError("Expected rows with text, but their domain is already tokenized.")
            for place, text in zip(places, texts, strict=True):
                found[int(place)] = text
        return found

    def documents(self) -> np.ndarray:
        """Return the number of the first document of every row within its source, ``(N,)`` int64."""
        return np.concatenate([file.document_N for file in self._files])

    def domains(self) -> np.ndarray:
        """Return the domain of every row, ``(N,)`` int64."""
        return np.repeat(self._domains, np.diff(self._starts))

    def num_tokens(self) -> int:
        """Return the number of real tokens, separators included."""
        return sum(int(file.length_N.sum()) for file in self._files)

    def _width(self, k: int, index: np.ndarray) -> int:
        file = self._files[k]
        return file.width if file.width is not None else int(file.length_N[index - self._starts[k]].max())


class ShardedRows(DistributedSampler[list[int]]):
    """Each row once per epoch over all processes, in equally many batches for each; consecutive rows, or shuffled.

    What is missing to a multiple of the number of processes is filled with fully masked rows (``NO_ROW``), which
    weigh nothing, where Lightning's own sampler would repeat rows. Being a DistributedSampler, Lightning keeps it.
    """

    def __init__(
        self, num_rows: int, batch_size: int, *, shuffle: bool, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__(range(num_rows), num_replicas=world_size, rank=rank, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]
        self._num_rows = num_rows
        self._batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(math.ceil(self._num_rows / self.num_replicas) / self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        rows = np.arange(self._num_rows)
        if self.shuffle:
            rows = np.random.default_rng([self.seed, self.epoch]).permutation(self._num_rows)
        missing = -self._num_rows % self.num_replicas
        mine = np.concatenate([rows, np.full(missing, NO_ROW)])[self.rank :: self.num_replicas]
        for first in range(0, len(mine), self._batch_size):
            yield mine[first : first + self._batch_size].tolist()


def loader(rows: Dataset[Any], sampler: ShardedRows, *, num_workers: int) -> DataLoader[Any]:
    """Return a loader of whole batches: the sampler gives their rows, and the data set gathers them at once."""
    return DataLoader(
        rows,
        sampler=sampler,
        batch_size=None,
        collate_fn=_same_batch,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )


def _same_batch(batch: Any) -> Any:
    """Return what the data set has already put together; a function of the module, which worker processes can find."""
    return batch


def _mask(length_B: np.ndarray, width: int) -> Tensor:
    return torch.arange(width)[None] < torch.from_numpy(length_B)[:, None]
