"""Whether two samples of prompts differ by more than chance, where a prompt's tokens come in bursts. NumPy alone.

Tokens of one prompt are not independent, so a test that counts tokens finds a difference everywhere. Prompts are
independent: they are put into groups, and how much a sample's groups differ says how far its mean is due to chance.

Shape suffixes as in ``ir3de.types``; ``G`` are groups and ``X`` whatever is counted.
"""

from typing import NamedTuple

import numpy as np

Array = np.ndarray
DRAWS = 2_000


class Shares(NamedTuple):
    """Shares ``(X,)`` of a sample, and what each of its groups adds to their error ``(G, X)``.

    The errors' squares, summed over the groups, are the shares' variances.
    """

    share_X: Array
    error_GX: Array

    @property
    def variance_X(self) -> Array:
        """The variance of each share."""
        variance_X: Array = (self.error_GX**2).sum(axis=0)
        return variance_X

    def picked(self, places: Array) -> "Shares":
        """Return some of the shares as they are, and the sum of all others as the last one."""
        rest = np.ones(len(self.share_X), dtype=bool)
        rest[places] = False
        share_X = np.append(self.share_X[places], self.share_X[rest].sum())
        error_GX = np.concatenate([self.error_GX[:, places], self.error_GX[:, rest].sum(axis=1, keepdims=True)], axis=1)
        return Shares(share_X, error_GX)


def shares(counts_GX: Array, totals_GX: Array) -> Shares:
    """Return ``Σ counts / Σ totals`` over the groups, ``totals_GX`` ``(G, X)`` or ``(G, 1)``, with its error.

    The error is that of a ratio of two sums, to first order: groups need not be of one size. Where the total is zero,
    share and error are zero.
    """
    totals_X = np.maximum(totals_GX.sum(axis=0), 1)
    share_X = counts_GX.sum(axis=0) / totals_X
    filled = int((totals_GX.sum(axis=1) > 0).sum())
    correction = np.sqrt(filled / (filled - 1)) if filled > 1 else 0.0
    return Shares(share_X, correction * (counts_GX - share_X * totals_GX) / totals_X)


def distance(one_X: Array, other_X: Array) -> float:
    """Return ``½ Σ (p - q)² / (p + q)`` of two distributions: 0 for equal ones, 1 for those that share nothing."""
    total_X = one_X + other_X
    return float(0.5 * ((one_X - other_X) ** 2 / np.where(total_X > 0, total_X, 1)).sum())


def distance_by_chance(one: Shares, other: Shares) -> float:
    """Return what ``distance`` would be on average if both samples came from one distribution."""
    total_X = one.share_X + other.share_X
    variance_X = one.variance_X + other.variance_X
    return float(0.5 * (variance_X / np.where(total_X > 0, total_X, 1)).sum())


def same_distribution(one: Shares, other: Shares, *, draws: int = DRAWS, seed: int = 0) -> float:
    """Return the p-value of ``distance``: how often chance alone takes two samples as far apart.

    Chance is drawn from the samples themselves: the sign of every group's error is thrown anew.
    """
    scale_X = 1 / np.sqrt(np.maximum(one.share_X + other.share_X, 1e-300))
    observed = float((((one.share_X - other.share_X) * scale_X) ** 2).sum())
    drawn_B = (_thrown(one, other, scale_X, draws, seed) ** 2).sum(axis=1)
    return _p_value(drawn_B, observed)


def z_scores(one: Shares, other: Shares) -> Array:
    """Return how many standard errors each share of ``other`` is above that of ``one``; 0 where neither varies."""
    error_X = np.sqrt(one.variance_X + other.variance_X)
    z_X: Array = np.where(error_X > 0, (other.share_X - one.share_X) / np.where(error_X > 0, error_X, 1), 0.0)
    return z_X


def each_the_same(one: Shares, other: Shares, *, draws: int = DRAWS, seed: int = 0) -> Array:
    """Return a p-value ``(X,)`` for each share, of a change of its size or more in any of them."""
    error_X = np.sqrt(one.variance_X + other.variance_X)
    scale_X = np.where(error_X > 0, 1 / np.where(error_X > 0, error_X, 1), 0.0)
    most_B = np.abs(_thrown(one, other, scale_X, draws, seed)).max(axis=1)
    return np.array([_p_value(most_B, z) for z in np.abs(z_scores(one, other)).tolist()])


def _thrown(one: Shares, other: Shares, scale_X: Array, draws: int, seed: int) -> Array:
    """Return differences that chance alone makes, times ``scale_X``, ``(draws, X)``."""
    draw = np.random.default_rng(seed)
    error_GX = np.concatenate([one.error_GX, other.error_GX]) * scale_X
    sign_BG = draw.choice(np.array([-1.0, 1.0]), size=(draws, len(error_GX)))
    thrown_BX: Array = sign_BG @ error_GX
    return thrown_BX


def _p_value(drawn_B: Array, observed: float) -> float:
    return (1 + int((drawn_B >= observed * (1 - 1e-12)).sum())) / (len(drawn_B) + 1)
