"""Distances against plain formulas, and errors of the first kind where tokens come in bursts."""

import itertools
import time

import numpy as np
import pytest
from scipy.stats import chi2_contingency, fisher_exact, hypergeom, kstest
from scipy.stats import t as students_t

from ir3de.functional.drift import (
    Shares,
    difference,
    distance,
    distance_by_chance,
    each_rate_the_same,
    each_the_same,
    shares,
    student_p_values,
    z_scores,
)

GROUPS, TOKENS = 32, 40


def _bursty(draw, base_V, *, prompts=400, concentration=6.0):
    """Return the counts of groups of prompts, each of which says few things often."""
    p_NV = draw.dirichlet(base_V * concentration, size=prompts)
    counts_NV = np.stack([draw.multinomial(int(draw.integers(5, 60)), p_V) for p_V in p_NV])
    return _grouped(counts_NV, draw.integers(0, GROUPS, size=prompts))


def _grouped(counts_NV, group_N):
    counts_GV = np.zeros((GROUPS, counts_NV.shape[1]), dtype=np.int64)
    np.add.at(counts_GV, group_N, counts_NV)
    return counts_GV


def _shares(counts_GX):
    return shares(counts_GX, counts_GX.sum(axis=1, keepdims=True))


@pytest.fixture
def draw():
    return np.random.default_rng(1)


