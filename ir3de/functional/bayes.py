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


_FLOOR = 0.01  # added to every count of the pooled prior: an id that training never saw forbids no expert
_LEAST = 1e-4  # what a ridge score at or below zero counts for


def ridge_prior(counts_VE: Tensor, tokens_E: Tensor, scores_VE: Tensor, ridge_share: float) -> Tensor:
    """Return each domain's prior over the vocabulary ``q_k(v)`` ``(V, E)`` float64, whose columns sum to one.

    ``q_k(v) ∝ base(v) · (1 - β + β · E · p(k|v))`` with β the ``ridge_share``, ``base(v)`` the mean of the domains'
    shares of the token with a floor, and ``p(k|v)`` the ridge's ``scores_VE`` made positive and normalised. With β = 1
    this is DESIGN.md 3.6, with β = 0 a Dirichlet prior from the pooled counts; halfway was the best of them on
    validation data of four sets of domains.
    """
    floored_VE = (counts_VE + _FLOOR) / (tokens_E + _FLOOR * len(counts_VE))
    base_V = floored_VE.sum(dim=1)
    positive_VE = scores_VE.clamp(min=_LEAST)
    posterior_VE = positive_VE / positive_VE.sum(dim=1, keepdim=True)
    num_experts = counts_VE.shape[1]
    prior_VE = base_V[:, None] * (1 - ridge_share + ridge_share * num_experts * posterior_VE)
    return prior_VE / prior_VE.sum(dim=0)


def smoothed_scores(counts_VE: Tensor, tokens_E: Tensor, prior_VE: Tensor, strength: float) -> Tensor:
    """Return ``log((c_k(v) + a · q_k(v)) / (n_k + a))`` ``(v, E)`` float64, with the prior's strength a in tokens."""
    return torch.log(counts_VE + strength * prior_VE) - torch.log(tokens_E + strength)
