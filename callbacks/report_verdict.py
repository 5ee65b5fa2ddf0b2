"""Reports the verdict of ``test``: console, CSV, JSON, PNG, the router's card, and the loggers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor

from callbacks.decisions import Decisions
from ir3de.evaluation.card import write_card
from ir3de.evaluation.figures import save_confusion_matrix, save_expert_quality
from ir3de.evaluation.report import flat_metrics, print_verdict, verdict_table, write_tables
from ir3de.evaluation.verdict import Verdict, make_verdict
from ir3de.modules.router_module import RouterModule
from ir3de.routers import Router
from ir3de.types import Batch

CONFUSION = "confusion_matrix.png"


class ReportVerdict(Callback):
    """Looks decisions up in the loss table: for the run's router, its siblings, and the references.

    Siblings are what the same fit gives for nothing (the other selectors, naive Bayes), chosen on validation data.

    Args:
        seed: Draws the random router.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self._routers: dict[str, Router] = {}
        self._decisions: dict[str, Decisions] = {}

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = _module(pl_module)
        self._routers = {router.display_name: router for router in module.router.siblings().values()}
        self._decisions = {name: Decisions() for name in (module.router.display_name, *self._routers)}

    def on_test_batch_end(  # noqa: PLR0917 - Lightning's signature
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        assert isinstance(outputs, Mapping), "RouterModule.test_step returns the decision"
        own = _module(pl_module).router.display_name
        self._decisions[own].add(batch["index"], outputs["decision"].expert_B)
        for name, router in self._routers.items():
            if name != own:
                expert_B = router.decide(batch["input_ids"], batch["attention_mask"]).expert_B
                self._decisions[name].add(batch["index"], expert_B)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        rows = trainer.datamodule.router_rows("test")  # type: ignore[attr-defined]
        num_sequences, documents = len(rows), torch.from_numpy(rows.documents())
        decisions = {name: one.gather(trainer, num_sequences) for name, one in self._decisions.items()}
        _check_complete(decisions, num_sequences)
        if trainer.is_global_zero:
            table = _module(pl_module).table
            assert table is not None, "the table is made before the test begins"
            routed_limit = trainer.datamodule.routed_limit  # type: ignore[attr-defined]
            verdict = make_verdict(decisions, table, document_N=documents, seed=self.seed, routed_limit=routed_limit)
            folder = Path(trainer.default_root_dir)
            write_tables(verdict, folder)
            save_confusion_matrix(verdict, folder / CONFUSION)
            save_expert_quality(verdict, folder / f"expert_{verdict.measure}.png")
            if (folder / "router").is_dir():
                write_card(folder / "router", verdict=verdict)
            _log(trainer, verdict, folder)
            print_verdict(verdict)


def _check_complete(decisions: Mapping[str, Tensor], num_sequences: int) -> None:
    missing = max(int((expert_N < 0).sum()) for expert_N in decisions.values())
    if missing:
        raise ValueError(
            f"The verdict needs a decision for each of {num_sequences} test sequences, but {missing} were not routed."
            " Run `test` without `trainer.limit_test_batches`."
        )


def _log(trainer: Trainer, verdict: Verdict, folder: Path) -> None:
    for logger in trainer.loggers:
        logger.log_metrics(flat_metrics(verdict))
        if isinstance(logger, WandbLogger):
            logger.log_image("figures", [str(folder / CONFUSION), str(folder / f"expert_{verdict.measure}.png")])
            columns, rows = verdict_table(verdict)
            logger.log_table("verdict", columns=columns, data=rows)


def _module(pl_module: LightningModule) -> RouterModule:
    assert isinstance(pl_module, RouterModule), "ReportVerdict is listed for RouterModule"
    return pl_module
