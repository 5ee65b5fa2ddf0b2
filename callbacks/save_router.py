"""Saves the fitted router into the run's folder."""

from pathlib import Path

from lightning import Callback, LightningModule, Trainer
from lightning_utilities.core.rank_zero import rank_zero_info

from ir3de.evaluation.card import write_card
from ir3de.files import write_csv
from ir3de.modules.router_module import RouterModule
from ir3de.routers import ClosedFormRouter
from ir3de.upkeep.certificate import certify

CURVE = "validation_choices.csv"


class SaveRouter(Callback):
    """Writes ``router/``: the artifact that ``test``, ``predict`` and ``from_pretrained`` load, with its certificate.

    What the config left open, and how each choice did on validation data, goes into ``validation_choices.csv``.
    """

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, RouterModule), "SaveRouter is listed for RouterModule"
        router = pl_module.router
        if trainer.is_global_zero and isinstance(router, ClosedFormRouter):
            folder = Path(trainer.default_root_dir) / "router"
            router.save_pretrained(folder)
            write_card(folder, verdict=None)
            certify(folder, "fit")
            if router.scored:
                columns = [*router.scored[0].choice, "routing_accuracy_mean"]
                rows = [[*one.choice.values(), f"{one.routing_accuracy_mean:.4f}"] for one in router.scored]
                write_csv(folder.parent / CURVE, columns, rows)
            rank_zero_info(f"Router saved in {folder}")
