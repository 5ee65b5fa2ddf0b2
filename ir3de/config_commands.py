"""Commands that read a config without building what it describes: they need no trainer, and no expert in memory."""

import inspect
from collections.abc import Callable, Sequence

from ir3de.arguments import in_order
from ir3de.data.datamodule import DomainDataModule
from ir3de.hub.check import check_requirements
from ir3de.hub.download import download
from ir3de.hub.estimate import estimate
from ir3de.modules.router_module import RouterModule
from ir3de.prepare.run import prepare
from ir3de.reasoning.scores import scores
from ir3de.settings import NamedConfig, add_settings
from ir3de.suggestions import RouterParser
from ir3de.trainer import RouterTrainer

ConfigCommand = Callable[..., None]
CONFIG_COMMANDS: dict[str, ConfigCommand] = {
    "estimate": estimate,
    "download": download,
    "prepare": prepare,
    "scores": scores,
}

CHECKED = ("prepare", "scores")  # the others say what is missing, or fetch it


def run_config_command(command: str, arguments: Sequence[str]) -> None:
    """Parse a config and a command's own options, as they were typed, and run the command."""
    function = CONFIG_COMMANDS[command]
    own = list(inspect.signature(function).parameters)[1:]
    config = _parser(command, function).parse_args(in_order(arguments))
    if command in CHECKED:
        check_requirements(config, command, arguments, own=own)
    function(config, **{name: config.pop(name) for name in own})


def _parser(command: str, function: ConfigCommand) -> RouterParser:
    parser = RouterParser(prog=f"main.py {command}", description=(function.__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("-c", "--config", action=NamedConfig, help="A config's name or path; may be repeated.")
    parser.add_argument("--seed_everything", type=bool | int, default=42, help="The seed of everything that is drawn.")
    parser.add_lightning_class_args(RouterTrainer, "trainer")
    parser.add_lightning_class_args(RouterModule, "model")
    parser.add_lightning_class_args(DomainDataModule, "data")
    add_settings(parser)
    parser.add_function_arguments(function, skip={"config"}, as_positional=False, as_group=False)
    return parser
