"""Saves the fitted router into the run's folder."""

from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning_utilities.core.rank_zero import rank_zero_info

from ir3de.evaluation.card import write_card
from ir3de.files import write_csv
from ir3de.modules.router_module import RouterModule
from ir3de.routers import ClosedFormRouter
from ir3de.upkeep.certificate import certify

CURVE = "validation_choices.csv"


class SaveRouter(Callback):
    """Writes ``router/``: the artifact that ``test``, ``predict`` and ``from_pretrained`` load.

    Of a gradient-trained router it is the best epoch's, by what ``ModelCheckpoint`` monitors. A closed-form router has
    its certificate beside it; what the config left open, and how each choice did on validation data, goes into
    ``validation_choices.csv``.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a training whose best epoch nobody would keep.

        Raises:
            ValueError: if a router is trained by gradient and no ``ModelCheckpoint`` monitors anything.
        """
        checkpoint = trainer.checkpoint_callback
        if stage == "fit" and not _module(pl_module).router.closed_form and not getattr(checkpoint, "monitor", None):
            raise ValueError(
                "A gradient-trained router is saved as it was in its best epoch, but no ModelCheckpoint with `monitor`"
                " is in `trainer.callbacks`. Use trainer/router.yaml, or monitor validation/routing_accuracy_mean."
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        router = _module(pl_module).router
        if not router.closed_form:
            best = trainer.checkpoint_callback.best_model_path  # type: ignore[union-attr]
            data = getattr(trainer, "datamodule", None)
            last = data is not None and data.faults.keep_last_epoch
            if not best:
                raise ValueError(
                    "No epoch was scored, so none is the best: ModelCheckpoint never saw what it monitors. Validate"
                    " once an epoch (`trainer.limit_val_batches` above 0)."
                )
            if not last:
                pl_module.load_state_dict(
                    torch.load(best, map_location=pl_module.device, weights_only=True)["state_dict"]
                )
        if trainer.is_global_zero:
            folder = Path(trainer.default_root_dir) / "router"
            router.save_pretrained(folder)
            write_card(folder, verdict=None)
            if isinstance(router, ClosedFormRouter):
                certify(folder, "fit")
                _write_choices(router, folder.parent / CURVE)
            rank_zero_info(f"Router saved in {folder}")


def _write_choices(router: ClosedFormRouter[Any], path: Path) -> None:
    if router.scored:
        columns = [*router.scored[0].choice, "routing_accuracy_mean"]
        write_csv(path, columns, [[*one.choice.values(), f"{one.routing_accuracy_mean:.4f}"] for one in router.scored])


def _module(pl_module: LightningModule) -> RouterModule:
    assert isinstance(pl_module, RouterModule), "SaveRouter is listed for RouterModule"
    return pl_module
