"""The loss of sequences under one expert, as a LightningModule whose prediction writes them shard by shard."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from ir3de.functional.losses import next_token_nll, nll_of_logits, with_next
from ir3de.modules.expert_batches import Blocks, RowBatches
from ir3de.modules.loss_shards import LossShards, SequenceLosses
from ir3de.types import Batch


class ExpertLosses(LightningModule):
    """Prediction writes the summed loss and the target count of each sequence into ``shards``.

    Padding is never a target, and logits exist for a few hundred positions at a time.

    Args:
        model: The expert.
        name: What it is called in messages.
        dataset: The sequences.
        batches: The rows of each batch of each shard, see ``shards_of``; what is written already is left out.
        shards: Where the losses go.
        embeddings_layer: Also keep the mean hidden state of this layer; ``None`` keeps none.
    """

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        name: str,
        dataset: Blocks,
        batches: Sequence[Sequence[list[int]]],
        shards: LossShards,
        embeddings_layer: int | None = None,
    ) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # there may be fewer shards than processes
        self.model = model
        self._name = name
        self._dataset = dataset
        self._batches = batches
        self._shards = shards
        self._left: list[int] = []  # batches of each shard that this process has still to compute
        self._layer = embeddings_layer
        self._pending: list[SequenceLosses] = []
        self._head_is_all = False
        if embeddings_layer is not None:
            layers = int(model.config.num_hidden_layers)
            if not -layers - 1 <= embeddings_layer <= layers:
                raise ValueError(
                    f"Expected `experts.losses.embeddings_layer` from {-layers - 1} to {layers} for expert `{name}`,"
                    f" but got {embeddings_layer}."
                )

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return this process' part of the shards that are not written: asked for when the processes have started."""
        done = self._shards.rows()
        left = [shard for shard in self._batches if not all(row in done for rows in shard for row in rows)]
        self.trainer.strategy.barrier("shards are listed")  # before any process adds one
        mine = left[self.trainer.global_rank :: self.trainer.world_size]
        self._left = [len(shard) for shard in mine]
        return DataLoader(RowBatches(self._dataset, [rows for shard in mine for rows in shard]), batch_size=None)

    def on_predict_start(self) -> None:
        """Find out whether the expert's logits are its head of its hidden states; a few models do more."""
        ids_BT = torch.arange(min(8, self.model.config.vocab_size), device=self.device)[None]
        logits_BTV = self.model(input_ids=ids_BT, use_cache=False).logits
        hidden_BTD = hidden_states(self.model, ids_BT, torch.ones_like(ids_BT))
        head = self.model.get_output_embeddings()
        if hidden_BTD.shape[-1] == head.in_features:
            self._head_is_all = torch.allclose(head(hidden_BTD).float(), logits_BTV.float(), rtol=1e-3, atol=1e-3)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the batch's ``(B,)`` NLL, and write the shard if this was the last batch of it.

        Raises:
            ValueError: if a loss is not a finite number.
        """
        ids_BT, real_BT = batch["input_ids"], batch["attention_mask"]
        states = None
        if self._head_is_all or self._layer is not None:
            states = _base_output(self.model, ids_BT, real_BT, every_layer=self._layer is not None)
        if self._head_is_all and states is not None:
            outputs = states.last_hidden_state
        else:
            outputs = self.model(input_ids=ids_BT, attention_mask=real_BT.long(), use_cache=False).logits
        target_BT, counts_BT = ids_BT, real_BT
        if "next" in batch:
            target_BT, counts_BT = with_next(ids_BT, real_BT, batch["next"])
            outputs = pad(outputs, (0, 0, 0, 1))
        if self._head_is_all:
            nll_B, tokens_B = next_token_nll(outputs, self.model.get_output_embeddings(), target_BT, counts_BT)
        else:
            nll_B, tokens_B = nll_of_logits(outputs, target_BT, counts_BT)
        index_B, nll_B = batch["index"].cpu(), nll_B.cpu()
        if not bool(nll_B.isfinite().all()):
            row = int(index_B[~nll_B.isfinite()][0])
            raise ValueError(
                f"The loss of sequence {row} under expert `{self._name}` is not a number. Its weights overflow in"
                f" {self.model.dtype}, or are damaged: try `experts.losses.dtype: float32`, or train it again."
            )
        embedding_BD = None
        if self._layer is not None and states is not None:
            embedding_BD = _mean_over_tokens(states.hidden_states[self._layer], real_BT).cpu()
        self._pending.append(SequenceLosses(index_B, nll_B, tokens_B.cpu(), embedding_BD))
        if len(self._pending) == self._left[0]:
            self._shards.write(SequenceLosses.joined(self._pending))
            self._pending = []
            self._left.pop(0)
        return nll_B


def hidden_states(model: PreTrainedModel, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Tensor:
    """Return the ``(B, T, D)`` last hidden states of a causal language model; padding is on the right."""
    states: Tensor = _base_output(model, input_ids_BT, attention_mask_BT).last_hidden_state
    return states


def _base_output(model: PreTrainedModel, ids_BT: Tensor, mask_BT: Tensor, *, every_layer: bool = False) -> Any:
    # without a mask SDPA takes its causal kernel
    mask = {} if bool(mask_BT.all()) else {"attention_mask": mask_BT.long()}
    return model.base_model(input_ids=ids_BT, use_cache=False, output_hidden_states=every_layer, **mask)


def _mean_over_tokens(hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    total_BD = hidden_BTD.float().masked_fill(~mask_BT.bool()[..., None], 0).sum(dim=1)
    return total_BD / mask_BT.sum(dim=1, keepdim=True)
