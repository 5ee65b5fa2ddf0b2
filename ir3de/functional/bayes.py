"""Naive Bayes over tokens, from the same counts as the ridge (DESIGN.md 3.2)."""

import torch
from torch import Tensor


def naive_bayes_scores(counts_EV: Tensor, smoothing: float) -> Tensor:
    """Return ``log((c_k(v) + α) / (n_k + αV))`` ``(V, E)`` float64, with additive smoothing α.

    The mean over a prompt's tokens orders experts as multinomial naive Bayes with equal priors does.

    Raises:
        ValueError: if ``smoothing`` is not positive.
    """
    if smoothing <= 0:
        raise ValueError(f"Expected `smoothing` to be positive, but got {smoothing}: an unseen token would forbid.")
    counts_VE = counts_EV.T.double()
    return torch.log(counts_VE + smoothing) - torch.log(counts_VE.sum(dim=0) + smoothing * len(counts_VE))
