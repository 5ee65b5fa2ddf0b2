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


class Difference(NamedTuple):
    """How far two samples are apart (``distance``), and what chance has to do with it.

    ``by_chance`` of the distance is what samples of one distribution would have on average, and ``p_value`` is how
    often chance takes them as far apart.
    """

    distance: float
    by_chance: float
    p_value: float


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


def distance_by_chance(sample: Shares, fixed_X: Array) -> float:
    """Return what ``distance`` from ``fixed_X`` would be on average if the sample were drawn from it."""
    total_X = sample.share_X + fixed_X
    return float(0.5 * (sample.variance_X / np.where(total_X > 0, total_X, 1)).sum())


def difference(one_GX: Array, other_GX: Array, *, draws: int = DRAWS, seed: int = 0) -> Difference:
    """Return how far two samples are apart, and how often chance alone takes them as far.

    The counts ``(G, X)`` are grouped alike: the same prompt is in the same group of both samples, so that groups can be
    exchanged between them. If both are of one distribution with the shares ``q``, estimated from both together, a group
    with ``n`` counts is expected to have ``q n``. Let ``r`` be the counts above that, ``R`` the sum of the ``r`` of
    ``one``, and ``w`` the samples' parts of all ``N`` counts. All ``r`` together sum to zero, so that ::

        R = Σ f_g,  f_g = w_other r_one,g - w_one r_other,g,  R = w_one w_other N (p_one - p_other)

    where every ``f_g`` is independent and of mean zero. For samples of one size, exchanging the two groups ``g`` turns
    the sign of ``f_g``: thrown signs give a randomization test of ``T = Σ R² / q``. For others they give the wild
    bootstrap of a degenerate U-statistic: ``T - Σ |f_g|²`` has products of different groups alone, whose mean is zero
    and whose variance signs do not change, and ``Σ |f_g|²`` is the same in all. Nothing is estimated from one
    sample alone, so that a count that the smaller one lacks is no certainty. That ``q`` is estimated takes
    ``v a_g a_h / N`` from the mean of each product, with ``a`` as ``f`` but of the ``n``, and ``v = Σ |r|² / q`` for
    each count (one degree of freedom less): it is added again.
    """
    present_X = (one_GX.sum(axis=0) + other_GX.sum(axis=0)) > 0
    both = [counts_GX[:, present_X] for counts_GX in (one_GX, other_GX)]
    size_GS = np.stack([counts_GX.sum(axis=1) for counts_GX in both], axis=1)
    total_S, total = size_GS.sum(axis=0), int(size_GS.sum())
    sums = [counts_GX.sum(axis=0) for counts_GX in both]
    pooled_X = (sums[0] + sums[1]) / total
    above = [(c_GX - pooled_X * n_G[:, None]) / np.sqrt(pooled_X) for c_GX, n_G in zip(both, size_GS.T, strict=True)]
    weight = total_S[::-1] / total * [1, -1]
    part_GX, size_G = weight[0] * above[0] + weight[1] * above[1], size_GS @ weight
    squares = sum(float(np.vdot(one, one)) for one in above)
    each = squares / (total - float((size_GS.astype(float) ** 2).sum()) / total)
    product_GG = part_GX @ part_GX.T + each / total * np.outer(size_G, size_G)
    sign_BG = _signs(draws, len(product_GG), seed)
    observed = float(product_GG.sum())
    apart = distance(sums[0] / total_S[0], sums[1] / total_S[1])
    return Difference(
        apart,
        apart * float(np.trace(product_GG)) / observed if apart else 0.0,
        _p_value(((sign_BG @ product_GG) * sign_BG).sum(axis=1) + 1e-12 * squares, observed),
    )


def z_scores(one: Shares, other: Shares, sizes: tuple[int, int]) -> Array:
    """Return how many standard errors each share of ``other`` is above that of ``one``; 0 where neither varies.

    A sample that has hardly any of something varies little by chance, so that its own error says nothing: it is taken
    to be no less than what the variance in both together gives for a sample of its size.
    """
    variances, total = (one.variance_X, other.variance_X), sum(sizes)
    of_one_X = sum(size**2 / total * variance_X for size, variance_X in zip(sizes, variances, strict=True))
    error_X = np.sqrt(sum(np.maximum(own_X, of_one_X / size) for own_X, size in zip(variances, sizes, strict=True)))
    return _in_errors(other.share_X - one.share_X, error_X)


def student_p_values(z_X: Array, freedom: int) -> Array:
    """Return how often Student's t with ``freedom`` degrees is so far from 0, exact to some 1e-15.

    By the finite series for integers (Abramowitz and Stegun, 26.7.3 and 26.7.4).
    """
    angle_X = np.arctan(np.abs(z_X) / np.sqrt(freedom))
    square_X, odd = np.cos(angle_X) ** 2, freedom % 2
    term_X = np.cos(angle_X) if odd else np.ones_like(angle_X)
    sum_X = np.zeros_like(angle_X)
    for k in range(odd + 1, freedom, 2):
        sum_X += term_X
        term_X = term_X * square_X * k / (k + 1)
    within_X = np.sin(angle_X) * sum_X
    p_X: Array = np.clip(1 - (2 / np.pi * (angle_X + within_X) if odd else within_X), 0, 1)
    return p_X


def each_the_same(one: Shares, other: Shares, *, draws: int = DRAWS, seed: int = 0) -> Array:
    """Return a p-value ``(X,)`` for each share, of a change of its size or more in any of them."""
    error_X = np.sqrt(one.variance_X + other.variance_X)
    thrown_GX = _in_errors(np.concatenate([one.error_GX, other.error_GX]), error_X)
    most_B = np.abs(_signs(draws, len(thrown_GX), seed) @ thrown_GX).max(axis=1)
    z_X = _in_errors(other.share_X - one.share_X, error_X)
    return np.array([_p_value(most_B, z) for z in np.abs(z_X).tolist()])


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


def _in_errors(value_X: Array, error_X: Array) -> Array:
    return np.where(error_X > 0, value_X / np.where(error_X > 0, error_X, 1), 0.0)


def _signs(draws: int, groups: int, seed: int) -> Array:
    return np.random.default_rng(seed).choice(np.array([-1.0, 1.0]), size=(draws, groups))


def _p_value(drawn_B: Array, observed: float) -> float:
    return (1 + int((drawn_B >= observed * (1 - 1e-12)).sum())) / (len(drawn_B) + 1)
