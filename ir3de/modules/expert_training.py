"""Training one causal language model on the next token: steps, optimizer, schedule, and what is logged."""

import math
import resource
import sys
import time
from collections.abc import Sequence
from functools import partial

import torch
from lightning import LightningModule
from lightning.fabric.utilities.throughput import get_available_flops
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel

from ir3de.functional.flops import training_flops_per_token
from ir3de.functional.losses import next_token_nll
from ir3de.modules.expert_batches import TrainingBatch
from ir3de.modules.expert_losses import hidden_states
from ir3de.types import Batch

PERPLEXITY = "validation/perplexity"
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

    The loss is the mean over the real target tokens of an optimizer step, in nats, however they lie in accumulated
    batches and on processes; padding is never a target. Logs ``train/loss``, ``train/learning_rate``, and every ten
    steps ``train/tokens_per_second`` (real tokens, all processes), ``train/memory_gib`` (the process' peak, on its
    device) and, where the device's peak is known, ``train/model_flop_utilization`` (0 to 1). Validation logs
    ``validation/perplexity/<domain>`` and ``validation/perplexity``, their geometric mean.

    Args:
        model: The model to train; its weights are changed in place.
        learning_rate: The peak.
        warmup_steps: Optimizer steps of the linear warm-up.
        total_steps: Optimizer steps of the whole stage.
        weight_decay: On matrices; vectors have none.
        frozen: Parts of parameter names that are not trained, e.g. ``self_attn``.
        gradient_checkpointing: Compute activations again in the backward pass.
        compile: Compile the model with torch.compile.
        domains: The domains of the validation loaders, in their order.

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
        gradient_checkpointing: bool = False,
        compile: bool = False,
        domains: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.model = model.train()  # `from_pretrained` leaves it in eval mode
        self.learning_rate = learning_rate
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps
        self.weight_decay = weight_decay
        _freeze(model, frozen)
        if gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if compile:
            model.base_model.compile()
        self._domains = list(domains)
        self._vectors = {name for name, one in self.named_parameters() if one.ndim < 2}  # FSDP flattens them all
        self._tokens: Tensor | int = 0
        self._since = 0.0
        self._step_nll: Tensor | float = 0.0
        self._validation_D2 = torch.zeros(len(domains), 2, dtype=torch.float64)

    def on_train_start(self) -> None:
        """Start the clock."""
        self._tokens, self._since, self._step_nll = 0, time.perf_counter(), 0.0

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        """Return the batch's part of the optimizer step's mean loss.

        Raises:
            ValueError: if the sequences are longer than the model's context.
        """
        length, context_length = batch["input_ids"].shape[1], self.model.config.max_position_embeddings
        if length > context_length:
            raise ValueError(
                f"Expected sequences of at most {context_length} tokens (`experts.module.context_length`), but got"
                f" {length}. Raise it, or shorten the data's blocks."
            )
        nll_B, _ = self._nll(batch)
        # Lightning divides by the accumulated batches, and DDP averages over processes.
        parts = self.trainer.accumulate_grad_batches * self.trainer.world_size
        scale = parts / batch["step_targets"].clamp(min=1)
        self._step_nll = self._step_nll + nll_B.detach().sum()
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0:
            mean = self._step_nll * self.trainer.world_size / batch["step_targets"].clamp(min=1)
            self.log("train/loss", mean, prog_bar=True, sync_dist=self.trainer.world_size > 1)
            self.log("train/learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"])
            self._step_nll = 0.0
        return nll_B.sum() * scale

    def on_train_batch_end(self, outputs: object, batch: Batch, batch_idx: int) -> None:
        """Log the rate at which tokens go by, and what that is of the device's peak."""
        self._tokens = self._tokens + batch["attention_mask"].sum()
        if self.global_step % _RATE_STEPS or (batch_idx + 1) % self.trainer.accumulate_grad_batches:
            return
        now = time.perf_counter()
        rate = int(self._tokens) / max(now - self._since, 1e-9)
        self._tokens, self._since = 0, now
        self.log("train/tokens_per_second", rate * self.trainer.world_size, prog_bar=True)
        self.log("train/memory_gib", _peak_memory(self.device) / 2**30)
        peak = get_available_flops(self.device, _dtype(str(self.trainer.precision)))
        if peak is not None:
            config, length = self.model.config, batch["input_ids"].shape[1]
            shape = {"layers": config.num_hidden_layers, "width": config.hidden_size, "length": length}
            self.log("train/model_flop_utilization", rate * training_flops_per_token(self.model, **shape) / peak)

    def on_validation_epoch_start(self) -> None:
        """Forget the last measurement."""
        self._validation_D2 = torch.zeros(len(self._domains), 2, dtype=torch.float64)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add up the loss and the targets of a domain's sequences."""
        nll_B, tokens_B = self._nll(batch)
        self._validation_D2[dataloader_idx] += torch.stack([nll_B.sum().cpu(), tokens_B.sum().cpu().double()])

    def on_validation_epoch_end(self) -> None:
        """Log each domain's perplexity, over all processes, and the geometric mean of them."""
        total_D2 = self.trainer.strategy.reduce(self._validation_D2.to(self.device), reduce_op="sum").cpu()
        mean_D = total_D2[:, 0] / total_D2[:, 1].clamp(min=1)
        for domain, mean in zip(self._domains, mean_D.tolist(), strict=True):
            self.log(f"{PERPLEXITY}/{domain}", math.exp(mean))
        self.log(PERPLEXITY, math.exp(float(mean_D.mean())), prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW in two groups, fused where Lightning allows it."""
        trained = [
            (name.replace("_fsdp_wrapped_module.", ""), one)
            for name, one in self.named_parameters()
            if one.requires_grad
        ]
        groups = [
            {"params": [one for name, one in trained if name not in self._vectors], "weight_decay": self.weight_decay},
            {"params": [one for name, one in trained if name in self._vectors], "weight_decay": 0.0},
        ]
        # Under mixed precision Lightning refuses to clip a fused optimizer's gradients, even in bfloat16.
        fused = not str(self.trainer.precision).endswith("-mixed")
        optimizer = AdamW(groups, lr=self.learning_rate, betas=(0.9, 0.95), fused=fused)
        factor = partial(warmup_cosine, warmup_steps=self.warmup_steps, total_steps=self.total_steps)
        schedule = LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _nll(self, batch: Batch) -> tuple[Tensor, Tensor]:
        hidden_BTD = hidden_states(self.model, batch["input_ids"], batch["attention_mask"])
        return next_token_nll(
            hidden_BTD, self.model.get_output_embeddings(), batch["input_ids"], batch["attention_mask"]
        )


def _peak_memory(device: torch.device) -> int:
    """The bytes that this process has needed at most, on a GPU or in main memory."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, kilobytes on Linux


def _dtype(precision: str) -> torch.dtype:
    return torch.bfloat16 if precision.startswith("bf16") else torch.half if "16" in precision else torch.float32


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
