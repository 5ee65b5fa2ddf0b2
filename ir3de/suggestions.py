"""The parser of every command, which names the nearest valid key where one is unknown."""

import inspect
import re
from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, set_parsing_settings
from lightning import Callback
from lightning.pytorch.cli import LightningArgumentParser

from ir3de.data.sources import Source
from ir3de.routers import Router

# Where a key takes any value, a class that a config names there is a name: whoever reads it decides what to build.
set_parsing_settings(instantiate_subclass_spec_in_any=False)

UNKNOWN = re.compile(
    r"unrecognized arguments: --(?P<option>[^\s=]+)"
    r"|Group '(?P<group>[^']+)' does not accept (?:option|nested key) '(?P<member>[^']+)'"
    r"|Subcommand '[^']+' does not accept option '(?P<sub>[^']+)'"
    r"|Option '(?P<init>[^']+)' is not accepted"
    r"|Expected a dot import path string: (?P<cls>\w+)"
    r"|No action for key \"?'?(?P<key>[\w.]+)"
)
NEAREST = "The nearest valid name is"
CLASS_PATH = re.compile(r"class_path '([\w.]+)'")


def with_suggestion(message: str, parser: ArgumentParser) -> str:
    """Return ``message``, with the nearest valid name added where it is about an unknown key or class."""
    found = UNKNOWN.search(message)
    if found is None or NEAREST in message:
        return message
    known = sorted(_keys(parser))
    if found["init"]:
        class_path = CLASS_PATH.search(message)
        name, known = found["init"], _parameters([class_path[1]] if class_path else _class_paths())
    elif found["cls"]:
        name, known = found["cls"], [path.rpartition(".")[2] for path in _class_paths()]
    elif found["group"]:
        name = f"{found['group']}.{found['member']}"
    else:
        name = found["option"] or found["sub"] or found["key"]
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    if not near:
        group = name.rpartition(".")[0]
        near_group = [key for key in known if group and key.startswith(f"{group}.")]
        return f"{message}\nValid keys there: {', '.join(near_group)}." if near_group else message
    return f"{message}\n{NEAREST} `{near[0]}`."


def _keys(parser: ArgumentParser) -> set[str]:
    keys = {action.dest for action in parser._actions if action.dest}
    for action in parser._actions:  # the main parser's keys are its subcommands'
        for subparser in (getattr(action, "_name_parser_map", None) or {}).values():
            keys |= _keys(subparser)
    return keys


def _parameters(class_paths: Iterable[str]) -> list[str]:
    names: set[str] = set()
    for class_path in class_paths:
        module, _, name = class_path.rpartition(".")
        names |= set(inspect.signature(getattr(import_module(module), name)).parameters)
    return sorted(names)


def _class_paths() -> list[str]:
    """Return every class that a config can name as a router, a source or a callback."""
    paths: set[str] = set()
    waiting: list[type] = [Router, Source, Callback]
    while waiting:
        cls: type = waiting.pop()
        paths.add(f"{cls.__module__}.{cls.__qualname__}")
        children: list[type] = cls.__subclasses__()
        waiting += [child for child in children if "<locals>" not in child.__qualname__]
    return sorted(paths)


class RouterParser(LightningArgumentParser):
    """Parses without abbreviations, and names the nearest valid key when one is unknown."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what is wrong, without the usage of several hundred options, and exit with status 2."""
        self.exit(2, f"error: {with_suggestion(message, self)}\ntip: {self.prog} --help lists every key.\n")
