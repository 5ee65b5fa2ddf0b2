"""Bootstrap over documents: every domain's documents are drawn again, with replacement, many times."""

import numpy as np
import torch
from torch import Tensor

RESAMPLES = 1000
_DRAWS_AT_ONCE = 1 << 24  # 128 MiB of drawn documents


def resampled_sums(
    values_NC: Tensor,
    domain_N: Tensor,
    document_N: Tensor,
    num_domains: int,
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> Tensor:
    """Return the sums of columns over each domain's sequences, ``(R, D, C)`` float64, one for each resample.

    A resample draws as many documents of each domain as there are, each with all of its sequences: those of one
    document are not independent. All columns see the same draws: what is compared between two of them is paired.

    Args:
        values_NC: ``(N, C)`` float64, a row per sequence.
        domain_N: ``(N,)`` int64.
        document_N: ``(N,)`` int64, the document of each sequence: a number within its domain.
        num_domains: D; a domain without sequences gets zeros.
        seed: Decides the draws.
        resamples: R.
    """
    generator = np.random.default_rng(seed)
    sums_RDC = torch.zeros(resamples, num_domains, values_NC.shape[1], dtype=torch.float64)
    for domain in range(num_domains):
        mine = domain_N == domain
        if not bool(mine.any()):
            continue
        documents, place_N = document_N[mine].unique(return_inverse=True)
        num_rows = len(documents)
        rows_PC = torch.zeros(num_rows, values_NC.shape[1], dtype=torch.float64)
        rows_PC.index_add_(0, place_N, values_NC[mine].double())
        step = max(1, _DRAWS_AT_ONCE // num_rows)
        for first in range(0, resamples, step):
            size = min(step, resamples - first)
            drawn = generator.integers(num_rows, size=(size, num_rows)) + num_rows * np.arange(size)[:, None]
            times = np.bincount(drawn.reshape(-1), minlength=size * num_rows).reshape(size, num_rows)
            sums_RDC[first : first + size, domain] = torch.from_numpy(times.astype(np.float64)) @ rows_PC
    return sums_RDC


def interval(values_R: Tensor) -> tuple[float, float] | None:
    """Return the 2.5th and the 97.5th percentile of resampled values; ``None`` if one of them is not a number."""
    if bool(values_R.isnan().any()):
        return None
    low, high = torch.quantile(values_R, torch.tensor([0.025, 0.975], dtype=values_R.dtype)).tolist()
    return low, high


def paired_p_value(difference_R: Tensor) -> float:
    """Return the two-sided p-value of no difference: how seldom resampled differences are on the other side of zero.

    With R resamples it is at least ``2 / (R + 1)``; differences that are all zero give 1.
    """
    num_resamples = len(difference_R)
    below = (int((difference_R <= 0).sum()) + 1) / (num_resamples + 1)
    above = (int((difference_R >= 0).sum()) + 1) / (num_resamples + 1)
    return min(1.0, 2 * min(below, above))
