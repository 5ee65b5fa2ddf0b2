"""Batches as functions of seed and step."""

from collections import Counter
from itertools import islice

import pytest
import torch

from ir3de.modules.expert_batches import DrawOrder, EndlessBatches, RowBatches
from tests.experts.fakes import blocks, ragged_blocks


def _batches(start: int = 0, rank: int = 0, world_size: int = 1, batch_size: int = 6, accumulate: int = 1):
    splits = [blocks(0, rows=3), blocks(1, rows=30), blocks(2, rows=7)]
    order = DrawOrder([3, 30, 7], seed=1, balance="domain")
    return EndlessBatches(
        splits, order=order, batch_size=batch_size, accumulate=accumulate, place=lambda: (start, rank, world_size)
    )


def test_beginning_late_gives_the_later_batches():
    for early, late in zip(islice(_batches(), 5, 9), islice(_batches(start=5), 4), strict=True):
        for name in early:
            assert torch.equal(early[name], late[name])


def test_each_row_comes_once_a_pass():
    order = DrawOrder([10], seed=0, balance="domain")
    passes = [order.rows(start, 10) for start in (0, 10, 20)]
    assert all(sorted(rows) == list(range(10)) for rows in passes)
    assert len({tuple(rows) for rows in passes}) == 3


def test_balanced_batches_draw_domains_equally():
    drawn = Counter(int(one) for batch in islice(_batches(batch_size=4), 15) for one in batch["domain"])
    assert drawn == {0: 20, 1: 20, 2: 20}


def test_unbalanced_batches_draw_rows_equally():
    rows = DrawOrder([3, 30, 7], seed=0, balance="none").rows(0, 40)
    assert sorted(rows) == list(range(40))


def test_processes_share_a_batch():
    for whole, first, second in islice(zip(_batches(), _batches(0, 0, 2), _batches(0, 1, 2), strict=True), 3):
        both = sorted(zip(first["domain"].tolist() + second["domain"].tolist(),
                          first["index"].tolist() + second["index"].tolist(), strict=True))  # fmt: skip
        assert both == sorted(zip(whole["domain"].tolist(), whole["index"].tolist(), strict=True))
        assert len(first["index"]) == 3


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_batches_know_the_targets_of_their_optimizer_step(accumulate, world_size):
    splits = [ragged_blocks(rows=13)]
    order = DrawOrder([13], seed=1, balance="domain")
    ranks = [
        EndlessBatches(
            splits, order=order, batch_size=4, accumulate=accumulate, place=lambda rank=rank: (3, rank, world_size)
        )
        for rank in range(world_size)
    ]
    batches = [list(islice(one, 2 * accumulate)) for one in ranks]
    for first in (0, accumulate):
        step = [batch for of_rank in batches for batch in of_rank[first : first + accumulate]]
        targets = sum(int(mask_T.sum()) - 1 for one in step for mask_T in one["attention_mask"])
        assert {int(batch["step_targets"]) for batch in step} == {targets}


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="multiple of the number of processes, 4, but got 6"):
        next(iter(_batches(world_size=4)))


def test_splits_of_other_lengths_are_padded_on_the_right():
    splits = [blocks(0, length=5), blocks(1, length=8)]
    order = DrawOrder([12, 12], seed=0, balance="domain")
    batch = next(iter(EndlessBatches(splits, order=order, batch_size=4, accumulate=1, place=lambda: (0, 0, 1))))
    assert batch["attention_mask"].sum(1).tolist() == [5, 5, 8, 8]
    assert batch["attention_mask"].dtype == torch.bool


def test_row_batches_are_cut_to_their_longest():
    split = ragged_blocks()
    short = [row for row in range(len(split)) if len(split.rows[row]) <= 3]
    batch = RowBatches(split, [short])[0]
    assert batch["input_ids"].shape[1] == max(len(split.rows[row]) for row in short)
    assert batch["index"].tolist() == short
