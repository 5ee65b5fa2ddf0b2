"""Held-out sequences as bags of tokens: what is chosen on validation data can be chosen again without the text."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True)
class TokenBags:
    """The validation sequences of one domain, each as its token ids in ascending order: how often, not where.

    ``ids_M`` int32 holds one sequence after the other, ``offsets`` ``(N + 1,)`` int64 where each begins. Sequences are
    in the order of their content, so that equal sets are equal bytes whatever order they came in.
    """

    ids_M: np.ndarray
    offsets: np.ndarray

    @classmethod
    def from_sequences(cls, sequences: Iterable[np.ndarray]) -> Self:
        """Return the bags of token id sequences; empty ones are nothing to route on, and are left out."""
        rows = [np.sort(np.asarray(row, dtype=np.int32)) for row in sequences if len(row)]
        rows.sort(key=lambda row: (len(row), row.tobytes()))
        offsets = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64)
        return cls(np.concatenate(rows) if rows else np.zeros(0, dtype=np.int32), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __add__(self, other: Self) -> Self:
        return self.from_sequences([*self.sequences(), *other.sequences()])

    def sequences(self) -> list[np.ndarray]:
        """Return the ids of each sequence, int32."""
        return np.split(self.ids_M, self.offsets[1:-1]) if len(self) else []

    def digest(self) -> str:
        """Return the SHA-256 of the bags."""
        digest = hashlib.sha256(self.offsets.astype("<i8").tobytes())
        digest.update(self.ids_M.astype("<i4").tobytes())
        return digest.hexdigest()


NO_BAGS = TokenBags.from_sequences([])
