"""Ridge regression of experts on token embeddings, from token counts (DESIGN.md 3.1 to 3.3 and 3.7).

The objective, over all training tokens x of domain k with weight w_k, and with a bias column:
``Σ w_k ‖ẽ_x W − onehot(k)‖² + λ‖W‖²``. The bias is penalised too, as in the published code.
"""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from ir3de.functional.counts import SparseCounts

Balance = Literal["domain", "none"]
RegularizationScale = Literal["absolute", "mean_diagonal"]

ROWS_PER_CHUNK = 8192  # part of the canonical solve: another chunk sums in another order, and changes the last bits
COLUMN_BLOCKS = 4
EXPERTS_PER_BLOCK = 512  # a dense block of counts takes 32 MiB, whatever the number of experts


def domain_weights(tokens_E: Tensor, balance: Balance) -> Tensor:
    """Return the weight of one token of each domain, ``(E,)`` float64.

    ``domain`` gives ``N / (K · n_k)``, so that all domains weigh the same; ``none`` gives 1, as published.

    Raises:
        ValueError: if a domain has no tokens.
    """
    if (tokens_E <= 0).any():
        raise ValueError(f"Expected tokens in every domain, but the domains have {tokens_E.tolist()} of them.")
    if balance == "none":
        return torch.ones_like(tokens_E, dtype=torch.float64)
    return tokens_E.double().sum() / (len(tokens_E) * tokens_E.double())


def with_bias(table_VD: Tensor) -> Tensor:
    """Return ``Ẽ = [E, 1]`` ``(V, D + 1)`` in float64."""
    return torch.cat([table_VD.double(), torch.ones(len(table_VD), 1, dtype=torch.float64)], dim=1)


def gram_from_counts(table_VD: Tensor, counts: SparseCounts, weights_E: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``A = Ẽᵀ diag(Σ_k w_k c_k) Ẽ`` ``(D + 1, D + 1)`` and ``b = Ẽᵀ [w_1 c_1, …]`` ``(D + 1, E)``, float64.

    ``table_VD`` is any float type, ``weights_E`` float64; entries without tokens add nothing.
    """
    num_features, num_experts = table_VD.shape[1] + 1, len(weights_E)
    xx_DD = torch.zeros(num_features, num_features, dtype=torch.float64)
    xy_DE = torch.zeros(num_features, num_experts, dtype=torch.float64)
    total_V = counts.weighted_sum(weights_E)
    edges = [round(i * num_features / COLUMN_BLOCKS) for i in range(COLUMN_BLOCKS + 1)]
    blocks = [slice(low, high) for low, high in pairwise(edges)]
    for low in range(0, counts.vocab_size, ROWS_PER_CHUNK):
        high = min(low + ROWS_PER_CHUNK, counts.vocab_size)
        seen_S = total_V[low:high].nonzero().squeeze(1)
        if not len(seen_S):
            continue
        x_SD = with_bias(table_VD[low:high][seen_S])
        weighted_DS = (x_SD * total_V[low:high][seen_S, None]).T.contiguous()
        for i, rows in enumerate(blocks):  # A is symmetric: the blocks on and above the diagonal are enough
            for columns in blocks[i:]:
                xx_DD[rows, columns] += weighted_DS[rows] @ x_SD[:, columns]
        for first in range(0, num_experts, EXPERTS_PER_BLOCK):
            experts = range(first, min(first + EXPERTS_PER_BLOCK, num_experts))
            xy_DE[:, experts.start : experts.stop] += x_SD.T @ counts.dense(experts, low, high)[seen_S]
    return xx_DD.triu() + xx_DD.triu(1).T, xy_DE * weights_E


def solve_ridge(xx_DD: Tensor, xy_DE: Tensor, regularization: float, scale: RegularizationScale = "absolute") -> Tensor:
    """Return ``W = (A + λI)⁻¹ b`` ``(D, E)`` float64 by Cholesky; with ``mean_diagonal``, λ is times mean(diag A).

    Raises:
        ValueError: if λ is negative, or too small for a matrix that is singular in float64.
    """
    if regularization < 0:
        raise ValueError(f"Expected `regularization` to be at least 0, but got {regularization}.")
    diagonal_D = xx_DD.diagonal()
    penalty = regularization * float(diagonal_D.mean()) if scale == "mean_diagonal" else regularization
    lower_DD, info = torch.linalg.cholesky_ex(xx_DD + penalty * torch.eye(len(xx_DD), dtype=xx_DD.dtype))
    # A pivot this small is rounding noise: the matrix has no full rank, whatever the factorisation says.
    noise = len(xx_DD) * torch.finfo(torch.float64).eps * (diagonal_D.max() + penalty)
    if int(info) != 0 or bool((lower_DD.diagonal() ** 2 <= noise).any()):
        raise ValueError(
            f"With `regularization` {regularization} ({scale}) the ridge system is singular: the training tokens span"
            " fewer directions than the embedding has. Set `regularization` to a larger value, such as 1e-2."
        )
    return torch.cholesky_solve(xy_DE, lower_DD)


class RidgePath:
    """One eigendecomposition of ``A`` ``(D, D)``, from which ``W`` follows at any λ for the price of a product.

    For exploring: its last bits are not those of ``solve_ridge``, which makes the router that is saved.
    """

    def __init__(self, xx_DD: Tensor, xy_DE: Tensor) -> None:
        self._mean_diagonal = float(xx_DD.diagonal().mean())
        self._values_D, self._vectors_DD = torch.linalg.eigh(xx_DD)
        self._projected_DE = self._vectors_DD.T @ xy_DE

    def solve(self, regularization: float, scale: RegularizationScale = "absolute") -> Tensor:
        """Return ``W = (A + λI)⁻¹ b`` ``(D, E)`` float64, for λ > 0."""
        penalty = regularization * (self._mean_diagonal if scale == "mean_diagonal" else 1.0)
        return self._vectors_DD @ (self._projected_DE / (self._values_D.clamp(min=0) + penalty)[:, None])


def normalize_columns(weight_DE: Tensor) -> Tensor:
    """Divide each expert's coefficients and its bias (the last row) by the L2 norm of the coefficients.

    The published code does this and the published formula does not (DESIGN.md 3.1).
    """
    return weight_DE / torch.linalg.vector_norm(weight_DE[:-1], dim=0)
