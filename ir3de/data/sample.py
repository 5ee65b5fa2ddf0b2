"""Some rows of a split as a split of their own."""

import hashlib

import numpy as np
import torch

from ir3de.data.dataset import NO_ROW, BlockDataset
from ir3de.types import Batch


def sample_rows(domain_N: np.ndarray, limit: int | None, *, seed: int) -> np.ndarray:
    """Return at most ``limit`` rows of each domain, drawn by the seed, in their order; all without a limit.

    A smaller limit draws a part of what a larger one draws.
    """
    if limit is None:
        return np.arange(len(domain_N))
    generator = np.random.default_rng(seed)
    places = [np.flatnonzero(domain_N == number) for number in np.unique(domain_N)]
    return np.concatenate([np.sort(generator.permutation(of_domain)[:limit]) for of_domain in places])


class SampledBlocks:
    """The given rows of a split, numbered from 0."""

    def __init__(self, dataset: BlockDataset, rows: np.ndarray) -> None:
        self._dataset = dataset
        self.rows = rows

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the split's fingerprint and the rows."""
        return hashlib.sha256(self._dataset.fingerprint.encode() + self.rows.astype("<i8").tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, indices: list[int]) -> Batch:
        return self.__getitems__(indices)

    def __getitems__(self, indices: list[int]) -> Batch:
        """Gather rows into one batch; ``NO_ROW`` gives a row that is fully masked."""
        places = [NO_ROW if i == NO_ROW else int(self.rows[i]) for i in indices]
        return {**self._dataset.__getitems__(places), "index": torch.tensor(indices)}

    def domains(self) -> np.ndarray:
        """Return the domain of every row, ``(N,)`` int64."""
        return self._dataset.domains()[self.rows]
