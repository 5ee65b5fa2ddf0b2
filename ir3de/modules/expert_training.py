"""Training one causal language model on the next token: steps, optimizer and schedule."""

import math
import time
from collections.abc import Sequence
from functools import partial

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel

from ir3de.functional.losses import next_token_nll
from ir3de.types import Batch

_FLOOR = 0.1  # the cosine ends at a tenth of the peak (arXiv 2606.06098)
_RATE_STEPS = 10  # steps between two readings of the clock, so that a GPU is not waited for at each


def warmup_cosine(step: int, *, warmup_steps: int, total_steps: int) -> float:
    """Return the factor on the peak learning rate at ``step`` (from 0): linear up, then a cosine down to a tenth.

    The last step of the warm-up is at the peak and the last step of all is at a tenth of it.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min(1.0, (step + 1 - warmup_steps) / max(1, total_steps - warmup_steps))
    return _FLOOR + (1 - _FLOOR) * 0.5 * (1 + math.cos(math.pi * progress))


class ExpertTraining(LightningModule):
    """Next-token training of a Llama with AdamW (betas 0.9 and 0.95), a warm-up and a cosine.

    The loss is the mean over a process' real target tokens, in nats; padding is never a target. Logs
    ``train/loss``, ``train/learning_rate`` and ``train/tokens_per_second`` (real tokens, all processes).

    Args:
        model: The model to train; its weights are changed in place.
        learning_rate: The peak.
        warmup_steps: Optimizer steps of the linear warm-up.
        total_steps: Optimizer steps of the whole stage.
        weight_decay: On matrices; vectors have none.
        frozen: Parts of parameter names that are not trained, e.g. ``self_attn``.

    Raises:
        ValueError: if a part of a name fits no parameter, or nothing is left to train.
    """

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        learning_rate: float,
        warmup_steps: int,
        total_steps: int,
        weight_decay: float = 0.1,
        frozen: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.model = model.train()  # `from_pretrained` leaves it in eval mode
        self.learning_rate = learning_rate
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps
        self.weight_decay = weight_decay
        _freeze(model, frozen)
        self._tokens: Tensor | int = 0
        self._since = 0.0

    def on_train_start(self) -> None:
        """Start the clock."""
        self._tokens, self._since = 0, time.perf_counter()

    def training_step(self, batch: Batch) -> Tensor:
        """Return the mean loss of the batch's real target tokens.

        Raises:
            ValueError: if the sequences are longer than the model's context.
        """
        length, context_length = batch["input_ids"].shape[1], self.model.config.max_position_embeddings
        if length > context_length:
            raise ValueError(
                f"Expected sequences of at most {context_length} tokens (`experts.module.context_length`), but got"
                f" {length}. Raise it, or shorten the data's blocks."
            )
        hidden_BTD = hidden_states(self.model, batch["input_ids"], batch["attention_mask"])
        head_VD = self.model.get_output_embeddings().weight
        nll_B, tokens_B = next_token_nll(hidden_BTD, head_VD, batch["input_ids"], batch["attention_mask"])
        loss = nll_B.sum() / tokens_B.sum().clamp(min=1)
        self.log("train/loss", loss.detach(), prog_bar=True)
        self.log("train/learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"])
        return loss

    def on_train_batch_end(self, outputs: object, batch: Batch, batch_idx: int) -> None:
        """Log the rate at which tokens go by."""
        self._tokens = self._tokens + batch["attention_mask"].sum()
        if self.global_step % _RATE_STEPS == 0:
            now = time.perf_counter()
            rate = int(self._tokens) * self.trainer.world_size / max(now - self._since, 1e-9)
            self.log("train/tokens_per_second", rate, prog_bar=True)
            self._tokens, self._since = 0, now

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW in two groups, fused where Lightning allows it."""
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        groups = [
            {"params": [one for one in trained if one.ndim >= 2], "weight_decay": self.weight_decay},
            {"params": [one for one in trained if one.ndim < 2], "weight_decay": 0.0},
        ]
        # Under mixed precision Lightning refuses to clip a fused optimizer's gradients, even in bfloat16.
        fused = not str(self.trainer.precision).endswith("-mixed")
        optimizer = AdamW(groups, lr=self.learning_rate, betas=(0.9, 0.95), fused=fused)
        factor = partial(warmup_cosine, warmup_steps=self.warmup_steps, total_steps=self.total_steps)
        schedule = LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def hidden_states(model: PreTrainedModel, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Tensor:
    """Return the ``(B, T, D)`` last hidden states of a causal language model; padding is on the right."""
    if bool(attention_mask_BT.all()):  # without a mask SDPA takes its causal kernel
        return model.base_model(input_ids=input_ids_BT, use_cache=False).last_hidden_state
    return model.base_model(
        input_ids=input_ids_BT, attention_mask=attention_mask_BT.long(), use_cache=False
    ).last_hidden_state


def _freeze(model: torch.nn.Module, frozen: Sequence[str]) -> None:
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    for part in frozen:
        matching = [parameter for name, parameter in model.named_parameters() if part in name]
        if not matching:
            names = sorted({name.rsplit(".", 2)[-2] for name, _ in model.named_parameters()})
            raise ValueError(f"`frozen: {part}` fits no parameter of the model. Its parts are {', '.join(names)}.")
        for parameter in matching:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"`frozen: {list(frozen)}` leaves nothing to train.")
