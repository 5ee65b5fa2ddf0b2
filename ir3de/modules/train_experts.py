"""Train a bank of experts: the trunk, then a branch per domain, each stage resumable and saved whole."""

import hashlib
import math
import os
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning_utilities.core.rank_zero import rank_zero_info
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, PreTrainedModel

from ir3de.experts.bank import weights_fingerprint
from ir3de.experts.presets import llama_config
from ir3de.experts.recipe import ExpertRecipe, Stage
from ir3de.experts.training_record import TRAINING_RECORD, as_json, check_same, read_record
from ir3de.files import replace_file, replace_folder
from ir3de.modules.expert_batches import Blocks, DrawOrder, EndlessBatches
from ir3de.modules.expert_losses import sequence_losses
from ir3de.modules.expert_training import ExpertTraining
from ir3de.modules.resume_point import ResumePoint
from ir3de.pretrained.tokenizer import TextTokenizer

__all__ = ["ExpertRecipe", "Stage", "stage_seed", "train_experts"]

TRUNK = "trunk"
# Settings of the Trainer that decide the weights, and so belong to an expert's identity.
_NUMERIC_SETTINGS = ("precision", "gradient_clip_val", "gradient_clip_algorithm", "accumulate_grad_batches")


def train_experts(
    recipe: ExpertRecipe,
    *,
    train: Mapping[str, Blocks],
    validation: Mapping[str, Blocks],
    tokenizer: TextTokenizer,
    folder: Path,
    make_trainer: Callable[..., Trainer] = Trainer,
    make_logger: Callable[[str], Logger] | None = None,
    only: str | None = None,
) -> None:
    """Train what is missing of a bank: ``folder/trunk`` and ``folder/<domain>``, transformers' own format.

    A finished expert is not trained again. A stopped stage goes on from ``folder/.<stage>/last.ckpt`` and ends with
    the weights of an uninterrupted run (the same bits on a CPU). A domain that is new to a finished trunk branches
    off it as the others did.

    Args:
        recipe: What to train, and for how long.
        train: Training sequences by domain.
        validation: Validation sequences by domain, which measure the perplexity in ``training.json``.
        tokenizer: Saved with each expert.
        folder: Where the bank is.
        make_trainer: Called by keyword with what a stage decides (``max_steps``, ``max_epochs``, ``callbacks``,
            ``logger``); the user's settings (``accelerator``, ``precision``, ``gradient_clip_val``) are its own.
        make_logger: Called with the stage's name; without it a CSV file is written to ``folder/logs``.
        only: Train this domain's expert (and the trunk, where it is missing) and no other.

    Raises:
        ValueError: if a domain's name or data cannot be used, or the folder holds experts trained differently.
    """
    _check_domains(train, validation, only)
    run = _Run(
        recipe=recipe,
        train=train,
        validation=validation,
        tokenizer=tokenizer,
        folder=folder,
        make_trainer=make_trainer,
        make_logger=make_logger or (lambda stage: CSVLogger(folder / "logs", name=stage)),
    )
    run.stage(TRUNK, recipe.trunk, list(train))
    for domain in train if only is None else [only]:
        run.stage(domain, recipe.branch, [domain])


