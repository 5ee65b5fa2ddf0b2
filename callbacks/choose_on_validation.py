"""Chooses what the config leaves open (selector, k, smoothing) on validation data, once the router is fitted."""

from pathlib import Path

from lightning import Callback, LightningModule, Trainer

from ir3de.evaluation.choose import choose_on_validation
from ir3de.files import write_csv
from ir3de.modules.router_module import RouterModule

CURVE = "validation_choices.csv"


class ChooseOnValidation(Callback):
    """Sets the open choice with the best routing accuracy (mean over domains) and writes all of them as CSV.

    Every rank reads the whole validation split, so that all choose alike. List it after ``FitRouter``.
    """

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, RouterModule), "ChooseOnValidation is listed for RouterModule"
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if not pl_module.router.expert_names:
            raise ValueError(
                "Expected a fitted router when validation starts. List FitRouter before ChooseOnValidation."
            )
        data = trainer.datamodule  # type: ignore[attr-defined]
        scored = choose_on_validation(pl_module.router, data.val_dataloader(), num_domains=data.num_domains)
        if scored and trainer.is_global_zero:
            columns = [*scored[0].choice, "routing_accuracy_mean"]
            rows = [[*one.choice.values(), f"{one.routing_accuracy_mean:.4f}"] for one in scored]
            write_csv(Path(trainer.default_root_dir) / CURVE, columns, rows)
