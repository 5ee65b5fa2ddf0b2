"""Train a bank of experts: the trunk, then a branch per domain, each stage resumable and saved whole."""

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning_utilities.core.rank_zero import rank_zero_info
from transformers import AutoModelForCausalLM, PreTrainedModel

from ir3de.experts.presets import llama_config
from ir3de.experts.recipe import ExpertRecipe, Stage
from ir3de.experts.training_record import TRAINING_RECORD, as_json, check_same, read_record
from ir3de.experts.weights import SavedModel
from ir3de.files import replace_file, replace_folder
from ir3de.modules.expert_batches import Blocks, DrawOrder
from ir3de.modules.expert_stage import ExpertStage
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
    make_loggers: Callable[[str], list[Logger]] | None = None,
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
        make_trainer: Called by keyword with what a stage decides (steps, ``callbacks``, ``logger``, validation); the
            user's settings (``accelerator``, ``precision``, ``gradient_clip_val``) are its own.
        make_loggers: Called with the stage's name; without it a CSV file is written to ``folder/logs``.
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
        make_loggers=make_loggers or (lambda stage: [CSVLogger(folder / "logs", name=stage)]),
    )
    run.stage(TRUNK, recipe.trunk, list(train))
    for domain in train if only is None else [only]:
        run.stage(domain, recipe.branch, [domain])


def stage_seed(seed: int, stage: str) -> int:
    """Return a stage's seed: of its name and not its place, so that other stages do not change it."""
    digest = hashlib.sha256(f"{seed}/{stage}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


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
        make_loggers: Callable[[str], list[Logger]],
    ) -> None:
        self.recipe = recipe
        self.train = train
        self.validation = validation
        self.tokenizer = tokenizer
        self.folder = folder
        self.make_trainer = make_trainer
        self.make_loggers = make_loggers
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
        seed = stage_seed(self.recipe.seed, name)
        seed_everything(seed, verbose=False)
        model = self._initial_model(name)
        splits = [self.train[domain] for domain in domains]
        balance: Literal["domain", "none"] = self.recipe.balance if name == TRUNK else "domain"
        training = ExpertStage(
            name,
            self.recipe,
            stage,
            train=splits,
            order=DrawOrder([len(split) for split in splits], seed=seed, balance=balance),
            validation={domain: self.validation[domain] for domain in domains},
            folder=unfinished,
            accumulate=self.settings["trainer.accumulate_grad_batches"],
            make_trainer=self.make_trainer,
            loggers=self.make_loggers(name),
            shows_progress=self.has_progress_bar,
        )
        trainer = training.trainer
        if trainer.is_global_zero:
            replace_file(unfinished / TRAINING_RECORD, as_json({"identity": identity}))
        trained = training.run(model)
        for logger in trainer.loggers:
            logger.finalize("success")
        rank_zero_info(f"`{name}`: loss {trained.loss:.3f}, validation perplexity {_listed(trained.perplexity)}.")
        if trainer.is_global_zero:
            with replace_folder(self.folder / name) as fresh:
                self._save(trained.model, fresh)
                if trained.other is not None:
                    self._save(training.weights(trained.other, model), fresh / trained.other)
                record = {
                    "identity": identity,
                    "steps": trained.steps,
                    "kept_step": trained.kept_step,
                    "loss": trained.loss,
                    "validation_perplexity": trained.perplexity,
                    "seconds": trained.seconds,
                }
                replace_file(fresh / TRAINING_RECORD, as_json(record))
            shutil.rmtree(unfinished, ignore_errors=True)
        trainer.strategy.barrier("expert saved")  # the others begin from the trunk that is now there

    def _save(self, model: PreTrainedModel, folder: Path) -> None:
        model.cpu().save_pretrained(folder)
        self.tokenizer.save(folder)

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

    def _identity(self, name: str, stage: Stage, domains: list[str]) -> dict[str, Any]:
        identity = self.recipe.identity(stage) | self.settings
        identity["tokenizer"] = self.tokenizer.fingerprint
        identity |= {f"data.{domain}": self.train[domain].fingerprint for domain in domains}
        if name == TRUNK:
            identity["balance"] = self.recipe.balance
        else:
            identity["trunk"] = SavedModel(str(self.folder / TRUNK)).fingerprint
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
