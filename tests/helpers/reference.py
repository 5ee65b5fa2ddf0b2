"""Plain implementations that the package is held against: one token at a time, no trick."""

import math
from collections import Counter

import torch
from torch import Tensor


def streamed_ridge(
    table_VD: Tensor,
    sequences: list[tuple[list[int], int]],
    *,
    num_experts: int,
    regularization: float,
    weights: list[float] | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Return W as published: outer products of every token's embedding with a bias column, then one solve."""
    num_features = table_VD.shape[1] + 1
    xx_DD = torch.zeros(num_features, num_features, dtype=dtype)
    xy_DE = torch.zeros(num_features, num_experts, dtype=dtype)
    for ids, domain in sequences:
        weight = 1.0 if weights is None else weights[domain]
        for token in ids:
            x_D = torch.cat([table_VD[token].to(dtype), torch.ones(1, dtype=dtype)])
            xx_DD += weight * torch.outer(x_D, x_D)
            xy_DE[:, domain] += weight * x_D
    return torch.linalg.solve(xx_DD + regularization * torch.eye(num_features, dtype=dtype), xy_DE)


def published_normalization(weight_DE: Tensor) -> Tensor:
    """Divide coefficients and bias by the norm of the coefficients, column by column."""
    out = weight_DE.clone()
    for column in range(weight_DE.shape[1]):
        norm = math.sqrt(sum(float(w) ** 2 for w in weight_DE[:-1, column]))
        out[:, column] = weight_DE[:, column] / norm
    return out


def entropy(scores: list[float]) -> float:
    """Return the entropy of the softmax of ``scores`` in nats."""
    top = max(scores)
    weights = [math.exp(s - top) for s in scores]
    total = sum(weights)
    return -sum(w / total * math.log(w / total) for w in weights if w > 0)


def route(ids: list[int], table: list[list[float]], selector: str, k: int | None = None) -> tuple[int, list[float]]:
    """Return the expert of one prompt and its scores, token by token; ties go to the lower index."""
    num_experts = len(table[0])
    if selector == "mean":
        scores = [sum(table[token][e] for token in ids) / len(ids) for e in range(num_experts)]
    else:
        kept = ids
        if selector == "entropy_top_k":
            kept = sorted(ids, key=lambda token: (entropy(table[token]), token))[:k]
        votes = Counter(max(range(num_experts), key=lambda e: (table[token][e], -e)) for token in kept)
        scores = [votes[e] / len(kept) for e in range(num_experts)]
    return max(range(num_experts), key=lambda e: (scores[e], -e)), scores
