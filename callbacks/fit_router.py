"""Fits a closed-form router inside ``fit``: adds up counts, reduces them over ranks, solves on rank 0."""

from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning_utilities.core.rank_zero import rank_zero_info
from torch import Tensor

from ir3de.modules.router_module import RouterModule
from ir3de.routers import ClosedFormRouter
from ir3de.routers.closed_form import Accumulator


class FitRouter(Callback):
    """Solves the router from the training text's statistics; a gradient-trained router is left to its optimizer.

    A closed-form router is fitted in one epoch, however many `trainer.max_epochs` allows. Counts come shard by shard
    and are kept in the data module's cache, so that a run that was killed goes on where it was, on any number of
    processes. Features in context come from batches of sequences.
    """

    def __init__(self) -> None:
        self._pending: Accumulator[Any] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Ask the data module for counts, and refuse what would leave text out.

        Raises:
            ValueError: if there is only a part of an epoch.
        """
        router = _router(pl_module)
        if stage == "fit" and pl_module.router.closed_form:  # type: ignore[union-attr]
            trainer.fit_loop.max_epochs = 1
        if stage != "fit" or router is None:
            return
        if trainer.limit_train_batches != 1.0:
            raise ValueError(
                f"Expected `trainer.limit_train_batches` to be 1.0, since FitRouter counts all training text, but got"
                f" {trainer.limit_train_batches}. Give `data.domains` less text instead."
            )
        trainer.datamodule.counts_training = router.counts_training  # type: ignore[attr-defined]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        router = _router(pl_module)
        if router is not None and router.counts_training:  # before a worker counts anything
            shards = trainer.datamodule.counted_shards()  # type: ignore[attr-defined]
            if kept := shards.num_kept():
                rank_zero_info(f"{kept} of {len(shards)} shards have been counted before")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        router = _router(pl_module)
        if router is not None:
            self._pending = router.accumulator(trainer.datamodule)  # type: ignore[attr-defined]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._pending is not None:
            self._pending.add(batch)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._fit(trainer, pl_module)  # precedes on_train_epoch_end, so that validation sees the router

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._fit(trainer, pl_module)  # nothing pending if validation ran

    def _fit(self, trainer: Trainer, pl_module: LightningModule) -> None:
        router = _router(pl_module)
        if router is None or self._pending is None:
            return
        mine, self._pending = self._pending, None

        def reduce(counts: Tensor) -> Tensor:  # the strategy reduces in place, on its own device
            total: Tensor = trainer.strategy.reduce(counts.clone().to(pl_module.device), reduce_op="sum")
            return total.cpu()

        statistics = mine.total(reduce, world_size=trainer.world_size)
        if trainer.is_global_zero:
            router.fit(statistics)
        solved = (router.tensors(), router.chosen(), router.scored_pairs()) if trainer.is_global_zero else None
        solved = trainer.strategy.broadcast(solved)
        assert solved is not None, "rank 0 sends what it solved"
        if not trainer.is_global_zero:
            router.adopt(statistics, *solved)
        for name, share in statistics.shares.items():
            pl_module.logger and pl_module.logger.log_metrics({f"fit/tokens/{name}": share.tokens})


def _router(pl_module: LightningModule) -> ClosedFormRouter[Any] | None:
    assert isinstance(pl_module, RouterModule), "FitRouter is listed for RouterModule"
    return pl_module.router if isinstance(pl_module.router, ClosedFormRouter) else None
