"""One stage of expert training, from its first or last checkpoint to the weights that become the expert."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import Logger
from lightning_utilities.core.rank_zero import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import AutoModelForCausalLM, PreTrainedModel

from ir3de.experts.recipe import ExpertRecipe, Stage
from ir3de.modules.expert_batches import Blocks, DrawOrder, EndlessBatches, cut_padding
from ir3de.modules.expert_training import PERPLEXITY, ExpertTraining
from ir3de.modules.progress import NamedProgress
from ir3de.modules.resume_point import BestPoint, ResumePoint, save_whole
from ir3de.types import Batch

LAST, BEST, FINAL = "last.ckpt", "best.ckpt", "final.ckpt"


@dataclass(frozen=True)
class Trained:
    """What a stage leaves: the kept ``model``, the step it is of, its validation perplexity by domain.

    ``steps`` were taken, ``loss`` is the last one and ``seconds`` are those of this call. ``other`` says which weights
    were not kept, ``last`` or ``best``, where they are others.
    """

    model: PreTrainedModel
    kept_step: int
    perplexity: dict[str, float]
    steps: int
    loss: float
    seconds: float
    other: Literal["last", "best"] | None


class ExpertStage:
    """One stage on its own trainer.

    Args:
        name: The trunk or a domain.
        recipe: The bank's recipe.
        stage: What this stage trains, and how long.
        train: Its training sequences, a split per domain.
        validation: Its validation sequences, by domain.
        order: Which of its rows come when.
        folder: Where its checkpoints are kept until it is done.
        accumulate: Batches of an optimizer step.
        make_trainer: Called by keyword with what the stage decides.
        loggers: Its loggers.
        shows_progress: Whether it has a progress bar.
    """

    def __init__(
        self,
        name: str,
        recipe: ExpertRecipe,
        stage: Stage,
        *,
        train: Sequence[Blocks],
        order: DrawOrder,
        validation: Mapping[str, Blocks],
        folder: Path,
        accumulate: int,
        make_trainer: Callable[..., Trainer],
        loggers: Sequence[Logger],
        shows_progress: bool,
    ) -> None:
        self._name = name
        self._recipe = recipe
        self._stage = stage
        self._train = train
        self._order = order
        self._validation = validation
        self._folder = folder
        every = recipe.validate_every_n_steps
        self._best = BestPoint(folder / BEST, monitor=PERPLEXITY)
        callbacks: list[Callback] = [
            ResumePoint(folder / LAST, every_n_steps=recipe.checkpoint_every_n_steps, validate_every_n_steps=every)
        ]
        if every is not None:
            callbacks.insert(0, self._best)
        patience = recipe.early_stopping_patience
        self._early = None if patience is None else EarlyStopping(PERPLEXITY, patience=patience, mode="min")
        if self._early is not None:
            callbacks.insert(0, self._early)
        if shows_progress:
            callbacks.append(NamedProgress(f"Training {name}"))
        during: dict[str, Any] = {}
        if every is not None:  # which Lightning counts in batches
            during = {"val_check_interval": every * accumulate, "check_val_every_n_epoch": None}
        self.trainer = make_trainer(
            max_epochs=-1,
            max_steps=stage.steps,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            callbacks=callbacks,
            logger=list(loggers) or False,
            **during,
        )

    def run(self, model: PreTrainedModel) -> Trained:
        """Train ``model`` in place, and return the weights that are to be kept, as a model on the CPU.

        Raises:
            RuntimeError: if something but early stopping stopped the stage.
        """
        stage, trainer, start = self._stage, self.trainer, time.perf_counter()
        last = self._folder / LAST
        resumed = last.is_file()
        how = ", from its last checkpoint" if resumed else ""
        rank_zero_info(f"Training `{self._name}`: {stage.steps} steps{how}.")
        with warnings.catch_warnings():
            # Blocks are gathered from memory; worker processes would only cost.
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            trainer.fit(
                self._module(model),
                self._training_loader(),
                None if self._recipe.validate_every_n_steps is None else self._validation_loaders(),
                ckpt_path=last if resumed else None,
                weights_only=True,
            )
            stopped_early = self._early is not None and self._early.wait_count >= self._early.patience
            if trainer.global_step < stage.steps and not stopped_early:
                raise RuntimeError(
                    f"`{self._name}` was stopped at step {trainer.global_step} of {stage.steps}."
                    " Run the same command again; it goes on from the last checkpoint."
                )
            steps, loss = trainer.global_step, float(trainer.callback_metrics["train/loss"])
            save_whole(trainer, self._folder / FINAL, weights_only=True)
            keeps_best = self._recipe.keep == "best"
            differs = self._best.value is not None and self._best.step != steps
            kept = self.weights("best" if keeps_best and differs else "last", model)
            measured = trainer.validate(self._module(kept), self._validation_loaders(), verbose=False)[0]
        return Trained(
            kept,
            self._best.step if keeps_best and differs else steps,
            {domain: float(measured[f"{PERPLEXITY}/{domain}"]) for domain in self._validation},
            steps,
            loss,
            round(time.perf_counter() - start, 1),
            None if not differs else "last" if keeps_best else "best",
        )

    def weights(self, kind: Literal["last", "best"], like: PreTrainedModel) -> PreTrainedModel:
        """Return a model with the weights of the last step or of the best validation, whatever the strategy was."""
        path = self._folder / (BEST if kind == "best" else FINAL)
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        with torch.random.fork_rng(devices=[]):
            model = AutoModelForCausalLM.from_config(like.config, attn_implementation="sdpa")
        model.load_state_dict({name.removeprefix("model."): value for name, value in state.items()}, strict=True)
        return model

    def _module(self, model: PreTrainedModel) -> ExpertTraining:
        recipe, stage = self._recipe, self._stage
        return ExpertTraining(
            model=model,
            learning_rate=stage.learning_rate,
            warmup_steps=stage.warmup_steps,
            total_steps=stage.steps,
            weight_decay=recipe.weight_decay,
            frozen=stage.frozen,
            gradient_checkpointing=recipe.gradient_checkpointing,
            compile=recipe.compile,
            domains=list(self._validation),
        )

    def _training_loader(self) -> DataLoader[Any]:
        trainer = self.trainer

        def place() -> tuple[int, int, int]:
            done = trainer.global_step * trainer.accumulate_grad_batches
            return done, trainer.global_rank, trainer.world_size

        batches = EndlessBatches(
            self._train,
            order=self._order,
            batch_size=self._recipe.batch_size,
            accumulate=trainer.accumulate_grad_batches,
            place=place,
        )
        return DataLoader(batches, batch_size=None)

    def _validation_loaders(self) -> list[DataLoader[Any]]:
        rows, batch_size = self._recipe.validation_sequences, max(1, self._recipe.batch_size // self.trainer.world_size)
        return [
            DataLoader(_ValidationBatches(split, rows, batch_size, self.trainer), batch_size=None)
            for split in self._validation.values()
        ]


class _ValidationBatches(Dataset[Batch]):
    """The first sequences of a split, as many batches on each process: one that is over is fully masked."""

    def __init__(self, split: Blocks, num_rows: int, batch_size: int, trainer: Trainer) -> None:
        rows = list(range(min(num_rows, len(split))))
        batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
        self._length = -(-len(batches) // trainer.world_size)
        self._split = split
        self._batches = batches[trainer.global_rank :: trainer.world_size]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, item: int) -> Batch:
        if item < len(self._batches):
            return cut_padding(self._split.__getitems__(self._batches[item]))
        nothing = self._split.__getitems__([0])
        return {**nothing, "attention_mask": torch.zeros_like(nothing["attention_mask"])}
