"""How unusual a prompt is for each expert: its token distribution against the expert's counts. NumPy alone.

The surprise of a token is ``-log p_k(v)`` under an expert's smoothed counts, in nats. A prompt's divergence from an
expert is the mean surprise of its tokens less the entropy of its own token distribution: the Kullback-Leibler
divergence of what it says from what the expert's domain says. Short prompts diverge more, from every expert. So
divergences are held against those of validation sequences of the same length.

Shape suffixes as in ``ir3de.types``; ``L`` are the lengths 1, 2, 3, 4, 6, 8, 12, … in tokens.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Array = np.ndarray
STRENGTH = 100.0  # tokens of the common distribution that every expert's counts are smoothed with
LEAST = 5  # sequences of a length below which an expert's own mean and variance of it mean nothing
REACHED = 4  # one in so many sequences must be as long as the longest length that is known
_FLOOR = 0.01  # added to every count of the common distribution: no token is impossible
_SHARED = 10  # sequences that the variance of all experts together weighs, beside an expert's own


def floored_share(counts_V: Array, tokens: int) -> Array:
    """Return a domain's share of each token ``(V,)``, where no token is impossible."""
    floored_V: Array = (counts_V + _FLOOR) / (tokens + _FLOOR * len(counts_V))
    return floored_V


def surprise(counts_V: Array, tokens: int, common_V: Array, *, strength: float = STRENGTH) -> Array:
    """Return ``-log((c(v) + a · q(v)) / (n + a))`` ``(V,)`` in nats, with a the ``strength`` and q the common one.

    The common distribution is the mean of the experts' floored shares.
    """
    surprise_V: Array = np.log(tokens + strength) - np.log(counts_V + strength * common_V)
    return surprise_V


def entropy(ids_T: Array) -> float:
    """Return the entropy of a prompt's own token distribution, in nats."""
    _, count_S = np.unique(ids_T, return_counts=True)
    return float(np.log(len(ids_T)) - (count_S * np.log(count_S)).sum() / len(ids_T))


