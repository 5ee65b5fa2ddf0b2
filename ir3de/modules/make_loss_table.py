"""The loss table of a bank: every sequence under every expert, cached by content, written as it goes, resumed."""

import shutil
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from lightning import Trainer
from lightning_utilities.core.rank_zero import rank_zero_info
from torch import Tensor

from ir3de.experts.bank import WEIGHT_AVERAGE, ExpertBank
from ir3de.experts.loss_table import LossTable, loss_table_key
from ir3de.experts.memory import free_bytes
from ir3de.modules.expert_batches import Blocks
from ir3de.modules.expert_losses import ExpertLosses
from ir3de.modules.loss_shards import SHARD_TOKENS, LossShards, SequenceLosses, shards_of, write_part
from ir3de.modules.progress import NamedProgress


def make_loss_table(
    bank: ExpertBank,
    dataset: Blocks,
    *,
    make_trainer: Callable[..., Trainer] = Trainer,
    cache_dir: Path,
    batch_size: int = 16,
    embeddings_layer: int | None = None,
    average: bool = True,
    shard_tokens: int = SHARD_TOKENS,
) -> LossTable:
    """Return the loss of each of a split's sequences under each of the bank's experts and the average of weights.

    The table is kept in ``cache_dir/losses/<key>.parquet`` and each member's column beside it, so that a bank that
    gained, lost or reordered experts computes what is new and nothing else. A column is written in shards as it is
    computed, and a run that was stopped goes on, with any number of processes: batches are the same for all. A key
    covers the sequences, the experts' weights and the precision. Every process returns the same table.

    Args:
        bank: The experts.
        dataset: The split.
        make_trainer: Called with Trainer settings; the user's own are its business.
        cache_dir: Where tables are kept, seen by all processes.
        batch_size: Sequences of a forward pass. It changes losses by rounding only and is not part of the key.
        embeddings_layer: Also keep each expert's mean hidden state of this layer, in ``cache_dir/losses/embeddings``.
        average: Whether to add the average of weights, where the experts share an architecture.
        shard_tokens: Tokens, with padding, after which losses are written.

    Raises:
        ValueError: if the split is empty, memory is too short, a loss is not finite, or a cached table is damaged.
    """
    if len(dataset) == 0:
        raise ValueError("Expected sequences to compute losses of, but the split is empty.")
    members = bank.members if average else bank.names
    if average and WEIGHT_AVERAGE not in members:
        rank_zero_info(f"The loss table has no average of weights: {bank.architectures_differ()}.")
    fingerprints = {name: bank.fingerprint(name) for name in bank.names}
    key = loss_table_key(
        data_fingerprint=dataset.fingerprint,
        expert_fingerprints=fingerprints,
        precision=bank.dtype,
        average=WEIGHT_AVERAGE in members,
    )
    folder = cache_dir / "losses"
    path = folder / f"{key}.parquet"
    batches = partial(shards_of, dataset, batch_size=batch_size, shard_tokens=shard_tokens)
    columns = _Columns(bank, dataset, batches, make_trainer, folder, embeddings_layer)
    if path.is_file() and not columns.missing(bank.names):
        return LossTable.load(path, key=key)
    parts = {name: columns.get(name) for name in members}
    table = LossTable(
        torch.cat([parts[name].nll_NE for name in bank.names], dim=1),
        parts[bank.names[0]].tokens_N,
        parts[bank.names[0]].domain_N,
        bank.names,
        key,
        parts[WEIGHT_AVERAGE].nll_NE[:, 0] if WEIGHT_AVERAGE in parts else None,
    )
    if columns.trainer.is_global_zero:
        table.save(path)
    return table


