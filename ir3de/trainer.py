"""A Trainer whose methods are the subcommands: Lightning's own, and those for the experts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.loggers import Logger
from lightning_utilities.core.rank_zero import rank_zero_info

from ir3de.comparison.run import Comparison
from ir3de.data.datamodule import DomainDataModule
from ir3de.data.loss_rows import LossRows
from ir3de.data.sample import SampledBlocks, sample_rows
from ir3de.evaluation.verdict import best_single_expert
from ir3de.experts.bank import DTypeName, ExpertBank
from ir3de.experts.loss_settings import LossSettings
from ir3de.experts.loss_table import LossTable
from ir3de.experts.score_table import ScoreTable, read_score_table
from ir3de.modules.expert_batches import Blocks
from ir3de.modules.make_loss_table import make_loss_table
from ir3de.modules.router_module import RouterModule
from ir3de.modules.train_experts import ExpertRecipe, train_experts
from ir3de.strategy import register_strategy

# Losses are computed in the bank's own precision, whatever the experts were trained in.
_EVALUATION: dict[str, Any] = {"precision": None}


@dataclass(frozen=True, kw_only=True)
class Experts:
    """The experts of a run: trained here, or named by ``bank``, and the loss table of the test split under them.

    ``trainer_arguments`` are those of ``experts.trainer``; ``folder`` is where trained experts are put, and
    ``make_loggers`` gives the loggers of a stage of training.
    """

    bank: str | Mapping[str, str] | None
    recipe: ExpertRecipe
    loss_settings: LossSettings
    trainer_arguments: Mapping[str, Any]
    folder: Path
    make_loggers: Callable[[str], list[Logger]]

    def train(self, data: DomainDataModule, *, domain: str | None) -> None:
        """Train the trunk and every branch that is not finished, or one domain's.

        Raises:
            ValueError: if the config names experts that exist already, or a finished one was trained otherwise.
        """
        if self.bank is not None:
            raise ValueError(f"`experts.bank` names experts that exist ({self.bank}). Set it to null to train them.")
        data.prepare_data()
        train_experts(
            self.recipe,
            train={name: data.expert_blocks("train", domain=name) for name in data.domain_names},
            validation={name: data.expert_blocks("validation", domain=name) for name in data.domain_names},
            tokenizer=data.expert_tokenizer,
            folder=self.folder,
            make_trainer=partial(Trainer, **self.trainer_arguments),
            make_loggers=self.make_loggers,
            only=domain,
        )
        rank_zero_info(f"The experts are in {self.folder}")

    def table(self, data: DomainDataModule) -> LossTable | ScoreTable:
        """Return what the test split's sequences are worth under every expert: computed losses, or given scores."""
        path = self.loss_settings.table
        if path is None:
            return self.losses(data)
        rows = data.router_rows("test")
        return read_score_table(
            Path(path),
            expert_names=data.domain_names,
            prompts=data.texts("test"),
            domain_N=torch.from_numpy(rows.domains()),
        )

    def losses(self, data: DomainDataModule) -> LossTable:
        """Return the test split's losses under every expert, computed if they are not cached.

        Raises:
            FileNotFoundError: if an expert is missing.
            ValueError: if an expert does not fit the data.
        """
        bank = self._bank(data)
        data.prepare_data()
        bank.check_tokenizer(data.expert_tokenizer)
        blocks = data.expert_blocks("test")
        table = self._losses_of(bank, blocks, data, average=True)
        own_dtype = data.faults.own_dtype
        if own_dtype not in (None, bank.dtype):
            other = self._losses_of(self._bank(data, dtype=own_dtype), blocks, data, average=False)
            table = replace(table, own_nll_N=other.own_N)
        path = Path(data.cache_dir) / "losses" / f"{table.key}.parquet"
        rank_zero_info(f"The losses of {len(table.tokens_N)} test sequences are in {path}")
        return table

    def training_losses(self, data: DomainDataModule, *, limit: int) -> LossRows:
        """Return at most ``limit`` training sequences of each domain, with their losses under every expert."""
        bank = self._bank(data)
        data.prepare_data()
        bank.check_tokenizer(data.expert_tokenizer)
        rows = data.training_sample(limit)
        table = self._losses_of(bank, rows.blocks, data, average=False)
        rows.losses_NE = table.nll_NE / table.tokens_N.clamp(min=1)[:, None]
        return rows

    def best_single(self, data: DomainDataModule, *, limit: int) -> str:
        """Return the expert with the best normalized performance on at most ``limit`` validation sequences a domain."""
        bank = self._bank(data)
        data.prepare_data()
        bank.check_tokenizer(data.expert_tokenizer)
        blocks = data.expert_blocks("validation")
        rows = SampledBlocks(blocks, sample_rows(blocks.domains(), limit, seed=0))
        return best_single_expert(self._losses_of(bank, rows, data, average=False))

    def _losses_of(self, bank: ExpertBank, blocks: Blocks, data: DomainDataModule, *, average: bool) -> LossTable:
        return make_loss_table(
            bank,
            blocks,
            make_trainer=partial(Trainer, **{**self.trainer_arguments, **_EVALUATION}),
            cache_dir=Path(data.cache_dir),
            batch_size=self.loss_settings.batch_size,
            embeddings_layer=self.loss_settings.embeddings_layer,
            average=average,
        )

    def _bank(self, data: DomainDataModule, *, dtype: DTypeName | None = None) -> ExpertBank:
        names, settings = list(data.domain_names), self.loss_settings
        given: dict[str, Any] = {
            "dtype": dtype or settings.dtype,
            "residence": settings.residence,
            "adapter_base": settings.adapter_base,
        }
        if not isinstance(self.bank, Mapping):
            return ExpertBank.from_folder(self.folder if self.bank is None else Path(self.bank), names, **given)
        homeless, bare = sorted({*self.bank} - {*names}), sorted({*names} - {*self.bank})
        if homeless or bare:
            experts = f" The experts {homeless} have no domain in `data.domains`." if homeless else ""
            domains = f" The domains {bare} have no expert in `experts.bank`." if bare else ""
            raise ValueError(f"Expected one expert for each domain, under the domain's name.{experts}{domains}")
        return ExpertBank({name: self.bank[name] for name in names}, **given)


