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

    The error is the jackknife's, what the share would be without the group: groups need not be of one size, and a share
    that one group decides is uncertain. What comes from a single group, or from none, could be anything: its error is
    1, and where the total is zero the share is zero.
    """
    totals_X = totals_GX.sum(axis=0)
    filled_X = (totals_GX > 0).sum(axis=0)
    share_X = counts_GX.sum(axis=0) / np.maximum(totals_X, 1)
    correction_X = np.sqrt(np.maximum(filled_X - 1, 0) / np.maximum(filled_X, 1))
    error_GX = correction_X * (counts_GX - share_X * totals_GX) / np.maximum(totals_X - totals_GX, 1)
    return Shares(share_X, error_GX + np.where((np.arange(len(error_GX)) == 0)[:, None] & (filled_X < 2), 1.0, 0.0))


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


def each_rate_the_same(counts_2X: Array, totals_2X: Array) -> Array:
    """Return an exact p-value ``(X,)`` for each rate, of a change as rare as its own, or rarer, in any of them.

    ``counts_2X`` of ``totals_2X`` are those of two samples. Given the counts of both together, chance shares them out
    (Fisher's exact test), so that this holds for a handful of draws, where an error that is estimated from them does
    not; but it supposes that draws are independent. A rate that one sample has no draws of has 1.
    """
    every = [_rarities(*both) for both in zip(counts_2X.T.tolist(), totals_2X.T.tolist(), strict=True)]
    own_X = np.array([own for own, _ in every])
    level_K = np.unique(own_X)
    # a rate is as rare with a probability that is the next lower rarity that it can have: rarities are p-values
    log_none_K = np.zeros(len(level_K) + 1)
    for _, possible in every:
        below = possible[possible < 1]
        np.add.at(log_none_K, np.searchsorted(level_K, below), np.diff(np.log1p(-below), prepend=0.0))
    p_K = np.where(level_K < 1, np.abs(np.expm1(np.cumsum(log_none_K[:-1]))), 1.0)
    p_X: Array = p_K[np.searchsorted(level_K, own_X)]
    return p_X


def _rarities(counts: list[int], totals: list[int]) -> tuple[float, Array]:
    """Return Fisher's two-sided p-value, and all that it can be with these sums, ascending."""
    hits, draws, rest = sum(counts), totals[1], totals[0]
    least, most = max(0, hits - rest), min(hits, draws)
    mean = hits * draws / max(draws + rest, 1)
    far = 50 + 40 * np.sqrt(mean)  # the variance is below the mean; beyond it the probability is 0 in float64
    low, high = max(least, int(mean - far)), min(most, int(mean + far))
    count_K = np.arange(low, high + 1, dtype=np.float64)
    step_K = np.log((hits - count_K[:-1]) * (draws - count_K[:-1]))
    step_K -= np.log((count_K[:-1] + 1) * (rest - hits + count_K[:-1] + 1))
    log_K = np.concatenate([[0.0], np.cumsum(step_K)])
    probability_K = np.exp(log_K - log_K.max())
    probability_K /= probability_K.sum()
    ascending_K = np.sort(probability_K)
    as_rare_K = np.searchsorted(ascending_K, probability_K * (1 + 1e-7), side="right")
    rarity_K = np.minimum(np.cumsum(ascending_K)[as_rare_K - 1], 1.0)
    rarity_K[probability_K == probability_K.max()] = 1.0
    return float(rarity_K[min(max(counts[1], low), high) - low]), np.unique(rarity_K)


def _thrown(one: Shares, other: Shares, scale_X: Array, draws: int, seed: int) -> Array:
    """Return differences that chance alone makes, times ``scale_X``, ``(draws, X)``."""
    draw = np.random.default_rng(seed)
    error_GX = np.concatenate([one.error_GX, other.error_GX]) * scale_X
    sign_BG = draw.choice(np.array([-1.0, 1.0]), size=(draws, len(error_GX)))
    thrown_BX: Array = sign_BG @ error_GX
    return thrown_BX


def _p_value(drawn_B: Array, observed: float) -> float:
    return (1 + int((drawn_B >= observed * (1 - 1e-12)).sum())) / (len(drawn_B) + 1)
