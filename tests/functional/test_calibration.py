"""Calibration errors against plain formulas and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from ir3de.functional.calibration import (
    Calibration,
    auroc,
    brier_score,
    expected_calibration_error,
)


def decisions(number=500, seed=0):
    draw = np.random.default_rng(seed)
    confidence_N = draw.random(number).round(2)  # with ties
    return confidence_N, draw.random(number) < confidence_N**2


def test_auroc_is_scikit_learns():
    confidence_N, right_N = decisions()
    assert auroc(confidence_N, right_N) == pytest.approx(roc_auc_score(right_N, confidence_N), abs=1e-12)


def test_auroc_of_decisions_that_are_all_alike_is_unknown():
    assert np.isnan(auroc(np.array([0.2, 0.9]), np.array([True, True])))
    assert np.isnan(auroc(np.array([0.2, 0.9]), np.array([False, False])))


def test_brier_score_is_scikit_learns_on_two_experts_and_the_formula_on_more():
    draw = np.random.default_rng(1)
    p_N, truth_N = draw.random(200), draw.integers(0, 2, 200)
    both_NE = np.stack([1 - p_N, p_N], axis=1)
    assert brier_score(both_NE, truth_N) == pytest.approx(2 * brier_score_loss(truth_N, p_N))
    p_NE, truth_N = draw.dirichlet(np.ones(4), 50), draw.integers(0, 4, 50)
    plain = sum((p_NE[i, e] - (truth_N[i] == e)) ** 2 for i in range(50) for e in range(4)) / 50
    assert brier_score(p_NE, truth_N) == pytest.approx(plain)


@pytest.mark.parametrize("bins", [1, 4, 15])
@pytest.mark.parametrize("number", [3, 15, 500])
def test_the_expected_calibration_error_is_the_plain_sum_over_bins_of_equal_mass(number, bins):
    confidence_N, right_N = decisions(number)
    rows = sorted(range(number), key=lambda i: confidence_N[i])
    size, larger = divmod(number, bins)
    error, first = 0.0, 0
    for i in range(bins):
        part = rows[first : first + size + (i < larger)]
        first += len(part)
        error += abs(sum(confidence_N[j] for j in part) - sum(bool(right_N[j]) for j in part))
    assert expected_calibration_error(confidence_N, right_N, bins=bins) == pytest.approx(error / number)


def test_a_confidence_that_is_the_accuracy_has_no_error():
    confidence_N = np.repeat([0.25, 0.75], 40)
    right_N = np.tile([True, False, False, False] * 10 + [True, True, True, False] * 10, 1)
    assert expected_calibration_error(confidence_N, right_N, bins=2) == 0


@pytest.mark.parametrize("function", [auroc, expected_calibration_error])
def test_no_rows_and_unequal_rows_are_refused(function):
    with pytest.raises(ValueError, match="at least one"):
        function(np.zeros(0), np.zeros(0))
    with pytest.raises(ValueError, match="as many values as truths"):
        function(np.zeros(2), np.zeros(3))


def test_probabilities_are_the_softmax_of_shifted_and_scaled_scores():
    calibration = Calibration(1.0, 0.5, (0.3, 0.0, -0.1))
    p_NE = calibration.probabilities(np.array([[0.1, 0.7, 0.2]]), np.array([16]))
    weights = np.exp(np.array([0.4, 0.7, 0.1]) * np.e * 4)
    np.testing.assert_allclose(p_NE[0], weights / weights.sum())
