"""Naive Bayes over tokens, from the same counts as the ridge (DESIGN.md 3.2)."""

import torch
from torch import Tensor


def naive_bayes_scores(counts_VE: Tensor, tokens_E: Tensor, smoothing: float, *, vocab_size: int) -> Tensor:
    """Return ``log((c_k(v) + α) / (n_k + αV))`` ``(v, E)`` float64, with additive smoothing α.

    ``counts_VE`` are some rows of the counts, ``tokens_E`` their sums over the whole vocabulary, both float64. The
    mean over a prompt's tokens orders experts as multinomial naive Bayes with equal priors does.

    Raises:
        ValueError: if ``smoothing`` is not positive.
    """
    if smoothing <= 0:
        raise ValueError(f"Expected `smoothing` to be positive, but got {smoothing}: an unseen token would forbid.")
    return torch.log(counts_VE + smoothing) - torch.log(tokens_E + smoothing * vocab_size)