class RouterTrainer(Trainer):
    """Lightning's Trainer for routers, and the commands that work on experts; ``experts`` is set by the CLI."""

    experts: Experts
    table: LossTable | None = None  # what ``losses`` made
    comparison: Comparison  # set by the CLI for ``compare``

    def train_experts(self, model: RouterModule, datamodule: DomainDataModule, domain: str | None = None) -> None:
        """Train the experts: a trunk on all domains, then one branch per domain.

        Args:
            model: Not used.
            datamodule: The domains.
            domain: Train the expert of this domain only (and the trunk, if it is missing).
        """
        self.experts.train(datamodule, domain=domain)

    def losses(self, model: RouterModule, datamodule: DomainDataModule) -> LossTable:
        """Compute the loss of every test sequence under every expert, once, and cache it.

        Args:
            model: Not used.
            datamodule: The domains.
        """
        self.table = self.experts.losses(datamodule)
        return self.table

    def compare(
        self,
        model: RouterModule,
        datamodule: DomainDataModule,
        seeds: int = 3,
    ) -> None:
        """Fit routers on the same data, score all on the same test sequences, time them, and report.

        What was fitted before on the same data with the same config is used again.

        Args:
            model: Not used.
            datamodule: The domains.
            seeds: How many seeds a router is fitted with in which something is drawn.
        """
        self.comparison.run(seeds=seeds)


register_strategy()
# A subcommand is called as its method is, and commands are spelt with a dash.
setattr(RouterTrainer, "train-experts", RouterTrainer.train_experts)