class _Columns:
    """One member's losses at a time, out of the cache where they are known."""

    def __init__(  # noqa: PLR0917 - private, called once
        self,
        bank: ExpertBank,
        dataset: Blocks,
        batches: Callable[[], list[list[list[int]]]],
        make_trainer: Callable[..., Trainer],
        folder: Path,
        layer: int | None,
    ) -> None:
        self._bank = bank
        self._dataset = dataset
        self._make_batches = batches
        self._make_trainer = make_trainer
        self._folder = folder
        self._layer = layer
        self._progress = NamedProgress("Losses")
        self._trainer: Trainer | None = None
        self._batches: list[list[list[int]]] = []

    @property
    def trainer(self) -> Trainer:
        """The trainer of all columns; making it settles where the experts will be."""
        if self._trainer is None:
            settings = {"logger": False, "enable_checkpointing": False, "use_distributed_sampler": False}
            plain = self._make_trainer(**settings)
            shown = plain.progress_bar_callback is not None
            self._trainer = self._make_trainer(**settings, callbacks=[self._progress]) if shown else plain
            rank_zero_info(self._bank.settle(free_bytes(self._trainer.strategy.root_device)))
        return self._trainer

    def missing(self, names: tuple[str, ...]) -> list[str]:
        """Return the experts whose embeddings are asked for and not there."""
        return [] if self._layer is None else [name for name in names if not self._embeddings(name).is_file()]

    def get(self, name: str) -> LossTable:
        """Return the table of one member alone."""
        key = self._key(name)
        path = self._folder / "columns" / f"{key}.parquet"
        layer = None if name == WEIGHT_AVERAGE else self._layer
        if path.is_file() and (layer is None or self._embeddings(name).is_file()):
            return LossTable.load(path, key=key)
        parts = path.with_suffix(".parts" if layer is None else f".layer{layer}.parts")
        losses = self._compute(name, parts, layer)
        column = LossTable(losses.nll_N[:, None], losses.tokens_N, self._domains(), ("",), key)
        if self.trainer.is_global_zero:
            if losses.embedding_ND is not None:
                write_part(self._embeddings(name), losses)
                rank_zero_info(f"The embeddings of `{name}` are in {self._embeddings(name)}")
            column.save(path)
        self.trainer.strategy.barrier("loss column")  # the others must not look for the next before this is there
        if self.trainer.is_global_zero:
            shutil.rmtree(parts, ignore_errors=True)
        return column

    def _compute(self, name: str, folder: Path, layer: int | None) -> SequenceLosses:
        trainer, shards = self.trainer, LossShards(folder)
        self._batches = self._batches or self._make_batches()  # for all columns
        known = len(shards.rows())
        kept = f", {known} are known" if known else ""
        rank_zero_info(f"Losses of {len(self._dataset)} sequences under {_named(name)}{kept}:")
        self._progress.name = f"Losses of {_named(name)}"
        module = ExpertLosses(
            model=self._bank.load(name),
            name=name,
            dataset=self._dataset,
            batches=self._batches,
            shards=shards,
            embeddings_layer=layer,
        )
        with warnings.catch_warnings():
            # Blocks are gathered from memory; worker processes would only cost.
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            trainer.predict(module, return_predictions=False)
        trainer.strategy.barrier("shards are written")
        return SequenceLosses.joined(shards.read()).of_split(len(self._dataset))

    def _key(self, name: str) -> str:
        return loss_table_key(
            data_fingerprint=self._dataset.fingerprint,
            expert_fingerprints={"": self._bank.fingerprint(name)},
            precision=self._bank.dtype,
        )

    def _embeddings(self, name: str) -> Path:
        return self._folder / "embeddings" / f"{self._key(name)}.layer{self._layer}.parquet"

    def _domains(self) -> Tensor:
        domain_N = torch.zeros(len(self._dataset), dtype=torch.int64)
        for start in range(0, len(self._dataset), 1024):
            batch = self._dataset.__getitems__(list(range(start, min(start + 1024, len(self._dataset)))))
            domain_N[batch["index"]] = batch["domain"]
        return domain_N


def _named(name: str) -> str:
    return "the average of weights" if name == WEIGHT_AVERAGE else f"`{name}`"
