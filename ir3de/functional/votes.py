"""From the scores of a prompt's tokens to the scores of the prompt: the sample route selectors (DESIGN.md 2).

All take token ids ``(B, T)`` int64 with a mask ``(B, T)`` bool (padding anywhere). The decision is the highest
score; ties go to the lower expert. Where tokens vote, it is made from the votes of the prompt's tokens alone, so that
its cost hardly grows with the number of experts.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Votes(NamedTuple):
    """The experts that a prompt's tokens vote for ``(B, K)`` int64, and which of them count ``(B, K)`` bool."""

    winner_BK: Tensor
    counted_BK: Tensor


def token_entropy(scores_VE: Tensor) -> Tensor:
    """Return the entropy of the softmax of each row, ``(V,)`` float64, in nats."""
    log_p_VE = scores_VE.double().log_softmax(dim=1)
    return -(log_p_VE.exp() * log_p_VE).sum(dim=1)


def ranks(entropy_V: Tensor) -> Tensor:
    """Return each vocabulary entry's rank ``(V,)`` int32 by (entropy, id): no two are equal."""
    order_V = entropy_V.argsort(stable=True)
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


def all_votes(ids_BT: Tensor, mask_BT: Tensor, winner_V: Tensor) -> Votes:
    """Return the votes of all tokens; ``winner_V`` is the expert that each vocabulary entry votes for."""
    return Votes(winner_V[ids_BT.where(mask_BT, 0)].long(), mask_BT)


def entropy_top_k_votes(ids_BT: Tensor, mask_BT: Tensor, winner_V: Tensor, rank_V: Tensor, *, k: int) -> Votes:
    """Return the votes of the ``min(k, T)`` tokens of lowest entropy; equal entropies go by lower id.

    Raises:
        ValueError: if ``k`` is less than one.
    """
    if k < 1:
        raise ValueError(f"Expected `k` to be at least 1, but got {k}.")
    ids_BT = ids_BT.where(mask_BT, 0)
    rank_BT = rank_V[ids_BT].where(mask_BT, len(rank_V))  # padding ranks last, and is not counted
    rank_BK, kept_BK = rank_BT.topk(min(k, ids_BT.shape[1]), dim=1, largest=False)
    return Votes(winner_V[ids_BT.gather(1, kept_BK)].long(), rank_BK < len(rank_V))


def vote_shares(votes: Votes, num_experts: int) -> Tensor:
    """Return each expert's share of the votes ``(B, E)`` float64."""
    return _tally(votes, num_experts).double() / votes.counted_BK.sum(dim=1, keepdim=True)


def plurality(votes: Votes, num_experts: int) -> tuple[Tensor, Tensor]:
    """Return the expert with most votes ``(B,)`` int64, the lowest of equals, and its share of them ``(B,)`` float64.

    Only the tally is as long as the experts are many; it is read where there are votes.
    """
    tally_BK = _tally(votes, num_experts).gather(1, votes.winner_BK).where(votes.counted_BK, 0).long()
    key_BK = tally_BK * num_experts - votes.winner_BK  # more votes first, then the lower expert
    place_B1 = key_BK.argmax(dim=1, keepdim=True)
    expert_B = votes.winner_BK.gather(1, place_B1).squeeze(1)
    share_B = tally_BK.gather(1, place_B1).squeeze(1).double() / votes.counted_BK.sum(dim=1)
    return expert_B, share_B


def mean(ids_BT: Tensor, mask_BT: Tensor, scores_VE: Tensor) -> Tensor:
    """Return the mean of the token scores ``(B, E)``; padding is left out of the sum, not multiplied by zero."""
    lengths_B = mask_BT.sum(dim=1)
    offsets_B = lengths_B.cumsum(dim=0) - lengths_B
    summed_BE = torch.nn.functional.embedding_bag(ids_BT[mask_BT], scores_VE, offsets_B, mode="sum")
    return summed_BE / lengths_B[:, None]


def _tally(votes: Votes, num_experts: int) -> Tensor:
    winner_BK, counted_BK = votes
    tally_BE = torch.zeros(len(winner_BK), num_experts, dtype=torch.int32, device=winner_BK.device)
    return tally_BE.scatter_add_(1, winner_BK, counted_BK.int())
