"""From the scores of a prompt's tokens to the scores of the prompt: the sample route selectors (DESIGN.md 2).

All take token ids ``(B, T)`` int64 with a mask ``(B, T)`` bool (padding anywhere) and a table over the vocabulary,
and return ``(B, E)`` float64, one row a prompt. The decision is the highest score; ties go to the lower expert.
"""

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


def token_entropy(scores_VE: Tensor) -> Tensor:
    """Return the entropy of the softmax of each row, ``(V,)`` float64, in nats."""
    log_p_VE = scores_VE.double().log_softmax(dim=1)
    return -(log_p_VE.exp() * log_p_VE).sum(dim=1)


def entropy_ranks(scores_VE: Tensor) -> Tensor:
    """Return each vocabulary entry's rank ``(V,)`` int32 by (entropy, id): no two are equal."""
    order_V = token_entropy(scores_VE).argsort(stable=True)
    rank_V = torch.empty_like(order_V, dtype=torch.int32)
    rank_V[order_V] = torch.arange(len(order_V), dtype=torch.int32)
    return rank_V


def check_prompts(mask_BT: Tensor) -> None:
    """Refuse prompts without a token: there is nothing to route on.

    Raises:
        ValueError: if a row is fully masked; the rows are named.
    """
    empty_B = ~mask_BT.any(dim=1)
    if empty_B.any():
        rows = empty_B.nonzero().squeeze(1).tolist()
        raise ValueError(f"Expected at least one token in every prompt, but the prompts in rows {rows} are empty.")


def majority(ids_BT: Tensor, mask_BT: Tensor, winner_V: Tensor, num_experts: int) -> Tensor:
    """Return each expert's share of the tokens' votes; ``winner_V`` is the expert each entry votes for."""
    return _shares(winner_V[ids_BT.where(mask_BT, 0)].long(), mask_BT, num_experts)


def mean(ids_BT: Tensor, mask_BT: Tensor, scores_VE: Tensor) -> Tensor:
    """Return the mean of the token scores; padding is left out of the sum, not multiplied by zero."""
    lengths_B = mask_BT.sum(dim=1)
    offsets_B = lengths_B.cumsum(dim=0) - lengths_B
    return embedding_bag(ids_BT[mask_BT], scores_VE, offsets_B, mode="sum") / lengths_B[:, None]


def entropy_top_k(
    ids_BT: Tensor, mask_BT: Tensor, winner_V: Tensor, rank_V: Tensor, *, k: int, num_experts: int
) -> Tensor:
    """Return the shares of votes of the ``min(k, T)`` tokens of lowest entropy; equal entropies go by lower id.

    Raises:
        ValueError: if ``k`` is less than one.
    """
    if k < 1:
        raise ValueError(f"Expected `k` to be at least 1, but got {k}.")
    ids_BT = ids_BT.where(mask_BT, 0)
    rank_BT = rank_V[ids_BT].where(mask_BT, len(rank_V))  # padding ranks last, and is masked out below
    rank_BK, kept_BK = rank_BT.topk(min(k, ids_BT.shape[1]), dim=1, largest=False)
    winner_BK = winner_V[ids_BT.gather(1, kept_BK)].long()
    return _shares(winner_BK, rank_BK < len(rank_V), num_experts)


def _shares(winner_BK: Tensor, counted_BK: Tensor, num_experts: int) -> Tensor:
    votes_BE = torch.zeros(len(winner_BK), num_experts, dtype=torch.float64, device=winner_BK.device)
    votes_BE.scatter_add_(1, winner_BK, counted_BK.double())
    return votes_BE / counted_BK.sum(dim=1, keepdim=True)
