"""Any router, closed-form or gradient-trained, through fit, validate, test and predict."""

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from lightning import Callback, LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ir3de.experts.loss_table import LossTable
from ir3de.experts.score_table import ScoreTable
from ir3de.metrics import RoutingConfusion
from ir3de.modules.schedule import WarmupCosine
from ir3de.routers import ClosedFormRouter, MoDEMRouter, Router
from ir3de.types import Batch, RoutingDecision

OptimizerCallable = Callable[[Iterable[Tensor]], Optimizer]
LRSchedulerCallable = Callable[[Optimizer], LRScheduler]


class RouterModule(LightningModule):
    """Carries a router; steps and logging only. A closed-form router is fitted by the callback ``FitRouter``.

    Args:
        router: The router to fit and evaluate.
        optimizer: Trains a gradient-trained router; a closed-form router takes none.
        lr_scheduler: Sets the optimizer's learning rate, stepped once an epoch (`WarmupCosine`: with the optimizer);
            null leaves it as it is.
        gradient_clip_val: The largest norm of a gradient-trained router's gradient; null bounds none. The router has it
            and not the trainer, which serves routers without a gradient, too.
    """

    def __init__(
        self,
        *,
        router: Router,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        gradient_clip_val: float | None = None,
    ) -> None:
        super().__init__()
        if gradient_clip_val is not None and gradient_clip_val <= 0:
            raise ValueError(f"Expected `model.gradient_clip_val` above 0, or null, but got {gradient_clip_val}.")
        if router.closed_form and gradient_clip_val is not None:
            raise ValueError(f"{type(router).__name__} is solved in closed form: there is no gradient to clip.")
        if lr_scheduler is not None and optimizer is None:
            raise ValueError("`model.lr_scheduler` needs `model.optimizer`, whose learning rate it sets.")
        if router.closed_form and optimizer is not None:
            raise ValueError(f"{type(router).__name__} is solved in closed form and takes no `model.optimizer`.")
        if not router.closed_form and optimizer is None:
            raise ValueError(f"{type(router).__name__} is trained by gradient: set `model.optimizer`.")
        self.router = router
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.gradient_clip_val = gradient_clip_val
        # Lightning's automatic optimization wants a loss from every step, and counting has none.
        self.automatic_optimization = not router.closed_form
        self.confusion: RoutingConfusion | None = None
        self.table: LossTable | ScoreTable | None = None  # of the test split, put here before ``test``

    def setup(self, stage: str) -> None:
        """Let a router that no callback fits begin with the data module's domains."""
        if stage == "fit" and not isinstance(self.router, ClosedFormRouter) and not self.router.expert_names:
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            domain_N = torch.from_numpy(data.sequences("train").domains())
            self.router.begin(data.domain_names, torch.bincount(domain_N, minlength=data.num_domains))
            if data.faults.freeze_pooler and isinstance(self.router, MoDEMRouter):
                self.router.freeze_pooler()

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
        real_B = batch["index"] >= 0  # rows that only even out the processes weigh nothing
        scores_BE = self.router.score_batch(cast(Batch, {key: value[real_B] for key, value in batch.items()}))
        weights_E = getattr(self.router, "class_weights_E", None)
        weights_E = None if weights_E is None else weights_E.to(scores_BE)
        summed = cross_entropy(scores_BE, batch["domain"][real_B], weight=weights_E, reduction="sum")
        # Processes average their gradients: each divides by its share of all rows, whatever it has itself.
        rows = self.trainer.strategy.reduce(real_B.sum().float(), reduce_op="sum")
        loss: Tensor = summed * self.trainer.world_size / rows
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        if self.optimizer is None:
            return None
        optimizer = self.optimizer(parameter for parameter in self.router.parameters() if parameter.requires_grad)
        if self.lr_scheduler is None:
            return optimizer
        scheduler = self.lr_scheduler(optimizer)
        if not isinstance(scheduler, WarmupCosine):
            return [optimizer], [scheduler]
        if scheduler.total_steps is None:
            scheduler.total_steps = int(self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the router's own bound; the trainer's holds where the router has none."""
        self.clip_gradients(optimizer, self.gradient_clip_val or gradient_clip_val, gradient_clip_algorithm)

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
        return self.router.decide_batch(batch)

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