def stage_seed(seed: int, stage: str) -> int:
    """Return a stage's seed: of its name and not its place, so that other stages do not change it."""
    digest = hashlib.sha256(f"{seed}/{stage}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


class _StageProgress(RichProgressBar):
    """Shows the stage's name; a stage is counted in steps, and has no epochs to show."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self._stage = stage

    def _get_train_description(self, current_epoch: int) -> str:
        return f"Training {self._stage}"


class _Run:
    """What all stages of one call have in common."""

    def __init__(
        self,
        *,
        recipe: ExpertRecipe,
        train: Mapping[str, Blocks],
        validation: Mapping[str, Blocks],
        tokenizer: TextTokenizer,
        folder: Path,
        make_trainer: Callable[..., Trainer],
        make_logger: Callable[[str], Logger],
    ) -> None:
        self.recipe = recipe
        self.train = train
        self.validation = validation
        self.tokenizer = tokenizer
        self.folder = folder
        self.make_trainer = make_trainer
        self.make_logger = make_logger
        # A Trainer that never runs: what it understood the user's settings to be.
        settled = make_trainer(max_epochs=-1, max_steps=1, logger=False, enable_checkpointing=False)
        self.has_progress_bar = settled.progress_bar_callback is not None
        self.settings = {f"trainer.{name}": getattr(settled, name) for name in _NUMERIC_SETTINGS}

    def stage(self, name: str, stage: Stage, domains: list[str]) -> None:
        """Train one stage, or find that it is done."""
        asked = self._identity(name, stage, domains)
        unfinished = self.folder / f".{name}"
        done = read_record(self.folder / name)
        if done is not None:
            check_same(done["identity"], self._without_new_domains(name, done["identity"], asked), self.folder / name)
            rank_zero_info(f"`{name}` is trained already ({self.folder / name}).")
            shutil.rmtree(unfinished, ignore_errors=True)
            return
        begun = read_record(unfinished)
        if begun is not None:
            check_same(begun["identity"], asked, unfinished)
        self._train(name, stage, domains, asked)

    def _train(self, name: str, stage: Stage, domains: list[str], identity: dict[str, Any]) -> None:
        unfinished = self.folder / f".{name}"
        checkpoint = unfinished / "last.ckpt"
        start = time.perf_counter()
        seed_everything(stage_seed(self.recipe.seed, name), verbose=False)
        model = self._initial_model(name)
        module = ExpertTraining(
            model=model,
            learning_rate=stage.learning_rate,
            warmup_steps=stage.warmup_steps,
            total_steps=stage.steps,
            weight_decay=self.recipe.weight_decay,
            frozen=stage.frozen,
        )
        trainer = self._trainer(name, stage, checkpoint)
        if trainer.is_global_zero:
            replace_file(unfinished / TRAINING_RECORD, as_json({"identity": identity}))
        resumed = checkpoint.is_file()
        rank_zero_info(f"Training `{name}`: {stage.steps} steps{', from its last checkpoint' if resumed else ''}.")
        with warnings.catch_warnings():
            # Blocks are gathered from memory; worker processes would only cost.
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            loader = self._loader(name, domains, trainer)
            trainer.fit(module, loader, ckpt_path=checkpoint if resumed else None, weights_only=True)
        if trainer.global_step < stage.steps:
            raise RuntimeError(
                f"`{name}` was stopped at step {trainer.global_step} of {stage.steps}."
                " Run the same command again; it goes on from the last checkpoint."
            )
        loss = float(trainer.callback_metrics["train/loss"])
        perplexity = {domain: self._perplexity(model, domain, trainer) for domain in domains}
        for logger in trainer.loggers:
            logger.log_metrics(
                {f"validation/perplexity/{domain}": value for domain, value in perplexity.items()}, step=stage.steps
            )
            logger.finalize("success")
        rank_zero_info(f"`{name}`: loss {loss:.3f}, validation perplexity {_listed(perplexity)}.")
        if trainer.is_global_zero:
            with replace_folder(self.folder / name) as fresh:
                model.cpu().save_pretrained(fresh)
                self.tokenizer.save(fresh)
                record = {
                    "identity": identity,
                    "steps": trainer.global_step,
                    "loss": loss,
                    "validation_perplexity": perplexity,
                    "seconds": round(time.perf_counter() - start, 1),
                }
                replace_file(fresh / TRAINING_RECORD, as_json(record))
            shutil.rmtree(unfinished, ignore_errors=True)
        trainer.strategy.barrier("expert saved")  # the others begin from the trunk that is now there

    def _initial_model(self, name: str) -> PreTrainedModel:
        if name == TRUNK:
            config = llama_config(
                self.recipe.preset,
                vocab_size=self.tokenizer.vocab_size,
                context_length=self.recipe.context_length,
                end_of_text=self.tokenizer.end_of_text,
            )
            return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
        return AutoModelForCausalLM.from_pretrained(
            self.folder / TRUNK, local_files_only=True, dtype=torch.float32, attn_implementation="sdpa"
        )

    def _trainer(self, name: str, stage: Stage, checkpoint: Path) -> Trainer:
        progress = [_StageProgress(name)] if self.has_progress_bar else []
        return self.make_trainer(
            max_epochs=-1,
            max_steps=stage.steps,
            callbacks=[ResumePoint(checkpoint, every_n_steps=self.recipe.checkpoint_every_n_steps), *progress],
            logger=self.make_logger(name),
        )

    def _loader(self, name: str, domains: list[str], trainer: Trainer) -> DataLoader[Any]:
        splits = [self.train[domain] for domain in domains]
        balance: Literal["domain", "none"] = self.recipe.balance if name == TRUNK else "domain"
        order = DrawOrder([len(split) for split in splits], seed=stage_seed(self.recipe.seed, name), balance=balance)

        def place() -> tuple[int, int, int]:
            done = trainer.global_step * trainer.accumulate_grad_batches
            return done, trainer.global_rank, trainer.world_size

        batches = EndlessBatches(splits, order=order, batch_size=self.recipe.batch_size, place=place)
        return DataLoader(batches, batch_size=None)

    def _perplexity(self, model: PreTrainedModel, domain: str, trainer: Trainer) -> float:
        nll_N, tokens_N = sequence_losses(
            model,
            self.validation[domain],
            trainer=trainer,
            batch_size=max(1, self.recipe.batch_size // trainer.world_size),
            num_rows=self.recipe.validation_sequences,
        )
        return math.exp(float(nll_N.sum()) / max(1, int(tokens_N.sum())))

    def _identity(self, name: str, stage: Stage, domains: list[str]) -> dict[str, Any]:
        identity = self.recipe.identity(stage) | self.settings
        identity["tokenizer"] = self.tokenizer.fingerprint
        identity |= {f"data.{domain}": self.train[domain].fingerprint for domain in domains}
        if name == TRUNK:
            identity["balance"] = self.recipe.balance
        else:
            identity["trunk"] = weights_fingerprint(self.folder / TRUNK)
        return identity

    def _without_new_domains(self, name: str, found: Mapping[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
        """A finished trunk stands for domains that came or went since: only those that it saw must be as they were."""
        if name != TRUNK:
            return asked
        saw = {key for key in found if key.startswith("data.")}
        has = {key for key in asked if key.startswith("data.")}
        if saw != has:
            rank_zero_info(
                f"The trunk in `{self.folder}` was trained on {sorted(key[5:] for key in saw)}, and this run has"
                f" {sorted(key[5:] for key in has)}. It is taken as it is; use another folder to train one anew."
            )
        kept = {key: value for key, value in asked.items() if key not in has - saw}
        return kept | {key: found[key] for key in saw - has}


def _check_domains(train: Mapping[str, Blocks], validation: Mapping[str, Blocks], only: str | None) -> None:
    if not train:
        raise ValueError("Expected at least one domain to train an expert for, but got none.")
    for domain, split in train.items():
        if domain in (TRUNK, "logs") or domain.startswith(".") or os.sep in domain or not domain:
            raise ValueError(f"`{domain}` cannot be a domain's name, since a folder is named after it. Rename it.")
        if len(split) == 0:
            raise ValueError(f"Domain `{domain}` has no training sequences. Give it more text, or leave it out.")
        if domain not in validation or len(validation[domain]) == 0:
            raise ValueError(f"Domain `{domain}` has no validation sequences. Give it more text, or leave it out.")
    if only is not None and only not in train:
        raise ValueError(f"Expected `only` to be one of the domains {list(train)}, but got `{only}`.")


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.1f}" for name, value in values.items())
