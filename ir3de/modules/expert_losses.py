"""The loss of every sequence under every expert of a bank, through a Lightning Trainer, cached by content."""

import hashlib
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning_utilities.core.rank_zero import rank_zero_info
from torch import Tensor
from torch.nn.functional import linear
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from ir3de.experts.bank import ExpertBank
from ir3de.experts.loss_table import LossTable, loss_table_key
from ir3de.functional.losses import next_token_nll, nll_of_logits
from ir3de.modules.expert_batches import Blocks, RowBatches
from ir3de.modules.expert_training import hidden_states
from ir3de.types import Batch


class ExpertLosses(LightningModule):
    """Prediction fills ``nll_N`` (float64, nats) and ``tokens_N`` (int64) at each sequence's ``index``.

    Each process predicts its own sequences; at the end of prediction every process has all.

    Args:
        model: The expert.
        num_rows: Sequences of the split.
    """

    def __init__(self, *, model: PreTrainedModel, num_rows: int) -> None:
        super().__init__()
        self.model = model
        self.nll_N = torch.zeros(num_rows, dtype=torch.float64)
        self.tokens_N = torch.zeros(num_rows, dtype=torch.int64)
        self._seen_N = torch.zeros(num_rows, dtype=torch.int64)
        self._head_is_a_matrix = False

    def on_predict_start(self) -> None:
        """Find out whether the expert's logits are its hidden states times a matrix; a few models do more."""
        ids_BT = torch.arange(min(8, self.model.config.vocab_size), device=self.device)[None]
        head = self.model.get_output_embeddings()
        logits_BTV = self.model(input_ids=ids_BT, use_cache=False).logits
        hidden_BTD = hidden_states(self.model, ids_BT, torch.ones_like(ids_BT))
        if hidden_BTD.shape[-1] == head.weight.shape[-1]:
            product_BTV = linear(hidden_BTD, head.weight)
            self._head_is_a_matrix = torch.allclose(product_BTV.float(), logits_BTV.float(), rtol=1e-3, atol=1e-3)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Write the batch's sums to their rows, and return its ``(B,)`` NLL."""
        ids_BT, real_BT = batch["input_ids"], batch["attention_mask"]
        if self._head_is_a_matrix:
            head_VD = self.model.get_output_embeddings().weight
            nll_B, tokens_B = next_token_nll(hidden_states(self.model, ids_BT, real_BT), head_VD, ids_BT, real_BT)
        else:
            logits_BTV = self.model(input_ids=ids_BT, attention_mask=real_BT.long(), use_cache=False).logits
            nll_B, tokens_B = nll_of_logits(logits_BTV, ids_BT, real_BT)
        index_B = batch["index"].cpu()
        self.nll_N[index_B] = nll_B.cpu()
        self.tokens_N[index_B] = tokens_B.cpu()
        self._seen_N[index_B] += 1
        return nll_B

    def on_predict_epoch_end(self) -> None:
        """Add up the processes' parts, which is exact: each row has one summand that is not zero."""
        if self.trainer.world_size > 1:
            self.nll_N, self.tokens_N = self._summed(self.nll_N), self._summed(self.tokens_N)
            self._seen_N = self._summed(self._seen_N)
        # Lightning's samplers repeat rows in `fit` and `test`, but not in `predict`.
        assert bool((self._seen_N == 1).all()), "a sequence was not predicted exactly once"

    def _summed(self, values_N: Tensor) -> Tensor:
        total_N: Any = self.trainer.strategy.reduce(values_N.clone().to(self.device), reduce_op="sum")
        return total_N.cpu()


