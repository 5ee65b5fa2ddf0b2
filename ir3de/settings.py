"""The keys of a config: what the command line adds to the data module, the model and the trainer."""

import argparse
import json
from typing import Any, Literal

from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]
from lightning import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from ir3de.comparison.entries import DEFAULT
from ir3de.configs import RUNS, UNNAMED, load_config
from ir3de.data.faults import Faults
from ir3de.experts.loss_settings import LossSettings
from ir3de.modules.train_experts import ExpertRecipe
from ir3de.prepare.settings import Preparation
from ir3de.reasoning.settings import Reasoning
from ir3de.suggestions import with_suggestion
from ir3de.tracking import Tracking

# What the stages of expert training set themselves.
STAGE_ARGUMENTS = {"callbacks", "logger", "max_steps", "max_epochs", "min_steps", "min_epochs", "max_time"}
STAGE_ARGUMENTS |= {
    "default_root_dir",
    "enable_checkpointing",
    "limit_train_batches",
    "reload_dataloaders_every_n_epochs",
    "val_check_interval",
    "check_val_every_n_epoch",
    "num_sanity_val_steps",
    "limit_val_batches",
    "use_distributed_sampler",
}


class NamedConfig(ActionConfigFile):
    """``--config quickstart.yaml``, found by name, with its parts in place."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        inline = values.lstrip().startswith("{")  # what ``in_order`` made of a part
        try:
            config = json.loads(values) if inline else load_config(values)
            known = {action.dest.split(".")[0] for action in parser._actions}
            for key in config:
                if key not in known:
                    raise ValueError(with_suggestion(f"No action for key '{key}'", parser))
            super().__call__(parser, cfg, json.dumps(config), option_string)
        except (OSError, ValueError, TypeError) as error:
            where = "" if inline else f"in config {values}: "
            raise argparse.ArgumentError(None, f"{where}{error}") from error


def add_settings(parser: LightningArgumentParser) -> None:
    """Add every key that is none of the data module's, the model's or the trainer's."""
    parser.add_argument("--name", type=str, default=UNNAMED, help="The run's name: its folder is RUNS/NAME.")
    parser.add_argument("--runs", type=str, default=RUNS, help="The folder that all runs are written to.")
    parser.add_argument(
        "--setting",
        type=Literal["m2d2", "clm2", "reasoning"] | None,
        default=None,
        help="Which of the paper's settings this is: `compare` puts the published figures beside the measured ones.",
    )
    parser.add_argument(
        "--protocol",
        type=Literal["corrected", "published"],
        default="corrected",
        help="Sets the keys of `faults`, from configs/protocols: `published` does as the published code does.",
    )
    parser.add_argument(
        "--published",
        type=dict[str, Any] | None,
        default=None,
        help="What `protocol: published` sets in this config beside configs/protocols/published.yaml.",
    )
    parser.add_argument(
        "--routers",
        type=list[str],
        default=list(DEFAULT),
        help="What `compare` compares: names of configs in configs/routers, paths of configs, or folders of saved"
        " routers; the others are tested against the first.",
    )
    parser.add_class_arguments(Faults, "faults")
    parser.add_class_arguments(Preparation, "prepare")
    parser.add_class_arguments(Reasoning, "reasoning")
    parser.add_argument(
        "--experts.bank",
        type=str | dict[str, str] | None,
        default=None,
        help="Where the experts are: a folder with one per domain, or a mapping from each domain to a folder or "
        "hub id, a .pth checkpoint, a GGUF file or an adapter. Null: RUNS/NAME/experts, which train-experts fills.",
    )
    parser.add_class_arguments(ExpertRecipe, "experts.module")
    parser.add_class_arguments(Trainer, "experts.trainer", instantiate=False, fail_untyped=False, skip=STAGE_ARGUMENTS)
    parser.add_class_arguments(LossSettings, "experts.losses")
    for key, what in (("prices", "price of a million tokens"), ("latencies", "seconds of an answer")):
        parser.add_argument(
            f"--experts.{key}",
            type=dict[str, float] | None,
            default=None,
            help=f"The {what} under each expert, by domain: `compare` reports what a router spends.",
        )
    parser.add_class_arguments(Tracking, "wandb")
