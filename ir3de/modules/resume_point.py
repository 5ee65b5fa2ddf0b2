"""Checkpoints that are whole at every moment: the last one, from which a stopped stage goes on, and the best one."""

import os
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn


def save_whole(trainer: Trainer, path: Path, *, weights_only: bool) -> None:
    """Write a checkpoint in one step; with ``weights_only`` there is no optimizer's state in it.

    Lightning's ModelCheckpoint writes in place where the temporary folder is another file system, so that a process
    killed at that moment leaves half a file; this writes beside it and renames. Called on every process, since a
    strategy may gather.
    """
    fresh = path.with_name(f"{path.name}.part")
    trainer.save_checkpoint(fresh, weights_only=weights_only)
    if trainer.is_global_zero:
        os.replace(fresh, path)
    trainer.strategy.barrier("checkpoint")


class ResumePoint(Checkpoint):
    """Every so many optimizer steps replace one checkpoint file by a newer one.

    Where the step is one at which validation runs, the checkpoint is taken after it, so that what goes on from there
    has seen it.

    Args:
        path: The checkpoint.
        every_n_steps: Optimizer steps between two of them.
        validate_every_n_steps: Optimizer steps between two validations, if any.
    """

    def __init__(self, path: Path, *, every_n_steps: int, validate_every_n_steps: int | None = None) -> None:
        self._path = path
        self._every_n_steps = every_n_steps
        self._validate_every_n_steps = validate_every_n_steps
        self._saved_at = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the step that training goes on from as saved."""
        self._saved_at = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save, unless an accumulated batch left the step as it was or the stage is at its end."""
        every = self._validate_every_n_steps
        if every is None or trainer.global_step % every:
            self._save_if_due(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save with the measurement in it."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._save_if_due(trainer)

    def _save_if_due(self, trainer: Trainer) -> None:
        step = trainer.global_step
        if step == self._saved_at or step % self._every_n_steps or step >= trainer.max_steps:
            return
        self._saved_at = step
        save_whole(trainer, self._path, weights_only=False)  # with the optimizer's state; read with weights_only=True


class BestPoint(Checkpoint):
    """Keeps the weights of the best validation; the earlier of equals.

    Args:
        path: Where they are kept.
        monitor: The metric, of which less is better.
    """

    def __init__(self, path: Path, *, monitor: str) -> None:
        self._path = path
        self._monitor = monitor
        self.value: float | None = None
        self.step = 0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if this is the best so far."""
        value = float(trainer.callback_metrics[self._monitor])
        if trainer.state.fn == TrainerFn.FITTING and (self.value is None or value < self.value):
            self.value, self.step = value, trainer.global_step
            save_whole(trainer, self._path, weights_only=True)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed stage has to know."""
        return {"value": self.value, "step": self.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what was measured before the stage was stopped."""
        self.value, self.step = state_dict["value"], state_dict["step"]