def sequence_losses(
    model: PreTrainedModel, split: Blocks, *, trainer: Trainer, batch_size: int, num_rows: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return the ``(N,)`` float64 NLL in nats and int64 target count of each of a split's first ``num_rows`` rows.

    Sequences of similar length share a batch, the longest first, so that little padding is computed and memory
    that is short runs out at once.
    """
    num_rows = len(split) if num_rows is None else min(num_rows, len(split))
    module = ExpertLosses(model=model, num_rows=num_rows)
    rows = rows_by_length(split, num_rows=num_rows, batch_size=batch_size)
    loader = DataLoader(RowBatches(split, rows), batch_size=None)
    with warnings.catch_warnings():
        # Blocks are gathered from memory; worker processes would only cost.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        trainer.predict(module, loader, return_predictions=False)
    return module.nll_N, module.tokens_N


def rows_by_length(split: Blocks, *, num_rows: int, batch_size: int) -> list[list[int]]:
    """Return the rows of each batch, sorted by length, the longest first; equal lengths keep their order."""
    if batch_size < 1:
        raise ValueError(f"Expected `batch_size` to be at least 1, but got {batch_size}.")
    lengths = np.zeros(num_rows, dtype=np.int64)
    for start in range(0, num_rows, 1024):
        batch = split.__getitems__(list(range(start, min(start + 1024, num_rows))))
        lengths[batch["index"].numpy()] = batch["attention_mask"].sum(1).numpy()
    order = np.argsort(-lengths, kind="stable").tolist()
    return [order[start : start + batch_size] for start in range(0, num_rows, batch_size)]


def make_loss_table(
    bank: ExpertBank,
    dataset: Blocks,
    *,
    make_trainer: Callable[..., Trainer] = Trainer,
    cache_dir: Path,
    batch_size: int = 16,
    average: bool | None = None,
) -> LossTable:
    """Return the loss of each of a split's sequences under each of the bank's experts and the average of weights.

    The table is kept in ``cache_dir/losses/<key>.parquet`` and each expert's column beside it, so that a bank that
    gained, lost or reordered experts computes what is new and nothing else, and so does a run that was stopped.
    A key covers the sequences, the experts' weights and the precision. Every process returns the same table.

    Args:
        bank: The experts.
        dataset: The split.
        make_trainer: Called with Trainer settings; the user's own are its business.
        cache_dir: Where tables are kept.
        batch_size: Sequences of a forward pass. It changes losses by rounding only and is not part of the key.
        average: Whether to add the average of weights; ``None`` means if the experts share an architecture.

    Raises:
        ValueError: if the split is empty, a cached table is damaged, or ``average`` is asked of experts that differ.
    """
    if len(dataset) == 0:
        raise ValueError("Expected sequences to compute losses of, but the split is empty.")
    if average is None:
        difference = bank.architectures_differ()
        average = difference is None
        if not average:
            rank_zero_info(f"The loss table has no average of weights: {difference}.")
    trainer = make_trainer(logger=False, enable_checkpointing=False)
    fingerprints = {name: bank.fingerprint(name) for name in bank.names}
    columns = _Columns(dataset, trainer, cache_dir / "losses", batch_size, f"{bank.dtype}, {trainer.precision}")
    key = loss_table_key(
        data_fingerprint=dataset.fingerprint,
        expert_fingerprints=fingerprints,
        precision=columns.precision,
        average=average,
    )
    path = cache_dir / "losses" / f"{key}.parquet"
    if path.is_file():
        return LossTable.load(path, key=key)

    parts = [columns.get(name, fingerprints[name], partial(bank.load, name)) for name in bank.names]
    average_nll_N: Tensor | None = None
    if average:
        whole = hashlib.sha256(b"average of weights:" + " ".join(fingerprints.values()).encode()).hexdigest()
        average_nll_N = columns.get("the average of weights", whole, bank.average).nll_NE[:, 0]
    table = LossTable(
        torch.cat([part.nll_NE for part in parts], dim=1),
        parts[0].tokens_N,
        parts[0].domain_N,
        bank.names,
        key,
        average_nll_N,
    )
    if trainer.is_global_zero:
        table.save(path)
    return table


class _Columns:
    """One model's losses at a time, out of the cache where they are known."""

    def __init__(self, dataset: Blocks, trainer: Trainer, folder: Path, batch_size: int, precision: str) -> None:
        self._dataset = dataset
        self._trainer = trainer
        self._folder = folder
        self._batch_size = batch_size
        self.precision = precision

    def get(self, name: str, fingerprint: str, load: Callable[[], PreTrainedModel]) -> LossTable:
        """Return the table of one model alone."""
        key = loss_table_key(
            data_fingerprint=self._dataset.fingerprint,
            expert_fingerprints={"": fingerprint},
            precision=self.precision,
        )
        path = self._folder / "columns" / f"{key}.parquet"
        if path.is_file():
            return LossTable.load(path, key=key)
        rank_zero_info(f"Losses of {len(self._dataset)} sequences under {name}:")
        nll_N, tokens_N = sequence_losses(load(), self._dataset, trainer=self._trainer, batch_size=self._batch_size)
        column = LossTable(nll_N[:, None], tokens_N, self._domains(), ("",), key)
        if self._trainer.is_global_zero:
            column.save(path)
        self._trainer.strategy.barrier("loss column")  # the others must not look for the next one before this is there
        return column

    def _domains(self) -> Tensor:
        domain_N = torch.zeros(len(self._dataset), dtype=torch.int64)
        for start in range(0, len(self._dataset), 1024):
            batch = self._dataset.__getitems__(list(range(start, min(start + 1024, len(self._dataset)))))
            domain_N[batch["index"]] = batch["domain"]
        return domain_N
