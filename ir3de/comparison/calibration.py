"""How far a router's confidence can be believed: temperatures chosen on validation data, reliability on test data."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

TEMPERATURES = 10.0 ** np.linspace(-4, 2, 61)
BINS = 10


@dataclass(frozen=True)
class Reliability:
    """Confidence and accuracy in bins of equal width; NaN where a bin is empty. ``error`` is the expected one, in %."""

    temperature: float
    confidence: list[float]
    accuracy: list[float]
    count: list[int]
    error: float


def choose_temperature(scores_ME: Tensor, domain_M: Tensor) -> float:
    """Return the temperature of lowest mean negative log-likelihood of the true domains."""
    losses = [float(torch.nn.functional.cross_entropy(scores_ME.double() / t, domain_M)) for t in TEMPERATURES.tolist()]
    return float(TEMPERATURES[int(np.argmin(losses))])


def reliability(scores_NE: Tensor, domain_N: Tensor, temperature: float) -> Reliability:
    """Return how often a router is right where it is so and so sure: the softmax of its scores over ``temperature``."""
    sure_N, expert_N = (scores_NE.double() / temperature).softmax(dim=1).max(dim=1)
    right_N = (expert_N == domain_N).double()
    bin_N = (sure_N * BINS).long().clamp(max=BINS - 1)
    count_K = torch.bincount(bin_N, minlength=BINS)
    confidence_K = torch.bincount(bin_N, weights=sure_N, minlength=BINS) / count_K
    accuracy_K = torch.bincount(bin_N, weights=right_N, minlength=BINS) / count_K
    error = float((count_K * (confidence_K - accuracy_K).abs()).nansum() / len(domain_N))
    return Reliability(temperature, confidence_K.tolist(), accuracy_K.tolist(), count_K.tolist(), 100 * error)