def test_the_distance_is_what_it_says():
    p, q = np.array([0.5, 0.5, 0.0, 0.0]), np.array([0.25, 0.5, 0.25, 0.0])
    assert distance(p, q) == pytest.approx(0.5 * (0.0625 / 0.75 + 0.0625 / 0.25))
    assert distance(p, p) == 0
    assert distance(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 1


def test_errors_are_those_of_a_ratio_of_sums(draw):
    counts_GX = draw.integers(0, 50, size=(GROUPS, 3))
    totals_G1 = draw.integers(100, 200, size=(GROUPS, 1))
    found = shares(counts_GX, totals_G1)
    assert found.share_X == pytest.approx(counts_GX.sum(axis=0) / totals_G1.sum())
    resampled = []
    for _ in range(4_000):  # the bootstrap over groups
        some = draw.integers(0, GROUPS, size=GROUPS)
        resampled.append(counts_GX[some].sum(axis=0) / totals_G1[some].sum())
    assert np.sqrt(found.variance_X) == pytest.approx(np.std(resampled, axis=0), rel=0.08)


def test_errors_are_the_jackknifes(draw):
    totals_GX = draw.integers(0, 9, size=(GROUPS, 3)) ** 2
    counts_GX = draw.binomial(totals_GX, 0.3)
    found = shares(counts_GX, totals_GX)
    for x in range(3):
        some = np.flatnonzero(totals_GX[:, x])
        without = [np.delete(counts_GX[:, x], g).sum() / np.delete(totals_GX[:, x], g).sum() for g in some]
        change = np.array(without) - found.share_X[x]
        assert found.variance_X[x] == pytest.approx((len(some) - 1) / len(some) * (change**2).sum())


def test_what_comes_from_one_group_or_from_none_could_be_anything():
    counts_GX, totals_GX = np.zeros((4, 3), dtype=np.int64), np.zeros((4, 3), dtype=np.int64)
    counts_GX[2, 1], totals_GX[2, 1] = 30, 40
    counts_GX[:, 2], totals_GX[:, 2] = [1, 0, 2, 0], [2, 2, 2, 0]
    found = shares(counts_GX, totals_GX)
    assert found.share_X.tolist() == [0, 0.75, 0.5]
    assert found.variance_X[:2].tolist() == [1, 1]
    assert found.variance_X[2] == pytest.approx(2 / 3 * (0 + (3 / 4 - 1 / 2) ** 2 + (1 / 4 - 1 / 2) ** 2))


@pytest.mark.parametrize(
    "counts, totals",
    [((0, 3), (9, 3)), ((3, 0), (40, 5)), ((2, 2), (20, 20)), ((7, 30), (400, 350)), ((40, 1), (40, 60)),
     ((0, 0), (8, 9)), ((8, 9), (8, 9)), ((0, 1), (0, 9)), ((0, 0), (0, 0)), ((50_000, 51_000), (900_000, 910_000))],
)  # fmt: skip
def test_one_rate_is_tested_as_fisher_does(counts, totals):
    rest = [total - count for count, total in zip(counts, totals, strict=True)]
    found = each_rate_the_same(np.array(counts)[:, None], np.array(totals)[:, None])
    assert found == pytest.approx([fisher_exact([counts, rest]).pvalue], rel=1e-6)


def test_rates_are_tested_together():
    """The p-value of one is the probability that any is as rare, summed over all that chance can do."""
    counts_2X, totals_2X = np.array([[1, 5, 0], [4, 6, 2]]), np.array([[12, 15, 9], [8, 18, 3]])
    chances = []
    for (c0, c1), (n0, n1) in zip(counts_2X.T, totals_2X.T, strict=True):
        p_K = hypergeom(n0 + n1, c0 + c1, n1).pmf(np.arange(c0 + c1 + 1))
        rarity_K = np.array([p_K[p_K <= p * (1 + 1e-7)].sum() for p in p_K])
        chances.append((p_K, rarity_K, rarity_K[c1]))
    found = each_rate_the_same(counts_2X, totals_2X)
    for x, (_, _, own) in enumerate(chances):
        none = 1.0
        for p_K, rarity_K, _ in chances:
            none *= p_K[rarity_K > own * (1 + 1e-7)].sum()
        assert found[x] == pytest.approx(1 - none)


def test_many_rates_are_tested_as_few_are(draw):
    """Each against the definition, with the rarities of all that are no higher, in a time that is linear."""
    totals_2X = draw.integers(0, 60, size=(2, 40))
    counts_2X = draw.binomial(totals_2X, draw.uniform(0, 1, size=40))
    least = []
    for (c0, c1), (n0, n1) in zip(counts_2X.T, totals_2X.T, strict=True):
        p_K = hypergeom(n0 + n1, c0 + c1, n1).pmf(np.arange(c0 + c1 + 1))
        rarity_K = np.array([p_K[p_K <= p * (1 + 1e-7)].sum() for p in p_K])
        least.append((rarity_K, rarity_K[c1]))
    expected = [
        1 - np.prod([1 - min(1, max(rarity_K[rarity_K <= own * (1 + 1e-7)], default=0)) for rarity_K, _ in least])
        for _, own in least
    ]
    assert each_rate_the_same(counts_2X, totals_2X) == pytest.approx(expected, rel=1e-6, abs=1e-12)
    many = [np.tile(one, 75) for one in (counts_2X, totals_2X)]
    begin = time.process_time()
    found = each_rate_the_same(*many)
    assert time.process_time() - begin < 5  # 14 seconds where each is held against each
    of_any = 1 - (1 - np.array(expected)) ** 75
    assert found.reshape(75, 40) == pytest.approx(np.tile(of_any, (75, 1)), rel=1e-6, abs=1e-9)


def test_what_one_sample_has_none_of_takes_no_part():
    known = each_rate_the_same(np.array([[3], [12]]), np.array([[40], [30]]))
    found = each_rate_the_same(np.array([[3, 5, 0], [12, 0, 0]]), np.array([[40, 70, 0], [30, 0, 3]]))
    assert found.tolist() == [known[0], 1, 1]


def _spread(one_V, other_V):
    """Return the sum of squared differences of shares, each divided by the share in both together."""
    pooled_V = (one_V + other_V) / (one_V.sum() + other_V.sum())
    return ((one_V / one_V.sum() - other_V / other_V.sum()) ** 2 / np.maximum(pooled_V, 1e-300)).sum()


def test_samples_of_one_size_are_tested_as_exchanging_their_groups_does(draw):
    """Against all 128 exchanges of seven groups of 30 counts each, every statistic from the exchanged counts anew."""
    one_GX, other_GX = (draw.multinomial(30, draw.dirichlet(np.full(9, 2.0)), size=7) for _ in range(2))
    observed = _spread(one_GX.sum(axis=0), other_GX.sum(axis=0))
    exchanged = [
        _spread(np.where(take_G1, one_GX, other_GX).sum(axis=0), np.where(take_G1, other_GX, one_GX).sum(axis=0))
        for take_G1 in (np.array(take)[:, None] for take in itertools.product([True, False], repeat=7))
    ]
    exact = np.mean(np.array(exchanged) >= observed * (1 - 1e-12))
    assert difference(one_GX, other_GX, draws=40_000).p_value == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize("change, at_most", [(0.0, 0.12), (0.12, 0.02)])
def test_samples_of_other_sizes_are_tested_as_permuting_prompts_does(draw, change, at_most):
    base_V, apart = draw.dirichlet(np.ones(TOKENS)), []
    changed_V = (1 - change) * base_V + change * np.eye(TOKENS)[5]
    for _ in range(12):
        p_NV = np.concatenate([draw.dirichlet(6 * p_V, size=n) for p_V, n in ((base_V, 400), (changed_V, 100))])
        counts_NV = np.stack([draw.multinomial(int(draw.integers(5, 60)), p_V) for p_V in p_NV])
        group_N = draw.integers(0, GROUPS, size=500)
        ours = difference(_grouped(counts_NV[:400], group_N[:400]), _grouped(counts_NV[400:], group_N[400:])).p_value
        observed, total_V = _spread(counts_NV[:400].sum(axis=0), counts_NV[400:].sum(axis=0)), counts_NV.sum(axis=0)
        live = [counts_NV[draw.permutation(500)[:100]].sum(axis=0) for _ in range(400)]
        apart.append(ours - np.mean([_spread(total_V - some_V, some_V) >= observed for some_V in live]))
    assert np.abs(apart).mean() < at_most
    assert abs(np.mean(apart)) < at_most / 2


@pytest.mark.parametrize("times", [1, 2, 7])
def test_a_sample_is_as_itself_however_often(draw, times):
    counts_GV = _bursty(draw, draw.dirichlet(np.ones(TOKENS)), prompts=100)
    found = difference(counts_GV, times * counts_GV)
    assert found.distance < 1e-30
    assert found.p_value == 1


def test_prompts_that_come_again_in_both_samples_are_in_their_groups(draw):
    """Groups differ by what is in them, and those of both samples alike, so that chance is less than that."""
    kinds_KV = np.stack([draw.multinomial(30, draw.dirichlet(np.ones(TOKENS) / 4)) for _ in range(40)])
    group_K, p, made, by_chance = draw.integers(0, GROUPS, size=40), [], [], []
    for _ in range(200):
        kinds = [draw.integers(0, 40, size=prompts) for prompts in (1_000, 300)]
        found = difference(*(_grouped(kinds_KV[some], group_K[some]) for some in kinds), draws=400)
        p.append(found.p_value)
        made.append(found.distance)
        by_chance.append(found.by_chance)
    assert kstest(p, "uniform").pvalue > 0.01
    assert np.mean(by_chance) == pytest.approx(np.mean(made), rel=0.1)


def test_p_values_are_uniform_where_tokens_come_in_bursts_and_nothing_changed(draw):
    """Counting tokens, as a plain chi-square test does, finds a change in nearly every pair of samples."""
    base_V = draw.dirichlet(np.ones(TOKENS))
    ours, plain = [], []
    for _ in range(150):
        one, other = _bursty(draw, base_V), _bursty(draw, base_V, prompts=250)
        ours.append(difference(one, other, draws=400).p_value)
        plain.append(chi2_contingency(np.stack([one.sum(axis=0), other.sum(axis=0)]) + 1).pvalue)
    assert kstest(ours, "uniform").pvalue > 0.01
    assert np.mean(np.array(ours) <= 0.05) < 0.1
    assert np.mean(np.array(plain) <= 0.05) > 0.9


def test_a_few_long_prompts_are_no_change(draw):
    """Shares that are estimated from both samples are close to a group that has much of both."""
    common_V, found = 1 / np.arange(1, 3_001), 0
    for _ in range(120):
        counts = np.zeros((2, GROUPS, 3_000), dtype=np.int64)
        for sample, group in enumerate(draw.integers(0, GROUPS, size=(2, 100))):
            for g in group.tolist():
                size = int(min(2_000, 5 + 20 * draw.pareto(1.2)))
                some = draw.choice(3_000, size=max(1, size // 4), p=common_V / common_V.sum())
                np.add.at(counts[sample, g], draw.choice(some, size=size), 1)
        found += difference(*counts, draws=400).p_value <= 0.05
    assert found <= 12  # 6 on average; more than 12 once in 200


def test_each_p_value_allows_for_all(draw):
    base_X = np.ones(5) / 5
    least = []
    for _ in range(200):
        one, other = (_bursty(draw, base_X, prompts=200) for _ in range(2))
        least.append(each_the_same(_shares(one), _shares(other), draws=300).min())
    assert 0.01 <= np.mean(np.array(least) <= 0.05) <= 0.1  # one in twenty pairs, not one in twenty shares


@pytest.mark.parametrize("prompts", [400, 120])
def test_the_distance_by_chance_is_the_mean_of_what_chance_makes(draw, prompts):
    base_V = draw.dirichlet(np.ones(TOKENS))
    found = [difference(_bursty(draw, base_V), _bursty(draw, base_V, prompts=prompts), draws=10) for _ in range(60)]
    made = np.mean([one.distance for one in found])
    assert np.mean([one.by_chance for one in found]) == pytest.approx(made, rel=0.1)


def test_the_distance_from_what_is_fixed_by_chance_is_the_mean_of_what_chance_makes(draw):
    base_V = draw.dirichlet(np.full(TOKENS, 5.0))
    samples = [_shares(_bursty(draw, base_V)) for _ in range(60)]
    made = np.mean([distance(one.share_X, base_V) for one in samples])
    assert np.mean([distance_by_chance(one, base_V) for one in samples]) == pytest.approx(made, rel=0.1)


def test_a_change_is_found_and_its_share_named(draw):
    base_V = draw.dirichlet(np.full(TOKENS, 5.0))
    changed_V = base_V.copy()
    changed_V[[3, 7]] += [0.08, -base_V[7] * 0.9]
    counts = [_bursty(draw, p_V / p_V.sum()) for p_V in (base_V, changed_V)]
    assert difference(*counts).p_value < 0.01
    one, other = (_shares(counts_GV) for counts_GV in counts)
    z_V = z_scores(one, other, (int(counts[0].sum()), int(counts[1].sum())))
    assert z_V.argmax() == 3
    assert z_V.argmin() == 7
    p_V = each_the_same(one, other)
    assert p_V[3] < 0.01
    assert np.median(p_V) > 0.5


def test_errors_are_no_less_than_those_of_both_samples_together():
    """Of something that comes in bursts a small sample can have none, and then it does not vary."""
    counts_GX = np.zeros((GROUPS, 2), dtype=np.int64)
    counts_GX[:, 1] = 10_000
    few_GX = counts_GX // 100
    counts_GX[:20, 0] = 50  # 20 prompts have it 50 times: a hundredth of them would have it in 0.2
    z_X = z_scores(_shares(counts_GX), _shares(few_GX), (int(counts_GX.sum()), int(few_GX.sum())))
    assert -1 < z_X[0] < -0.2


def test_a_share_that_never_varies_has_no_z():
    still = Shares(np.array([0.5]), np.zeros((4, 1)))
    assert z_scores(still, Shares(np.array([0.7]), np.zeros((4, 1))), (100, 100)).tolist() == [0.0]


@pytest.mark.parametrize("freedom", [1, 2, 3, 15, 30, 31])
def test_p_values_are_students(freedom):
    z_X = np.array([0.0, 0.3, -1.0, 2.5, -5.0, 8.0])
    assert student_p_values(z_X, freedom) == pytest.approx(2 * students_t.sf(np.abs(z_X), freedom), abs=1e-14)
