"""A checkpoint that is whole at every moment, from which a stopped stage goes on."""

import os
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint


class ResumePoint(Checkpoint):
    """Every so many optimizer steps replace one checkpoint file by a newer one.

    Lightning's ModelCheckpoint writes in place where the temporary folder is another file system, so that a process
    killed at that moment leaves half a file; this one writes beside it and renames.

    Args:
        path: The checkpoint.
        every_n_steps: Optimizer steps between two of them.
    """

    def __init__(self, path: Path, *, every_n_steps: int) -> None:
        self._path = path
        self._every_n_steps = every_n_steps
        self._saved_at = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the step that training goes on from as saved."""
        self._saved_at = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save, unless an accumulated batch left the step as it was or the stage is at its end."""
        step = trainer.global_step
        if step == self._saved_at or step % self._every_n_steps or step >= trainer.max_steps:
            return
        self._saved_at = step
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        fresh = self._path.with_name(f"{self._path.name}.part")
        trainer.save_checkpoint(fresh, weights_only=False)  # on every process, since a strategy may gather
        if trainer.is_global_zero:
            os.replace(fresh, self._path)
        trainer.strategy.barrier("resume point")
