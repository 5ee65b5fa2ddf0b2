"""What the command line says, put in order: the protocol, the configs, the protocol's own part of them, the flags."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ir3de.configs import PARTS, SUFFIXES, find_config, load_config, read_config

CORRECTED, PUBLISHED = "corrected", "published"
WORKED_IN: dict[str, Any] = {}  # in the place of `published`, in the saved config of a run by that protocol


@dataclass(frozen=True)
class _Config:
    """A config that was named: what its file says, and with its parts in place; nothing where it cannot be read."""

    name: str
    said: dict[str, Any]
    loaded: dict[str, Any]

    def named_parts(self) -> set[str]:
        return {part for part in PARTS if str(self.said.get(part, "")).endswith(SUFFIXES)}

    def without(self, parts: set[str]) -> str:
        """Return the config as an argument, without parts that another one replaces."""
        if parts.isdisjoint(self.loaded):
            return self.name
        return json.dumps({key: value for key, value in self.loaded.items() if key not in parts})


def in_order(arguments: Sequence[str]) -> list[str]:
    """Return the arguments in the order in which the later one wins.

    What a ``protocol`` in a config sets comes first, under what configs say themselves; over them comes what they say
    under ``published``, if that is the protocol. ``--protocol`` is over the configs, and every other flag over all. A
    part that is named (``--model routers/mlp.yaml``, or ``model: routers/mlp.yaml`` in a config) takes the place of
    the whole part that earlier configs have.

    Raises:
        FileNotFoundError: if a part is not found.
        ValueError: if the protocol of a run's saved config is to be changed.
    """
    configs, flags, typed = _sorted(arguments)
    files = [_read(name) for name in configs]
    replaced = {option.removeprefix("--") for option, value in _pairs(flags) if _is_part(option, value)}
    in_place: list[str] = []
    for one in reversed(files):
        in_place = ["--config", one.without(replaced), *in_place]
        replaced |= one.named_parts()
    said = [one.said["protocol"] for one in files if one.said.get("protocol")]
    protocol = typed or (said[-1] if said else None)
    sections = [one.said["published"] for one in files if one.said.get("published") is not None]
    if typed and said and typed != said[-1] and WORKED_IN in sections:
        raise ValueError(
            f"`--protocol {typed}` cannot change the saved config of a run by `protocol: {said[-1]}`, which has that"
            " worked into many keys. Give the setting's own config with `--protocol`, such as reasoning.yaml."
        )
    of_protocol = _layer(protocol)
    under, over = ([], of_protocol) if typed else (of_protocol, [])
    own = ["--config", json.dumps(sections[-1])] if protocol == PUBLISHED and sections and sections[-1] else []
    return [*under, *in_place, *over, *own, *_inlined(flags)]


def _sorted(arguments: Sequence[str]) -> tuple[list[str], list[str], str | None]:
    """Return the configs, the other arguments, and the protocol that was typed."""
    configs, flags, typed = [], [], None
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        option, equals, value = argument.partition("=")
        if option not in ("--config", "-c", "--protocol") or not (equals or rest):
            flags.append(argument)
            continue
        value = value if equals else rest.pop(0)
        if option == "--protocol":
            typed = value
        else:
            configs.append(value)
    return configs, flags, typed


def _read(name: str) -> _Config:
    with suppress(OSError, ValueError):  # the parser says what is wrong with it
        return _Config(name, read_config(find_config(name)), load_config(name))
    return _Config(name, {}, {})


def _layer(protocol: str | None) -> list[str]:
    if protocol is None:
        return []
    if protocol not in (CORRECTED, PUBLISHED):  # the parser says what there is
        return ["--protocol", protocol]
    settings = read_config(find_config(f"protocols/{protocol}.yaml"))
    return ["--config", json.dumps(settings | {"protocol": protocol})]


def _pairs(flags: Sequence[str]) -> list[tuple[str, str]]:
    """Return each argument with its value, or with what follows it."""
    pairs = []
    for argument, following in pairwise([*flags, ""]):
        option, equals, value = argument.partition("=")
        pairs.append((option, value if equals else following))
    return pairs


def _is_part(option: str, value: str) -> bool:
    return option.startswith("--") and option.removeprefix("--") in PARTS and value.endswith(SUFFIXES)


def _inlined(flags: Sequence[str]) -> list[str]:
    """Return the arguments with a config in the place of each part that is named."""
    rewritten: list[str] = []
    rest = list(zip(flags, _pairs(flags), strict=True))
    while rest:
        argument, (option, value) = rest.pop(0)
        if not _is_part(option, value):
            rewritten.append(argument)
            continue
        if "=" not in argument:
            rest.pop(0)  # the value
        rewritten += ["--config", json.dumps({option.removeprefix("--"): read_config(find_config(value))})]
    return rewritten
