"""Token counts: all that a closed-form fit reads from the data (DESIGN.md 3.2)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

TOKENS_AT_ONCE = 1 << 18  # the int64 copy that bincount makes of so many ids stays in the processor's cache


def check_token_ids(ids_M: Tensor, vocab_size: int) -> None:
    """Refuse ids that the vocabulary does not have.

    Raises:
        ValueError: if an id is negative or at least ``vocab_size``.
    """
    if ids_M.numel() == 0:
        return
    lowest, highest = (int(x) for x in torch.aminmax(ids_M))
    if lowest < 0 or highest >= vocab_size:
        raise ValueError(
            f"Expected token ids from 0 to {vocab_size - 1}, but got {lowest if lowest < 0 else highest}."
            " The data were made with another tokenizer than the router's; prepare them with the router's own."
        )


def add_token_counts_(counts_V: np.ndarray, ids_M: np.ndarray) -> None:
    """Add the tokens of a run of ids (any integer type) to ``counts_V`` ``(V,)`` int64, in place.

    Raises:
        ValueError: if an id is not in the vocabulary.
    """
    # NumPy counts on one thread; torch would start and join a team of them for every piece of some 100 µs of work.
    vocab_size = len(counts_V)
    for first in range(0, len(ids_M), TOKENS_AT_ONCE):
        piece_M = ids_M[first : first + TOKENS_AT_ONCE]
        if not 0 <= piece_M.min() <= piece_M.max() < vocab_size:
            check_token_ids(torch.from_numpy(piece_M.astype(np.int64)), vocab_size)
        counts_V += np.bincount(piece_M, minlength=vocab_size)


@dataclass(frozen=True)
class SparseCounts:
    """Counts ``(E, V)`` without their zeros: for each domain its entries, int32 ascending, and how often, int64."""

    ids: list[np.ndarray]
    counts: list[np.ndarray]
    vocab_size: int

    def weighted_sum(self, weights_E: Tensor) -> Tensor:
        """Return ``Σ_k w_k c_k`` ``(V,)`` float64, added up in the order of the domains."""
        total_V = np.zeros(self.vocab_size, dtype=np.float64)
        for ids_S, counts_S, weight in zip(self.ids, self.counts, weights_E.tolist(), strict=True):
            total_V[ids_S] += weight * counts_S
        return torch.from_numpy(total_V)

    def dense(self, domains: range, low: int, high: int) -> Tensor:
        """Return the counts of some domains and of the entries from ``low`` to ``high - 1``, ``(v, e)`` float64."""
        block_ve = np.zeros((high - low, len(domains)), dtype=np.float64)
        for column, domain in enumerate(domains):
            ids_S = self.ids[domain]
            first, last = np.searchsorted(ids_S, (low, high))
            block_ve[ids_S[first:last] - low, column] = self.counts[domain][first:last]
        return torch.from_numpy(block_ve)
