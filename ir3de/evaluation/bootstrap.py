"""Bootstrap over sequences: every domain's sequences are drawn again, with replacement, many times."""

import numpy as np
import torch
from torch import Tensor

RESAMPLES = 1000
_DRAWS_AT_ONCE = 1 << 24  # 128 MiB of drawn rows


def resampled_sums(
    values_NC: Tensor, domain_N: Tensor, num_domains: int, *, seed: int, resamples: int = RESAMPLES
) -> Tensor:
    """Return the sums of columns over each domain's sequences, ``(R, D, C)`` float64, one for each resample.

    A resample draws as many sequences of each domain as there are, so that the mix of domains stays what it is. All
    columns see the same draws: what is compared between two of them is paired.

    Args:
        values_NC: ``(N, C)`` float64, a row per sequence.
        domain_N: ``(N,)`` int64.
        num_domains: D; a domain without sequences gets zeros.
        seed: Decides the draws.
        resamples: R.
    """
    generator = np.random.default_rng(seed)
    sums_RDC = torch.zeros(resamples, num_domains, values_NC.shape[1], dtype=torch.float64)
    for domain in range(num_domains):
        rows_NC = values_NC[domain_N == domain].double()
        num_rows = len(rows_NC)
        if not num_rows:
            continue
        step = max(1, _DRAWS_AT_ONCE // num_rows)
        for first in range(0, resamples, step):
            size = min(step, resamples - first)
            drawn = generator.integers(num_rows, size=(size, num_rows)) + num_rows * np.arange(size)[:, None]
            times = np.bincount(drawn.reshape(-1), minlength=size * num_rows).reshape(size, num_rows)
            sums_RDC[first : first + size, domain] = torch.from_numpy(times.astype(np.float64)) @ rows_NC
    return sums_RDC


def interval(values_R: Tensor) -> tuple[float, float] | None:
    """Return the 2.5th and the 97.5th percentile of resampled values; ``None`` if one of them is not a number."""
    if bool(values_R.isnan().any()):
        return None
    low, high = torch.quantile(values_R, torch.tensor([0.025, 0.975], dtype=values_R.dtype)).tolist()
    return low, high
