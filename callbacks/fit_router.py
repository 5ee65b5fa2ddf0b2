"""Fits a closed-form router inside ``fit``: counts each batch, reduces over ranks, solves at the end."""

from typing import Any

from lightning import Callback, LightningModule, Trainer

from ir3de.modules.router_module import RouterModule
from ir3de.routers import TokenTableRouter
from ir3de.statistics.token_counts import TokenCounts
from ir3de.types import Batch


class FitRouter(Callback):
    """Counts tokens per domain and solves the router from them; a gradient-trained router is left to its optimizer.

    ``total`` is what all ranks counted, and is saved with checkpoints; ``pending`` is this rank's, not yet reduced.
    """

    def __init__(self) -> None:
        self._total: TokenCounts | None = None
        self._pending: TokenCounts | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what would miscount, before any data are read.

        Raises:
            ValueError: if rows would be counted more than once, or validation would not see the router.
        """
        if _router(pl_module) is None:
            return
        if trainer.max_epochs != 1:
            raise ValueError(
                f"Expected `trainer.max_epochs` to be 1, since FitRouter counts each document once an epoch, but got"
                f" {trainer.max_epochs}. Set `trainer.max_epochs: 1`."
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        router = _router(pl_module)
        if router is not None:
            names, tokenizer = trainer.datamodule.domain_names, router.tokenizer  # type: ignore[attr-defined]
            zeros = TokenCounts.zeros(names, vocab_size=tokenizer.vocab_size, tokenizer=tokenizer.fingerprint)
            self._pending, self._total = zeros, None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if self._pending is not None:
            self._pending.count_(batch["input_ids"].cpu(), batch["attention_mask"].cpu(), batch["domain"].cpu())

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._fit(trainer, pl_module)  # precedes on_train_epoch_end, so that validation sees the router

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._fit(trainer, pl_module)  # nothing pending if validation ran

    def state_dict(self) -> dict[str, Any]:
        """Return the reduced counts as plain values, which load with ``weights_only=True``."""
        return {} if self._total is None else self._total.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict:
            self._total = TokenCounts.from_state(state_dict)

    def _fit(self, trainer: Trainer, pl_module: LightningModule) -> None:
        router = _router(pl_module)
        if router is None or self._pending is None:
            return
        mine, self._pending = self._pending, None
        # the strategy reduces in place, on its own device
        counts_EV = trainer.strategy.reduce(mine.counts_EV.clone().to(pl_module.device), reduce_op="sum")
        self._total = TokenCounts(mine.names, counts_EV.cpu(), mine.tokenizer)
        router.fit(self._total)
        for name, tokens in zip(mine.names, self._total.tokens_E.tolist(), strict=True):
            pl_module.logger and pl_module.logger.log_metrics({f"fit/tokens/{name}": tokens})


def _router(pl_module: LightningModule) -> TokenTableRouter | None:
    assert isinstance(pl_module, RouterModule), "FitRouter is listed for RouterModule"
    return pl_module.router if isinstance(pl_module.router, TokenTableRouter) else None
