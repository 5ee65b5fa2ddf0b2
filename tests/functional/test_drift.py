"""Distances against plain formulas, and errors of the first kind where tokens come in bursts."""

import numpy as np
import pytest
from scipy.stats import chi2_contingency, kstest

from ir3de.functional.drift import (
    Shares,
    distance,
    distance_by_chance,
    each_the_same,
    same_distribution,
    shares,
    z_scores,
)

GROUPS, TOKENS = 32, 40


def _bursty(draw, base_V, *, prompts=400, concentration=6.0):
    """Return the counts of groups of prompts, each of which says few things often."""
    p_NV = draw.dirichlet(base_V * concentration, size=prompts)
    counts_NV = np.stack([draw.multinomial(int(draw.integers(5, 60)), p_V) for p_V in p_NV])
    counts_GV = np.zeros((GROUPS, len(base_V)), dtype=np.int64)
    np.add.at(counts_GV, draw.integers(0, GROUPS, size=prompts), counts_NV)
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


def test_what_no_group_has_is_nothing():
    found = shares(np.zeros((4, 2), dtype=np.int64), np.zeros((4, 2), dtype=np.int64))
    assert found.share_X.tolist() == [0, 0]
    assert found.variance_X.tolist() == [0, 0]


def test_the_rest_is_one_share(draw):
    whole = _shares(draw.integers(0, 9, size=(GROUPS, 6)))
    picked = whole.picked(np.array([1, 4]))
    assert picked.share_X == pytest.approx([*whole.share_X[[1, 4]], whole.share_X[[0, 2, 3, 5]].sum()])
    assert picked.error_GX[:, -1] == pytest.approx(-picked.error_GX[:, :-1].sum(axis=1))


def test_p_values_are_uniform_where_tokens_come_in_bursts_and_nothing_changed(draw):
    """Counting tokens, as a plain chi-square test does, finds a change in nearly every pair of samples."""
    base_V = draw.dirichlet(np.ones(TOKENS))
    ours, plain = [], []
    for _ in range(150):
        one, other = _bursty(draw, base_V), _bursty(draw, base_V, prompts=250)
        ours.append(same_distribution(_shares(one), _shares(other), draws=400))
        plain.append(chi2_contingency(np.stack([one.sum(axis=0), other.sum(axis=0)]) + 1).pvalue)
    assert kstest(ours, "uniform").pvalue > 0.01
    assert np.mean(np.array(ours) <= 0.05) < 0.1
    assert np.mean(np.array(plain) <= 0.05) > 0.9


def test_each_p_value_allows_for_all(draw):
    base_X = np.ones(5) / 5
    least = []
    for _ in range(200):
        one, other = (_bursty(draw, base_X, prompts=200) for _ in range(2))
        least.append(each_the_same(_shares(one), _shares(other), draws=300).min())
    assert 0.01 <= np.mean(np.array(least) <= 0.05) <= 0.1  # one in twenty pairs, not one in twenty shares


def test_the_distance_by_chance_is_the_mean_of_what_chance_makes(draw):
    base_V = draw.dirichlet(np.ones(TOKENS))
    pairs = [[_shares(_bursty(draw, base_V)) for _ in range(2)] for _ in range(60)]
    made = np.mean([distance(one.share_X, other.share_X) for one, other in pairs])
    assert np.mean([distance_by_chance(*pair) for pair in pairs]) == pytest.approx(made, rel=0.1)


def test_a_change_is_found_and_its_share_named(draw):
    base_V = draw.dirichlet(np.full(TOKENS, 5.0))
    changed_V = base_V.copy()
    changed_V[[3, 7]] += [0.08, -base_V[7] * 0.9]
    one, other = (_shares(_bursty(draw, p_V / p_V.sum())) for p_V in (base_V, changed_V))
    assert same_distribution(one, other) < 0.01
    z_V = z_scores(one, other)
    assert z_V.argmax() == 3
    assert z_V.argmin() == 7
    p_V = each_the_same(one, other)
    assert p_V[3] < 0.01
    assert np.median(p_V) > 0.5


def test_a_share_that_never_varies_has_no_z():
    still = Shares(np.array([0.5]), np.zeros((4, 1)))
    assert z_scores(still, Shares(np.array([0.7]), np.zeros((4, 1)))).tolist() == [0.0]
