"""The learning rate's schedule of the paper's gradient-trained routers."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

_FIRST = 0.1  # of the rate, at the first step


class WarmupCosine(LambdaLR):
    """A linear warm-up from a tenth of the rate, then a cosine down to zero; stepped with the optimizer.

    Args:
        optimizer: Whose rate it is.
        warmup: The share of all steps that warm up.
        total_steps: Steps of the training; null takes those that the trainer will make.
    """

    def __init__(self, optimizer: Optimizer, warmup: float = 0.1, total_steps: int | None = None) -> None:
        if not 0 <= warmup < 1:
            raise ValueError(f"Expected `warmup` to be at least 0 and less than 1, but got {warmup}.")
        self.warmup = warmup
        self.total_steps = total_steps
        super().__init__(optimizer, self._factor)

    def _factor(self, step: int) -> float:
        if self.total_steps is None:  # until the module has asked the trainer
            return _FIRST if self.warmup else 1.0
        warming = int(self.warmup * self.total_steps)
        if step < warming:
            return _FIRST + (1 - _FIRST) * step / warming
        done = min(1.0, (step - warming) / max(1, self.total_steps - warming))
        return (1 + math.cos(math.pi * done)) / 2
