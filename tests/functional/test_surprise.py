"""Divergences, curves and p-values against plain formulas and SciPy, and the promise on made-up text."""

import numpy as np
import pytest
from scipy.special import rel_entr
from scipy.stats import binomtest, entropy, kstest

from ir3de.functional.surprise import (
    LEAST,
    Curves,
    fit_curves,
    floored_share,
    known_lengths,
    p_value,
    surprise,
    thinned,
)
from ir3de.functional.surprise import entropy as own_entropy


@pytest.fixture
def draw():
    return np.random.default_rng(0)


def test_surprise_less_entropy_is_the_kullback_leibler_divergence(draw):
    counts_V, ids_T = draw.integers(0, 9, size=30), draw.integers(0, 30, size=12)
    common_V = floored_share(draw.integers(0, 9, size=30), 100)
    common_V /= common_V.sum()
    surprise_V = surprise(counts_V, int(counts_V.sum()), common_V, strength=7.0)
    expert_V = (counts_V + 7.0 * common_V) / (counts_V.sum() + 7.0)
    assert expert_V.sum() == pytest.approx(1)
    said_V = np.bincount(ids_T, minlength=30) / 12
    divergence = surprise_V[ids_T].mean() - own_entropy(ids_T)
    assert divergence == pytest.approx(rel_entr(said_V, expert_V).sum())


@pytest.mark.parametrize("ids", [[3], [3, 3, 3], [1, 2, 3], [5, 1, 5, 1, 2]])
def test_entropy_is_scipys(ids):
    assert own_entropy(np.array(ids)) == pytest.approx(entropy(np.bincount(ids)), abs=1e-12)


def test_no_token_is_impossible():
    shares_V = floored_share(np.array([5, 0, 0]), 5)
    assert (shares_V > 0).all()
    assert shares_V.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    "lengths, known",
    [
        ([], []),
        ([1, 1], [1]),
        ([7] * 9, [1, 2, 3, 4, 6]),
        ([3] * 90 + [300] * 10, [1, 2, 3]),  # too few are long
        ([3] * 70 + [16] * 30, [1, 2, 3, 4, 6, 8, 12, 16]),
    ],
)
def test_lengths_are_known_up_to_what_a_quarter_reaches(lengths, known):
    assert known_lengths(np.array(lengths)).tolist() == known


def test_a_long_prompt_is_thinned_evenly():
    assert thinned(np.arange(10), 4).tolist() == [0, 2, 5, 7]


def test_curves_are_interpolated_over_the_logarithm_of_the_length():
    curves = Curves(np.array([1, 2, 4]), np.array([[8.0], [6.0], [2.0]]), np.array([[1.0], [2.0], [2.0]]))
    excess_NE = curves.excess(np.array([[9.0], [4.0], [6.0], [2.0]]), np.array([1, 2, 3, 4]))
    part = np.log2(3) - 1
    assert excess_NE[:, 0] == pytest.approx([1.0, -1.0, (6 - (6 - 4 * part)) / 2, 0.0])


def test_a_sequences_excess_is_that_of_a_new_one(draw):
    lengths_L = np.array([1, 2])
    own = [draw.normal(size=(40, 2)), draw.normal(3, 2, size=(900, 2))]
    _, excesses = fit_curves(lengths_L, own)
    without, _ = fit_curves(lengths_L, [own[0][1:], own[1]])
    new = [without.excess(own[0][:1, [i]], lengths_L[[i]])[0, 0] for i in range(2)]
    assert excesses[0][0] == pytest.approx(new, rel=0.02)  # the variance that the experts share has it in it
    own[0][0] += 1_000
    _, far = fit_curves(lengths_L, own)
    assert (far[0][0] > 2 * np.sqrt(40)).all()  # with itself in mean and variance it could be no more than √40


def test_what_an_expert_lacks_is_what_the_others_have(draw):
    lengths_L = np.array([1, 2, 3])
    long = draw.normal([9.0, 7.0, 4.0], 1.0, size=(40, 3))
    short = np.full((20, 3), np.nan)
    short[:, 0] = draw.normal(10.0, 1.0, size=20)
    none = np.full((LEAST - 1, 3), 5.0)
    curves, excesses = fit_curves(lengths_L, [long, short, none])
    assert curves.mean_LE[:, 0] == pytest.approx(long.mean(axis=0))
    change_L = np.diff(curves.mean_LE[:, 0])
    assert np.diff(curves.mean_LE[:, 1]) == pytest.approx(change_L)
    assert curves.mean_LE[0, 2] == pytest.approx(curves.mean_LE[0, :2].mean())
    assert np.isfinite(curves.deviation_LE).all()
    assert np.isnan(excesses[1][:, 1:]).all()


@pytest.mark.parametrize("own", [[], [1.0] * (LEAST - 1)])
def test_too_few_sequences_are_refused(own):
    with pytest.raises(ValueError, match=f"at least {LEAST} validation sequences .* are {len(own)}"):
        fit_curves(np.array([1]), [np.array(own).reshape(-1, 1)])


@pytest.mark.parametrize("excess, p", [(9.0, 1 / 5), (3.0, 2 / 5), (2.5, 2 / 5), (0.0, 5 / 5), (-1.0, 5 / 5)])
def test_a_p_value_counts_the_prompt_itself(excess, p):
    assert p_value(excess, [0.0, 1.0, 2.0, 3.0]) == p


def test_p_values_of_new_sequences_are_uniform(draw):
    """Sequences of one expert, skewed: those above their mean are as many as promised, at every level."""
    lengths_L = np.array([1])
    sample = draw.gamma(2.0, size=(4_000, 1))
    curves, excesses = fit_curves(lengths_L, [sample])
    new = draw.gamma(2.0, size=(4_000, 1))
    ordered = np.sort(excesses[0][:, 0])
    p = np.array([p_value(float(x), ordered) for x in curves.excess(new, np.ones(len(new)))[:, 0]])
    assert kstest(p, "uniform").pvalue > 0.01
    assert binomtest(int((p <= 0.05).sum()), len(p), 0.05).pvalue > 0.01
