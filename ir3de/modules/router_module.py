"""Any router, closed-form or gradient-trained, through fit, validate, test and predict."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning import Callback, LightningModule
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from ir3de.experts.loss_table import LossTable
from ir3de.experts.score_table import ScoreTable
from ir3de.metrics import RoutingConfusion
from ir3de.routers import Router
from ir3de.types import Batch, RoutingDecision

OptimizerCallable = Callable[[Iterable[Tensor]], Optimizer]


class RouterModule(LightningModule):
    """Carries a router; steps and logging only. A closed-form router is fitted by the callback ``FitRouter``.

    Args:
        router: The router to fit and evaluate.
        optimizer: Trains a gradient-trained router; a closed-form router takes none.
    """

    def __init__(self, *, router: Router, optimizer: OptimizerCallable | None = None) -> None:
        super().__init__()
        if router.closed_form and optimizer is not None:
            raise ValueError(f"{type(router).__name__} is solved in closed form and takes no `model.optimizer`.")
        if not router.closed_form and optimizer is None:
            raise ValueError(f"{type(router).__name__} is trained by gradient: set `model.optimizer`.")
        self.router = router
        self.optimizer = optimizer
        # Lightning's automatic optimization wants a loss from every step, and counting has none.
        self.automatic_optimization = not router.closed_form
        self.confusion: RoutingConfusion | None = None
        self.table: LossTable | ScoreTable | None = None  # of the test split, put here before ``test``

    def on_fit_start(self) -> None:
        """Refuse a closed-form fit without the callback that fits.

        Raises:
            ValueError: if there is none.
        """
        # by name, since callbacks are outside of this package
        present: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        names = {cls.__name__ for callback in present for cls in type(callback).__mro__}
        if self.router.closed_form and "FitRouter" not in names:
            raise ValueError(
                f"{type(self.router).__name__} is fitted by a callback that is not there."
                " List callbacks.FitRouter in `trainer.callbacks`."
            )

    def training_step(self, batch: Any) -> Tensor | None:
        """Return the cross entropy of the router's scores, or nothing where a callback adds up counts."""
        if self.router.closed_form:
            return None
        scores_BE = self.router(batch["input_ids"], batch["attention_mask"])
        loss = cross_entropy(scores_BE, batch["domain"])
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> Optimizer | None:
        return None if self.optimizer is None else self.optimizer(self.router.parameters())

    def on_validation_epoch_start(self) -> None:
        self._start()

    def validation_step(self, batch: Batch) -> None:
        if not self.trainer.sanity_checking:  # a closed-form router has seen no data yet
            self._score(batch)

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self._log("validation")

    def on_test_epoch_start(self) -> None:
        self._start()

    def test_step(self, batch: Batch) -> dict[str, RoutingDecision]:
        """Return the decisions; the callback ``ReportVerdict`` looks up what they cost."""
        return {"decision": self._score(batch)}

    def on_test_epoch_end(self) -> None:
        self._log("test")

    def predict_step(self, batch: Batch) -> RoutingDecision:
        return self.router.decide(batch["input_ids"], batch["attention_mask"])

    def _start(self) -> None:
        if self.router.expert_names:
            self.confusion = RoutingConfusion(num_domains=len(self.router.expert_names)).to(self.device)

    def _score(self, batch: Batch) -> RoutingDecision:
        decision = self.predict_step(batch)
        assert self.confusion is not None, "created when the epoch starts"
        if decision.names:
            self.confusion.update(decision.expert_B, batch["domain"])
        return decision

    def _log(self, stage: str) -> None:
        assert self.confusion is not None, "created when the epoch starts"
        for name, value in self.confusion.accuracy().items():
            self.log(f"{stage}/{name}", value.to(torch.float32), sync_dist=True)
