"""Which sequences are in which batch: a pure function of the seed and the step, or of the sequences' lengths."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset, IterableDataset

from ir3de.types import Batch


class TrainingBatch(Batch):
    """A batch with ``step_targets``, an int64 scalar: the targets of its whole optimizer step, over all processes."""

    step_targets: Tensor


class Blocks(Protocol):
    """A split's sequences, gathered many at a time; ``fingerprint`` changes if and only if they do."""

    @property
    def fingerprint(self) -> str: ...

    def __len__(self) -> int: ...

    def __getitems__(self, indices: list[int]) -> Batch: ...


class DrawOrder:
    """Rows of one or several splits by step, each row once per pass over its pool, in an order of its own each time.

    With ``balance="domain"`` each split is a pool and the batch's places go round the pools, so that any two have
    given equally many rows, to within one. With ``balance="none"`` all rows are one pool.
    """

    def __init__(self, sizes: Sequence[int], *, seed: int, balance: Literal["domain", "none"]) -> None:
        starts = np.cumsum([0, *sizes])
        pools = zip(starts[:-1], sizes, strict=True) if balance == "domain" else [(0, int(starts[-1]))]
        self._pools = [(int(start), int(size)) for start, size in pools]
        self._seed = seed
        self._orders: dict[int, tuple[int, np.ndarray]] = {}

    def rows(self, first: int, count: int) -> list[int]:
        """Return the rows at places ``first … first + count − 1``, counted through the splits one after another."""
        num_pools = len(self._pools)
        return [self._row(place % num_pools, place // num_pools) for place in range(first, first + count)]

    def _row(self, pool: int, draw: int) -> int:
        start, size = self._pools[pool]
        epoch, position = divmod(draw, size)
        if self._orders.get(pool, (-1,))[0] != epoch:
            order = np.random.default_rng([self._seed, pool, epoch]).permutation(size)
            self._orders[pool] = (epoch, order)
        return start + int(self._orders[pool][1][position])


class EndlessBatches(IterableDataset[Batch]):
    """Training batches for ever, beginning at the step that the trainer has reached.

    Having no length and no sampler it leaves Lightning nothing to skip, count or shard when a run goes on from
    the middle: the place is asked of the trainer alone. Under several processes each takes its share of a batch.

    Args:
        splits: The splits to draw from.
        order: Which rows come when.
        batch_size: Rows of a batch, over all processes together.
        accumulate: Batches of an optimizer step.
        place: Returns the next batch's number, this process' rank and the number of processes.

    Raises:
        ValueError: if the batch does not divide among the processes.
    """

    def __init__(
        self,
        splits: Sequence[Blocks],
        *,
        order: DrawOrder,
        batch_size: int,
        accumulate: int,
        place: Callable[[], tuple[int, int, int]],
    ) -> None:
        self._splits = splits
        self._starts = np.cumsum([0, *(len(split) for split in splits)])
        self._order = order
        self._batch_size = batch_size
        self._accumulate = accumulate
        self._place = place

    def __iter__(self) -> Iterator[TrainingBatch]:
        step, rank, world_size = self._place()
        if self._batch_size % world_size:
            raise ValueError(
                f"Expected `experts.module.batch_size` to be a multiple of the number of processes, {world_size},"
                f" but got {self._batch_size}."
            )
        targets, counted = torch.zeros((), dtype=torch.int64), -1
        while True:
            batch = self._gather(self._rows(step)[rank::world_size])
            if step // self._accumulate != counted:
                counted = step // self._accumulate
                alone = self._accumulate == world_size == 1
                targets = num_targets(batch) if alone else self._targets(counted)
            yield {**batch, "step_targets": targets}
            step += 1

    def _rows(self, step: int) -> list[int]:
        return self._order.rows(step * self._batch_size, self._batch_size)

    def _targets(self, optimizer_step: int) -> Tensor:
        """How many targets all batches of an optimizer step have on all processes: what its loss is divided by."""
        first = optimizer_step * self._accumulate
        return sum(
            (num_targets(self._gather(self._rows(step))) for step in range(first, first + self._accumulate)),
            torch.zeros((), dtype=torch.int64),
        )

    def _gather(self, rows: list[int]) -> Batch:
        split_of_row = np.searchsorted(self._starts, rows, side="right") - 1
        parts = []
        for split in np.unique(split_of_row):
            mine = [row - int(self._starts[split]) for row, of in zip(rows, split_of_row, strict=True) if of == split]
            parts.append(self._splits[split].__getitems__(mine))
        return join_batches(parts)


class RowBatches(Dataset[Batch]):
    """Batches of given rows: item ``i`` is the batch of ``rows[i]``, cut to its longest sequence."""

    def __init__(self, split: Blocks, rows: Sequence[list[int]]) -> None:
        self._split = split
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, item: int) -> Batch:
        return cut_padding(self._split.__getitems__(self._rows[item]))


def num_targets(batch: Batch) -> Tensor:
    """Return how many tokens of a batch are targets: real ones after a real one; int64 scalar."""
    real_BT = batch["attention_mask"].bool()
    return (real_BT[:, :-1] & real_BT[:, 1:]).sum()


def join_batches(batches: Sequence[Batch]) -> Batch:
    """Put batches under one another, padded on the right to the longest."""
    length = max(batch["input_ids"].shape[1] for batch in batches)

    def column(name: Literal["input_ids", "attention_mask"]) -> Tensor:
        return torch.cat([pad(batch[name], (0, length - batch[name].shape[1])) for batch in batches])

    return {
        "input_ids": column("input_ids"),
        "attention_mask": column("attention_mask"),
        "domain": torch.cat([batch["domain"] for batch in batches]),
        "index": torch.cat([batch["index"] for batch in batches]),
    }


def cut_padding(batch: Batch) -> Batch:
    """Drop the columns on the right in which no row has a real token, but the first."""
    longest = max(1, int(batch["attention_mask"].sum(1).max()))
    ids_BT, mask_BT = batch["input_ids"][:, :longest], batch["attention_mask"][:, :longest]
    return {**batch, "input_ids": ids_BT, "attention_mask": mask_BT}
