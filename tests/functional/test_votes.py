"""Selectors against plain per-token implementations, on random tables with ties and padding on either side."""

import math

import pytest
import torch

from ir3de.functional.votes import (
    Votes,
    all_votes,
    check_prompts,
    entropy_top_k_votes,
    mean,
    plurality,
    ranks,
    token_entropy,
    vote_shares,
)
from tests.helpers import reference
from tests.helpers.text import pad

VOCAB = 15


def _table(num_experts, *, ties, seed):
    generator = torch.Generator().manual_seed(seed)
    if ties:  # few distinct values: tokens tie between experts, and in entropy
        return torch.randint(0, 2, (VOCAB, num_experts), generator=generator).double()
    return torch.randn(VOCAB, num_experts, dtype=torch.float64, generator=generator)


def _prompts(seed):
    generator = torch.Generator().manual_seed(seed)
    lengths = [1, 1, 2, 3, 8, 13, 30]
    return [torch.randint(VOCAB, (length,), generator=generator).tolist() for length in lengths]


@pytest.mark.parametrize(
    "selector, k", [("majority", None), ("mean", None), *(("entropy_top_k", k) for k in (1, 2, 5, 99))]
)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("num_experts", [1, 2, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_selectors_agree_with_plain_ones(selector, k, side, ties, num_experts, seed):
    scores_VE, prompts = _table(num_experts, ties=ties, seed=seed), _prompts(seed)
    ids_BT, mask_BT = pad(prompts, side=side, filler=VOCAB - 1)
    winner_V, rank_V = scores_VE.argmax(dim=1).int(), ranks(token_entropy(scores_VE))
    if selector == "mean":
        ours_BE = mean(ids_BT, mask_BT, scores_VE)
    else:
        votes = (
            all_votes(ids_BT, mask_BT, winner_V)
            if selector == "majority"
            else entropy_top_k_votes(ids_BT, mask_BT, winner_V, rank_V, k=k)
        )
        ours_BE = vote_shares(votes, num_experts)
        expert_B, share_B = plurality(votes, num_experts)
        assert torch.equal(expert_B, ours_BE.argmax(dim=1))
        assert torch.equal(share_B, ours_BE.amax(dim=1))
    for row, prompt in enumerate(prompts):
        expert, scores = reference.route(prompt, scores_VE.tolist(), selector, k)
        torch.testing.assert_close(ours_BE[row], torch.tensor(scores, dtype=torch.float64))
        if not (selector == "mean" and ties):  # a mean's tie is decided by rounding, which depends on the order of sums
            assert int(ours_BE[row].argmax()) == expert


def test_ties_go_to_the_lower_expert():
    winner_V = torch.tensor([2, 1, 0], dtype=torch.int32)
    ids_BT, mask_BT = pad([[0, 1], [2, 1, 0], [0, 0, 1, 1]])
    assert plurality(all_votes(ids_BT, mask_BT, winner_V), 3)[0].tolist() == [1, 0, 1]


@pytest.mark.parametrize("num_experts", [3, 10_000])
def test_the_plurality_of_many_experts_is_the_largest_share(num_experts):
    generator = torch.Generator().manual_seed(0)
    winner_BK = torch.randint(num_experts, (50, 40), generator=generator) // torch.tensor([1, 500])[:, None].repeat(
        25, 1
    )
    counted_BK = torch.rand(50, 40, generator=generator) < 0.7
    counted_BK[:, 0] = True
    votes = Votes(winner_BK, counted_BK)
    expert_B, share_B = plurality(votes, num_experts)
    shares_BE = vote_shares(votes, num_experts)
    assert torch.equal(expert_B, shares_BE.argmax(dim=1))
    assert torch.equal(share_B, shares_BE.amax(dim=1))


def test_padding_does_not_change_a_single_bit():
    scores_VE, prompts = _table(4, ties=False, seed=3), _prompts(3)
    alone = torch.cat([mean(*pad([prompt]), scores_VE) for prompt in prompts])
    for side in ("left", "right"):
        assert torch.equal(mean(*pad(prompts, side=side, filler=7), scores_VE), alone)


def test_entropy_agrees_with_the_definition_and_survives_large_scores():
    scores_VE = torch.tensor([[0.0, 0.0], [1000.0, 0.0], [3.0, 1.0]], dtype=torch.float64)
    assert token_entropy(scores_VE).tolist() == pytest.approx([math.log(2), 0.0, reference.entropy([3.0, 1.0])])


def test_equal_entropies_rank_by_id():
    scores_VE = torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    assert ranks(token_entropy(scores_VE)).tolist() == [1, 2, 0, 3]


def test_empty_prompts_are_named():
    with pytest.raises(ValueError, match=r"rows \[0, 2\] are empty"):
        check_prompts(torch.tensor([[False, False], [True, False], [False, False]]))


def test_k_below_one_is_refused():
    ids_BT, mask_BT = pad([[0]])
    with pytest.raises(ValueError, match="at least 1, but got 0"):
        entropy_top_k_votes(ids_BT, mask_BT, torch.zeros(1).int(), torch.zeros(1).int(), k=0)
