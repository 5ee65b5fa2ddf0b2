"""Counts agree with a plain Counter, whatever the padding, and refuse what the vocabulary does not have."""

from collections import Counter

import pytest
import torch

from ir3de.functional.counts import add_token_counts_
from tests.helpers.text import pad

ROWS = [[1, 2, 2, 5], [0], [3, 3, 3], [5, 0], [4, 4, 4, 4]]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("domains", [[0, 1, 0, 2, 1], [1, 1, 1, 1, 1]], ids=["mixed", "one domain"])
@pytest.mark.parametrize("filler", [0, 5, 99], ids=["id 0", "a real id", "an id out of range"])
def test_counts_agree_with_a_counter(side, domains, filler):
    ids_BT, mask_BT = pad(ROWS, side=side, filler=filler)
    counts_EV = add_token_counts_(torch.zeros(3, 6, dtype=torch.int64), ids_BT, mask_BT, torch.tensor(domains))
    for domain in range(3):
        expected = Counter(t for row, d in zip(ROWS, domains, strict=True) if d == domain for t in row)
        assert counts_EV[domain].tolist() == [expected[token] for token in range(6)]


def test_batches_add_up_to_the_whole():
    ids_BT, mask_BT = pad(ROWS)
    domain_B = torch.tensor([0, 1, 2, 0, 1])
    whole = add_token_counts_(torch.zeros(3, 6, dtype=torch.int64), ids_BT, mask_BT, domain_B)
    parts = torch.zeros(3, 6, dtype=torch.int64)
    for i in (slice(0, 2), slice(2, 3), slice(3, 5)):
        add_token_counts_(parts, ids_BT[i], mask_BT[i], domain_B[i])
    assert torch.equal(whole, parts)


def test_a_fully_masked_row_weighs_nothing():
    counts = add_token_counts_(
        torch.zeros(1, 6, dtype=torch.int64),
        torch.ones(2, 3, dtype=torch.int64),
        torch.zeros(2, 3, dtype=torch.bool),
        torch.zeros(2, dtype=torch.int64),
    )
    assert counts.sum() == 0


@pytest.mark.parametrize("bad", [-1, 6, 2**40])
def test_an_id_out_of_range_is_refused_and_named(bad):
    ids_BT, mask_BT = pad([[1, bad, 2]])
    with pytest.raises(ValueError, match=f"from 0 to 5, but got {bad}"):
        add_token_counts_(torch.zeros(1, 6, dtype=torch.int64), ids_BT, mask_BT, torch.tensor([0]))


def test_a_domain_out_of_range_is_refused():
    ids_BT, mask_BT = pad([[1, 2]])
    with pytest.raises(ValueError, match="domains from 0 to 1"):
        add_token_counts_(torch.zeros(2, 6, dtype=torch.int64), ids_BT, mask_BT, torch.tensor([2]))