def thinned(ids_T: Array, length: int) -> Array:
    """Return ``length`` of a longer prompt's tokens, evenly spaced."""
    return ids_T[np.arange(length) * len(ids_T) // length]


def known_lengths(lengths_N: Array) -> Array:
    """Return the lengths ``(L,)`` that sequences of these lengths can tell of; empty if there are no sequences."""
    if not len(lengths_N):
        return np.zeros(0, dtype=np.int64)
    longest = int(np.quantile(lengths_N, 1 - 1 / REACHED, method="lower"))
    grid = sorted({power * step // 2 for power in 2 ** np.arange(longest.bit_length()) for step in (2, 3)})
    return np.array([length for length in grid if length <= longest], dtype=np.int64)


class Curves(NamedTuple):
    """Mean and standard deviation ``(L, E)`` of the divergences of each expert's own validation sequences, by length.

    ``lengths_L`` are ascending from 1; of longer prompts so many tokens are read as the last one says.
    """

    lengths_L: Array
    mean_LE: Array
    deviation_LE: Array

    def excess(self, divergence_NE: Array, lengths_N: Array) -> Array:
        """Return how many standard deviations above its expert's mean each divergence ``(N, E)`` is, at its length."""
        low_N, high_N, part_N = self.between(lengths_N)
        part_N1 = part_N[:, None]
        mean_NE = self.mean_LE[low_N] * (1 - part_N1) + self.mean_LE[high_N] * part_N1
        deviation_NE = self.deviation_LE[low_N] * (1 - part_N1) + self.deviation_LE[high_N] * part_N1
        return (divergence_NE - mean_NE) / deviation_NE

    def between(self, lengths_N: Array) -> tuple[Array, Array, Array]:
        """Return the places of the next lower and higher known length, and how far it is between them, from 0 to 1."""
        low_N = np.searchsorted(self.lengths_L, lengths_N, side="right") - 1
        high_N = np.minimum(low_N + 1, len(self.lengths_L) - 1)
        below_N = np.log(self.lengths_L[low_N])
        reach_N = np.maximum(np.log(self.lengths_L[high_N]) - below_N, 1e-9)
        return low_N, high_N, (np.log(lengths_N) - below_N) / reach_N


def fit_curves(lengths_L: Array, own: Sequence[Array]) -> tuple[Curves, list[Array]]:
    """Return the experts' curves, and the excess ``(N, L)`` of every validation sequence above its own expert's.

    ``own`` has for every expert the divergences from it ``(N, L)`` of its own sequences, thinned to each length, NaN
    where a sequence is shorter. A sequence's excess is taken above the others', so that it is that of a new one. An
    expert with fewer than ``LEAST`` sequences takes over what is common to the others.

    Raises:
        ValueError: if every expert has fewer.
    """
    count_LE = np.stack([(~np.isnan(d_NL)).sum(axis=0) for d_NL in own], axis=1)
    enough_LE = count_LE >= LEAST
    if not len(lengths_L) or not enough_LE[0].any():
        raise ValueError(
            f"Expected at least {LEAST} validation sequences of an expert to know what is usual, but the most that one"
            f" has are {int(count_LE.max(initial=0))}. Fit with a larger validation split."
        )
    known = int(enough_LE.any(axis=1).sum())
    count_LE, enough_LE = count_LE[:known], enough_LE[:known]
    sums_LE = np.stack([np.nansum(d_NL[:, :known], axis=0) for d_NL in own], axis=1)
    squares_LE = np.stack([np.nansum(d_NL[:, :known] ** 2, axis=0) for d_NL in own], axis=1)
    mean_LE, variance_LE = _moments(count_LE, sums_LE, squares_LE)
    freedom_LE = np.where(enough_LE, count_LE - 1, 0)
    shared_L = (freedom_LE * variance_LE).sum(axis=1) / freedom_LE.sum(axis=1)
    mean_LE = _filled(np.where(enough_LE, mean_LE, np.nan))
    deviation_LE = _deviation(variance_LE, freedom_LE, shared_L[:, None])

    excesses = []
    for k, all_NL in enumerate(own):
        d_NL, others_L = all_NL[:, :known], count_LE[:, k] - 1
        others_mean_NL, others_variance_NL = _moments(
            others_L, sums_LE[:, k] - np.nan_to_num(d_NL), squares_LE[:, k] - np.nan_to_num(d_NL) ** 2
        )
        alone_NL = (d_NL - others_mean_NL) / _deviation(others_variance_NL, others_L - 1, shared_L)
        excesses.append(np.where(enough_LE[:, k], alone_NL, (d_NL - mean_LE[:, k]) / deviation_LE[:, k]))
    return Curves(lengths_L[:known], mean_LE, deviation_LE), excesses


def p_value(excess: float, ordered: Sequence[float]) -> float:
    """Return the share of validation sequences, the prompt itself among them, that are at least so unusual.

    ``ordered`` are their excesses, ascending. If the prompt is one of their kind, it is at most α with probability α.
    """
    return (1 + len(ordered) - bisect_left(ordered, excess)) / (len(ordered) + 1)


def _moments(count: Array, sums: Array, squares: Array) -> tuple[Array, Array]:
    """Return means and unbiased variances; meaningless where there are fewer than two."""
    number = np.maximum(count, 2)
    mean = sums / number
    return mean, np.maximum(squares - number * mean**2, 0) / (number - 1)


def _deviation(variance: Array, freedom: Array, shared: Array) -> Array:
    """Return what a new sequence deviates by: drawn towards what all experts share, the mean's own error added."""
    freedom = np.maximum(freedom, 0)
    drawn = (freedom * variance + _SHARED * shared) / (freedom + _SHARED)
    return np.sqrt(np.maximum(drawn * (1 + 1 / (freedom + 1)), 1e-12))


def _filled(mean_LE: Array) -> Array:
    """Return the means with gaps filled: where an expert has none, it changes with the length as the others do."""
    mean_LE = mean_LE.copy()
    mean_LE[0] = np.where(np.isnan(mean_LE[0]), np.nanmean(mean_LE[0]), mean_LE[0])
    for i in range(1, len(mean_LE)):
        known_E = ~np.isnan(mean_LE[i])
        change = float((mean_LE[i] - mean_LE[i - 1])[known_E].mean())
        mean_LE[i] = np.where(known_E, mean_LE[i], mean_LE[i - 1] + change)
    return mean_LE
