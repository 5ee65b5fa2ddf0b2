"""The decisions of all processes, by the row of the split that each belongs to."""

import torch
from lightning import Trainer
from torch import Tensor


class Decisions:
    """Collects ``(index_B, expert_B)`` of batches; ``gather`` puts those of all ranks in their places."""

    def __init__(self) -> None:
        self._parts: list[tuple[Tensor, Tensor]] = []

    def add(self, index_B: Tensor, expert_B: Tensor) -> None:
        """Keep the decisions of a batch."""
        self._parts.append((index_B.cpu(), expert_B.cpu()))

    def gather(self, trainer: Trainer, num_sequences: int) -> Tensor:
        """Return the expert of every row ``(N,)`` int64, -1 where none was chosen; on every rank."""
        expert_N = torch.full((num_sequences,), -1)
        for index_B, expert_B in self._parts:
            expert_N[index_B] = expert_B
        gathered: Tensor = trainer.strategy.reduce(expert_N.to(trainer.strategy.root_device), reduce_op="max")
        return gathered.cpu()
