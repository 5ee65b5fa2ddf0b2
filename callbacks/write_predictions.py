"""Writes what ``predict`` decided."""

from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning_utilities.core.rank_zero import rank_zero_info

from ir3de.files import write_csv
from ir3de.modules.router_module import RouterModule
from ir3de.types import Batch, RoutingDecision


class WritePredictions(Callback):
    """Writes ``predictions.csv``: one line a sequence, with its true domain, its expert, and the scores."""

    def __init__(self) -> None:
        self._lines: list[list[Any]] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._lines = []

    def on_predict_batch_end(  # noqa: PLR0917 - Lightning's signature
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: RoutingDecision,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        domains = trainer.datamodule.domain_names  # type: ignore[attr-defined]
        rows = zip(batch["index"].tolist(), batch["domain"].tolist(), outputs.names, outputs.scores_BE, strict=True)
        self._lines += [[i, domains[d], name, *(f"{s:.6g}" for s in scores.tolist())] for i, d, name, scores in rows]

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, RouterModule), "WritePredictions is listed for RouterModule"
        columns = ["index", "domain", "expert", *(f"score/{name}" for name in pl_module.router.expert_names)]
        suffix = f".rank_{trainer.global_rank}" if trainer.world_size > 1 else ""
        path = Path(trainer.default_root_dir) / f"predictions{suffix}.csv"
        write_csv(path, columns, sorted(self._lines))
        rank_zero_info(f"{len(self._lines)} decisions written to {path}")
