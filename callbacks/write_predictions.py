"""Writes what ``predict`` decided."""

from pathlib import Path

import torch
from lightning import Callback, LightningModule, Trainer
from lightning_utilities.core.rank_zero import rank_zero_info

from callbacks.decisions import Decisions
from ir3de.files import write_csv
from ir3de.modules.router_module import RouterModule
from ir3de.types import Batch, RoutingDecision


class WritePredictions(Callback):
    """Writes ``predictions.csv``: one line a sequence, with its true domain, its expert, and the expert's score."""

    def __init__(self) -> None:
        self._experts = Decisions()
        self._scores: list[tuple[torch.Tensor, torch.Tensor]] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._experts, self._scores = Decisions(), []

    def on_predict_batch_end(  # noqa: PLR0917 - Lightning's signature
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: RoutingDecision,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._experts.add(batch["index"], outputs.expert_B)
        self._scores.append((batch["index"].cpu(), outputs.score_B.cpu().double()))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, RouterModule), "WritePredictions is listed for RouterModule"
        rows = trainer.datamodule.router_rows("test")  # type: ignore[attr-defined]
        expert_N = self._experts.gather(trainer, len(rows))
        score_N = torch.zeros(len(rows), dtype=torch.float64)
        for index_B, score_B in self._scores:
            score_N[index_B] = score_B
        score_N = trainer.strategy.reduce(score_N.to(pl_module.device), reduce_op="sum").cpu()  # zeros elsewhere: exact
        if not trainer.is_global_zero:
            return
        domains, names = trainer.datamodule.domain_names, pl_module.router.expert_names  # type: ignore[attr-defined]
        lines = [
            [i, domains[domain], names[expert], f"{score:.6g}"]
            for i, (domain, expert, score) in enumerate(
                zip(rows.domains().tolist(), expert_N.tolist(), score_N.tolist(), strict=True)
            )
            if expert >= 0  # with `trainer.limit_predict_batches` some are not routed
        ]
        path = Path(trainer.default_root_dir) / "predictions.csv"
        write_csv(path, ["index", "domain", "expert", "score"], lines)
        rank_zero_info(f"{len(lines)} decisions written to {path}")
