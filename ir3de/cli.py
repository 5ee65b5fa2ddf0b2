"""The command line: named configs, subcommands, and one sentence for every user's mistake."""

import json
import os
import sys
import traceback
from copy import deepcopy
from inspect import signature
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelSummary, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning_utilities.core.rank_zero import rank_zero_only

from ir3de.arguments import PUBLISHED, WORKED_IN, in_order
from ir3de.commands import COMMANDS
from ir3de.comparison.run import Comparison
from ir3de.config_commands import CONFIG_COMMANDS, run_config_command
from ir3de.configs import experts_folder, place_experts
from ir3de.console import console, quieten
from ir3de.data.datamodule import DomainDataModule
from ir3de.evaluation.report import matrix_table
from ir3de.files import replace_file
from ir3de.hub.check import check_requirements
from ir3de.hub.requirements import bank_of
from ir3de.modules.router_module import RouterModule
from ir3de.routers import LossOracleRouter, RidgeRouter, SingleExpertRouter, load_router
from ir3de.runs import RunFolder
from ir3de.settings import NamedConfig, add_settings
from ir3de.suggestions import RouterParser
from ir3de.tracking import Tracking, finish_wandb, make_loggers
from ir3de.trainer import Experts, RouterTrainer

TRACEBACK = "IR3DE_TRACEBACK"
OWN_COMMANDS = ("train-experts", "losses", "compare")


