"""How far probabilities can be believed, and scores as probabilities: NumPy alone, no files, no globals.

Shape suffixes as in ``ir3de.types``.
"""

from typing import NamedTuple

import numpy as np

Array = np.ndarray
BINS = 15


class Calibration(NamedTuple):
    """Scores plus ``shifts`` become log-probabilities, up to a constant, times
    ``exp(log_scale + length_exponent · log T)``.

    T are the tokens of the prompt that decide. An exponent of 0 does not know the length; 1 is what independent tokens
    give to a mean of log-probabilities. A shift for each expert takes out what the router favours it by.
    """

    log_scale: float
    length_exponent: float
    shifts: tuple[float, ...]

    def probabilities(self, scores_NE: Array, deciding_N: Array) -> Array:
        """Return the probability of each expert ``(N, E)`` float64; ``deciding_N`` are the tokens that decide."""
        scale_N = np.exp(self.log_scale + self.length_exponent * np.log(deciding_N))
        logits_NE = (scores_NE + np.array(self.shifts, dtype=np.float64)) * scale_N[:, None]
        weights_NE = np.exp(logits_NE - logits_NE.max(axis=1, keepdims=True))
        return weights_NE / weights_NE.sum(axis=1, keepdims=True)


def expected_calibration_error(confidence_N: Array, right_N: Array, *, bins: int = BINS) -> float:
    """Return the mean distance of confidence and accuracy over bins of equal mass, from 0 to 1.

    Bins of equal mass hold equally many prompts (to one), in the order of their confidence.

    Raises:
        ValueError: if there are no rows.
    """
    _check_rows(confidence_N, right_N)
    order_N = np.argsort(confidence_N, kind="stable")
    gaps = [
        len(rows) * abs(float(confidence_N[rows].mean()) - float(np.asarray(right_N)[rows].mean()))
        for rows in np.array_split(order_N, bins)
        if len(rows)
    ]
    return sum(gaps) / len(confidence_N)


def brier_score(p_NE: Array, expert_N: Array) -> float:
    """Return the mean squared distance of the probabilities from the truth, over all experts: 0 to 2.

    Raises:
        ValueError: if there are no rows.
    """
    _check_rows(p_NE, expert_N)
    truth_NE = np.zeros_like(p_NE)
    truth_NE[np.arange(len(expert_N)), expert_N] = 1
    return float(((p_NE - truth_NE) ** 2).sum(axis=1).mean())


def auroc(confidence_N: Array, right_N: Array) -> float:
    """Return how often a right decision is surer than a wrong one, ties counting half; NaN if all are one or the other.

    Raises:
        ValueError: if there are no rows.
    """
    _check_rows(confidence_N, right_N)
    right_N = np.asarray(right_N, dtype=bool)
    _, place_N, count_K = np.unique(confidence_N, return_inverse=True, return_counts=True)
    rank_N = (np.cumsum(count_K) - (count_K - 1) / 2)[place_N]  # the mean rank of equals
    positive, negative = int(right_N.sum()), int((~right_N).sum())
    if not positive or not negative:
        return float("nan")
    return float((rank_N[right_N].sum() - positive * (positive + 1) / 2) / (positive * negative))


def _check_rows(values_N: Array, truth_N: Array) -> None:
    if not len(values_N) or len(values_N) != len(truth_N):
        raise ValueError(
            f"Expected as many values as truths, and at least one, but got {len(values_N)} and {len(truth_N)}."
        )
