"""Saves the fitted router into the run's folder."""

from pathlib import Path

from lightning import Callback, LightningModule, Trainer
from lightning_utilities.core.rank_zero import rank_zero_info

from ir3de.evaluation.card import write_card
from ir3de.modules.router_module import RouterModule
from ir3de.routers import TokenTableRouter


class SaveRouter(Callback):
    """Writes ``router/``: the artifact that ``test``, ``predict`` and ``from_pretrained`` load."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, RouterModule), "SaveRouter is listed for RouterModule"
        router = pl_module.router
        if trainer.is_global_zero and isinstance(router, TokenTableRouter):
            folder = Path(trainer.default_root_dir) / "router"
            router.save_pretrained(folder)
            write_card(folder, verdict=None)
            rank_zero_info(f"Router saved in {folder}")
