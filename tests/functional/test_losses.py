"""Next-token losses against one position at a time in float64."""

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear

from ir3de.functional.losses import next_token_nll, nll_of_logits, with_next


def _nll(hidden: Tensor, head: Tensor, ids: Tensor, mask: Tensor, **settings) -> tuple[Tensor, Tensor]:
    return next_token_nll(hidden, partial(linear, weight=head), ids, mask, **settings)


def _reference(hidden: Tensor, head: Tensor, ids: Tensor, mask: Tensor) -> tuple[list[float], list[int]]:
    sums, counts = [], []
    for row in range(len(ids)):
        total, count = 0.0, 0
        for t in range(1, ids.shape[1]):
            if mask[row, t] and mask[row, t - 1]:
                logits = head.double() @ hidden[row, t - 1].double()
                total -= float(torch.log_softmax(logits, 0)[ids[row, t]])
                count += 1
        sums.append(total)
        counts.append(count)
    return sums, counts


def _case(side: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    lengths = [7, 1, 4, 0, 2]
    mask = torch.zeros(5, 7, dtype=torch.bool)
    for row, length in enumerate(lengths):
        where = slice(7 - length, 7) if side == "left" else slice(0, length)
        mask[row, where] = True
    return torch.randn(5, 7, 6), torch.randn(11, 6), torch.randint(11, (5, 7)), mask


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("chunk_rows", [1, 3, 256])
def test_matches_one_position_at_a_time(side, chunk_rows):
    hidden, head, ids, mask = _case(side)
    nll, tokens = _nll(hidden, head, ids, mask, chunk_rows=chunk_rows)
    sums, counts = _reference(hidden, head, ids, mask)
    assert nll.dtype == torch.float64
    assert tokens.dtype == torch.int64
    assert tokens.tolist() == counts
    assert nll.tolist() == pytest.approx(sums, rel=1e-6)


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_may_hold_anything(side):
    hidden, head, ids, mask = _case(side)
    expected, _ = _nll(hidden, head, ids, mask)
    hidden[~mask], ids[~mask] = float("nan"), 3
    assert torch.equal(_nll(hidden, head, ids, mask)[0], expected)


def test_a_batch_is_its_rows():
    hidden, head, ids, mask = _case("right")
    together, _ = _nll(hidden, head, ids, mask)
    for row in range(5):
        alone, _ = _nll(*(hidden[row : row + 1], head, ids[row : row + 1], mask[row : row + 1]))
        torch.testing.assert_close(alone[0], together[row], rtol=1e-6, atol=1e-6)


def test_logits_give_what_hidden_states_give():
    hidden, head, ids, mask = _case("left")
    expected, counts = _nll(hidden, head, ids, mask)
    nll, tokens = nll_of_logits(hidden @ head.T, ids, mask)
    torch.testing.assert_close(nll, expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(tokens, counts)


def test_gradients_are_those_of_all_logits_at_once():
    hidden, head, ids, mask = _case("right")
    hidden.requires_grad_()
    head.requires_grad_()
    nll, _ = _nll(hidden, head, ids, mask, chunk_rows=2)
    chunked = torch.autograd.grad(nll.sum(), [hidden, head])
    whole = torch.autograd.grad(nll_of_logits(hidden @ head.T, ids, mask)[0].sum(), [hidden, head])
    for mine, theirs in zip(chunked, whole, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_single_token_has_no_loss():
    nll, tokens = _nll(torch.randn(2, 1, 4), torch.randn(5, 4), torch.ones(2, 1).long(), torch.ones(2, 1))
    assert nll.tolist() == [0.0, 0.0]
    assert tokens.tolist() == [0, 0]


def test_chunks_must_have_rows():
    with pytest.raises(ValueError, match="`chunk_rows`.*got 0"):
        _nll(*_case("right"), chunk_rows=0)


@pytest.mark.parametrize(
    "ids, length, following, expected",
    [
        pytest.param([5, 6, 7], 3, 8, [5, 6, 7, 8], id="full"),
        pytest.param([5, 6, 0], 2, 8, [5, 6, 8], id="padded"),
        pytest.param([5, 0, 0], 1, 8, [5, 8], id="one token"),
        pytest.param([5, 6, 0], 2, -1, [5, 6], id="unknown"),
        pytest.param([0, 0, 0], 0, 8, [], id="empty"),
    ],
)
def test_the_token_that_follows_a_row_comes_after_its_last_real_one(ids, length, following, expected):
    mask = torch.arange(3)[None] < length
    longer, real = with_next(torch.tensor([ids]), mask, torch.tensor([following]))
    assert longer.shape == real.shape == (1, 4)
    assert longer[real].tolist() == expected