class RouterCLI(LightningCLI):
    """``fit``, ``validate``, ``test``, ``predict``, ``train-experts`` and ``losses`` over one YAML."""

    trainer: RouterTrainer
    datamodule: DomainDataModule
    model: RouterModule

    def __init__(self, arguments: list[str]) -> None:
        command = arguments[:1] if arguments and not arguments[0].startswith("-") else []
        self._typed = arguments[len(command) :]
        super().__init__(
            RouterModule,
            DomainDataModule,
            trainer_class=RouterTrainer,
            parser_class=RouterParser,
            seed_everything_default=42,
            save_config_callback=None,  # the resolved config goes into the run's folder, see ``_save_config``
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=[*command, *in_order(self._typed)],
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        others = f"Before a run: {', '.join(CONFIG_COMMANDS)}. On saved routers: {', '.join((*COMMANDS, 'serve'))}."
        parser = self.parser_class(**kwargs, epilog=others)
        parser.add_argument("-c", "--config", action=NamedConfig, help="A config's name or path; may be repeated.")
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        add_settings(parser)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return every subcommand with the arguments that are not the user's."""
        own = {command: {"model", "datamodule"} for command in OWN_COMMANDS}
        return LightningCLI.subcommands() | own

    def before_instantiate_classes(self) -> None:
        """Refuse to begin without what the run needs, and put the bank's expert where a router's config names one."""
        if self.subcommand is not None:
            command = str(self.subcommand)
            config = self.config[command]
            own = {*signature(getattr(RouterTrainer, command)).parameters} - self.subcommands()[command]
            check_requirements(config, command, self._typed, own=own)
            placed = self._place_experts(config.model.router.as_dict())
            for key, value in placed.get("init_args", {}).items():
                config.model.router.init_args[key] = value

    def _place_experts(self, router: dict[str, Any]) -> dict[str, Any]:
        config = self.config[str(self.subcommand)]
        tokenizer = None if config.data.tokenizer == "train" else config.data.tokenizer
        placed: dict[str, Any] = place_experts(router, bank_of(config), tokenizer=tokenizer)
        return placed

    def instantiate_classes(self) -> None:
        super().instantiate_classes()
        if self.subcommand is not None:
            self.datamodule.read_with(self._get(self.config_init, "faults"))

    def instantiate_trainer(self, **kwargs: Any) -> RouterTrainer:
        """Build the trainer on this run's folder, with CSV and W&B loggers unless the config names others."""
        name, runs = self._get(self.config_init, "name"), Path(self._get(self.config_init, "runs"))
        if self.subcommand == "fit":
            self.run = RunFolder.create(runs, name)
        elif self.subcommand in ("validate", "test", "predict"):
            self.run = RunFolder.newest(runs, name)
        else:
            self.run = RunFolder(runs / name / (self._comparison() if self.subcommand == "compare" else "experts"))
        if self._get(self.config_init, "trainer").get("logger") in (None, True):
            kwargs["logger"] = self.subcommand != "compare" and self._loggers(name)
        trainer = super().instantiate_trainer(default_root_dir=str(self.run.path), **kwargs)
        assert isinstance(trainer, RouterTrainer)
        trainer.experts = Experts(
            bank=self._get(self.config_init, "experts.bank"),
            recipe=self._get(self.config_init, "experts.module"),
            loss_settings=self._get(self.config_init, "experts.losses"),
            trainer_arguments=self._get(self.config_init, "experts.trainer"),
            folder=experts_folder(None, runs=runs, name=name),
            make_loggers=lambda stage: self._loggers(name, stage),
        )
        return trainer

    def before_compare(self) -> None:
        self._check_domains()
        tracking: Tracking = self._get(self.config_init, "wandb")
        if tracking.mode != "disabled":
            finish_wandb()
        config = self._dump()
        decides = {key: yaml.safe_load(config)[key] for key in ("data", "trainer", "faults")}
        self.trainer.comparison = Comparison(
            self.datamodule,
            self.run.path,
            make_trainer=self._fit_trainer,
            make_table=lambda: self.trainer.experts.table(self.datamodule),
            best_single=lambda limit: self.trainer.experts.best_single(self.datamodule, limit=limit),
            routers=self._get(self.config_init, "routers"),
            seed=int(self._get(self.config_init, "seed_everything", default=42)),
            tracking=None if tracking.mode == "disabled" else tracking,
            prices=self._get(self.config_init, "experts.prices"),
            latencies=self._get(self.config_init, "experts.latencies"),
            config=config,
            fit_settings=json.dumps(decides, sort_keys=True),
            setting=self._get(self.config_init, "setting"),
            protocol=self._get(self.config_init, "protocol"),
            other=self.run.path.with_name(self._comparison(other=True)),
            bank=bank_of(self.config["compare"]),
            place_experts=self._place_experts,
        )

    def _fit_trainer(self, folder: Path) -> RouterTrainer:
        """Return the config's trainer for one of many fits: its callbacks anew, its bar left to the comparison."""
        given = dict(self._get(self.config_init, "trainer"))
        callbacks = [one for one in given.pop("callbacks") or [] if not isinstance(one, ProgressBar | ModelSummary)]
        logger = CSVLogger(str(folder), name="logs", version="")
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 10}
        own = {"callbacks": deepcopy(callbacks), "default_root_dir": str(folder), "logger": logger}
        return RouterTrainer(**given | quiet | own)

    def _comparison(self, *, other: bool = False) -> str:
        corrected = self._get(self.config_init, "protocol") == "corrected"
        return "comparison" if corrected != other else "comparison_published"

    def before_fit(self) -> None:
        self._check_domains()
        self._save_config("config.yaml")
        router = self.model.router
        self.datamodule.read_as(router)
        if isinstance(router, SingleExpertRouter) and router.expert is None:
            router.expert = self.trainer.experts.best_single(self.datamodule, limit=router.validation_sequences)
        if isinstance(router, RidgeRouter) and router.targets == "loss":
            losses = self.trainer.experts.training_losses(self.datamodule, limit=router.targets_sequences)
            self.datamodule.loss_rows = losses

    def after_fit(self) -> None:
        self._finish("python main.py test", "router", "validation_choices.csv")

    def before_validate(self) -> None:
        self._load_router()
        self._check_experts()

    def before_predict(self) -> None:
        self._load_router()

    def after_predict(self) -> None:
        self._finish(None, "predictions.csv")

    def before_test(self) -> None:
        self._load_router()
        self._check_experts()
        if self.trainer.is_global_zero:  # the one that reports
            self.model.table = self.trainer.experts.table(self.datamodule)
        if isinstance(self.model.router, LossOracleRouter):  # every process reads what the first has computed
            self.model.router.best_N = self.trainer.experts.table(self.datamodule).best_N

    def after_test(self) -> None:
        pictures = ("confusion_matrix.png", "expert_perplexity.png", "expert_score.png")
        self._finish("python main.py predict", "results.csv", "results.json", *pictures)

    def after_losses(self) -> None:
        table = self.trainer.table
        if self.trainer.is_global_zero and table is not None:
            names = self.datamodule.domain_names
            numbers = {name: int((table.domain_N == i).sum()) for i, name in enumerate(names)}
            console().print(matrix_table("perplexity", table.perplexity(names), numbers))

    def _check_domains(self) -> None:
        if self.datamodule.num_domains < 2:
            raise ValueError(
                f"Expected at least two domains to route between, but got {list(self.datamodule.domain_names)}."
            )

    def _check_experts(self) -> None:
        experts, domains = self.model.router.expert_names, self.datamodule.domain_names
        if experts != domains:
            raise ValueError(
                f"The router in `{self.run.path}` chooses between {list(experts)}, but the config's domains are"
                f" {list(domains)}. Give `data.domains` the same names, or add or remove experts to match them."
            )

    def _load_router(self) -> None:
        """Put the run's router in the place of the config's, which must not say otherwise."""
        self._save_config(f"config.{self.subcommand}.yaml")
        asked = self.model.router
        self._check_protocol()
        saved = load_router(self.run.path / "router", own=type(asked))
        differing = [
            f"`{key}` {saved.settings().get(key)} there, {value} here"
            for key, value in asked.settings().items()
            if type(saved) is type(asked) and saved.settings().get(key) != value
        ]
        if type(saved) is not type(asked):
            differing = [f"a {type(saved).__name__} there, a {type(asked).__name__} here"]
        if differing:
            raise ValueError(
                f"The router in `{self.run.path}` was fitted with another config ({'; '.join(differing)})."
                " Fit again with this config, or use that one."
            )
        self.model.router = saved
        self.datamodule.read_as(saved)

    def _check_protocol(self) -> None:
        """Refuse to evaluate by another protocol than the one that the router was fitted by."""
        path = self.run.path / "config.yaml"
        there = (yaml.safe_load(path.read_text()) if path.is_file() else {}).get("faults") or {}
        here = json.loads(json.dumps(self.config[str(self.subcommand)].faults.as_dict(), default=str))
        differing = [f"`faults.{key}` {there[key]} there, {here[key]} here" for key in there if there[key] != here[key]]
        if differing:
            raise ValueError(
                f"The router in `{self.run.path}` was fitted by another protocol ({'; '.join(differing)})."
                " Fit again with this one, or give `--protocol` and the keys of `faults` as they were."
            )

    def _loggers(self, name: str, stage: str | None = None) -> list[Logger]:
        tracking: Tracking = self._get(self.config_init, "wandb")
        return make_loggers(tracking, self.run.path, name, command=str(self.subcommand), stage=stage)

    @rank_zero_only
    def _save_config(self, file: str) -> None:
        replace_file(self.run.path / file, self._dump().encode())

    def _dump(self) -> str:
        """Return the resolved config, which gives the same again: what the protocol sets stands in every key."""
        config = self.config[str(self.subcommand)].clone()
        if config.protocol == PUBLISHED and config.published:
            config.published = WORKED_IN
        return str(self._parser(self.subcommand).dump(config, skip_unset=False))

    @rank_zero_only
    def _finish(self, next_command: str | None, *files: str) -> None:
        self.run.publish()
        out = console()
        for file in files:
            if (self.run.path / file).exists():
                out.print(f"[green]written[/green] {self.run.path / file}", soft_wrap=True)
        if next_command:
            config = self.run.path.parent / "config.yaml"
            out.print(f"next: {next_command} --config {config}", soft_wrap=True)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a user's mistake ends with one sentence and exit status 1."""
    arguments = sys.argv[1:] if arguments is None else arguments
    quieten()
    try:
        if arguments and arguments[0] in COMMANDS:
            COMMANDS[arguments[0]](arguments[1:])
        elif arguments and arguments[0] in CONFIG_COMMANDS:
            run_config_command(arguments[0], arguments[1:])
        else:
            RouterCLI(arguments)
    except (ValueError, OSError, MisconfigurationException) as error:
        if os.environ.get(TRACEBACK):
            traceback.print_exc()
        console(stderr=True).print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(1)
