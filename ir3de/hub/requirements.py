"""What a config needs to be there before a command can run: models, data sets, and what other commands make."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, Literal

from jsonargparse import Namespace

from ir3de import routers
from ir3de.configs import experts_folder, find_config, place_experts, read_config
from ir3de.data.domain import path_in
from ir3de.pretrained.locate import PACKAGE_PREFIX
from ir3de.routers.artifact import CONFIG

Kind = Literal[
    "tokenizer", "expert", "encoder", "embeddings", "data set", "prepared data", "scores", "package", "library", "path"
]  # fmt: skip
HARNESS = "lm_eval"
ON_THE_HUB: tuple[Kind, ...] = ("tokenizer", "expert", "encoder", "embeddings", "data set")
READ_DATA = ("fit", "validate", "test", "predict", "compare", "losses", "train-experts")
READ_EXPERTS = ("test", "losses", "compare", "scores")
ROUTE = ("validate", "test", "predict")  # with the run's saved router, which has its own table and tokenizer


@dataclass(frozen=True)
class Requirement:
    """One thing that a config names.

    ``source`` is what the config says: a hub id, ``owner/name:file.pth``, a path or a package; ``purposes`` is what it
    is for. A data set has ``arguments``: those of its source. A package ships a model, a library is imported.
    """

    kind: Kind
    source: str
    purposes: tuple[str, ...]
    arguments: tuple[tuple[str, Any], ...] = ()

    @property
    def repository(self) -> str:
        """The hub repository, without the file."""
        return self.source.split(":", 1)[0]

    @property
    def revision(self) -> str:
        """The branch, tag or commit that is asked for."""
        return dict(self.arguments).get("revision") or "main"

    @property
    def repo_type(self) -> Literal["model", "dataset"]:
        """The kind of hub repository."""
        return "dataset" if self.kind == "data set" else "model"

    @property
    def on_the_hub(self) -> bool:
        """Whether ``download`` can get it."""
        return self.kind in ON_THE_HUB


def requirements(config: Namespace, command: str | None = None) -> list[Requirement]:
    """Return what ``command`` needs of a config, present or not; without a command, what any of them needs.

    Raises:
        FileNotFoundError: if the config of a router is not found.
        ValueError: if a router names an expert that the bank has not.
    """
    found: list[Requirement] = []
    if command in (None, "prepare", *READ_DATA) and config.data.tokenizer != "train":
        found.append(Requirement("tokenizer", config.data.tokenizer, ("the data's tokenizer",)))
    if command in (None, *READ_DATA):
        found += _data(config)
    if command in (None, "prepare"):
        found += [one for name, given in config.prepare.domains.items() for one in _data_sets(given, f"text of {name}")]
    if command in (None, "scores"):
        training = config.reasoning.training
        found += [one for name, given in training.items() for one in _data_sets(given, f"training prompts of {name}")]
    if command == "scores":
        found.append(Requirement("library", HARNESS, ("asks experts the questions of the benchmarks",)))
    table = config.experts.losses.table
    if table is not None and command in (None, "test", "losses", "compare"):
        found.append(Requirement("scores", table, ("every expert's score on every question",)))
    bank = bank_of(config)
    needs_experts = command == "scores" or (command in (None, *READ_EXPERTS) and table is None)
    named = router_configs(config, command)
    if command in ("fit", "compare") and table is None:
        needs_experts = needs_experts or any(read_by_experts(router) for router in named.values())
    if (needs_experts or command is None) and isinstance(config.experts.bank, Mapping):
        found += [Requirement("expert", source, (f"expert {name}",)) for name, source in bank.items()]
        if config.experts.losses.adapter_base:
            found.append(Requirement("expert", config.experts.losses.adapter_base, ("the adapters' base",)))
    for name, router in named.items():
        encoders_only = command in ROUTE or "files" in router  # a saved router has everything else in its folder
        found += [one for one in _of_router(router, name) if one.kind == "encoder" or not encoders_only]
    if config.faults.trained_on is not None and any(_trained(router) for router in named.values()):
        found += _data_sets(config.faults.trained_on, "text that MoDEM and the MLP are trained on")
    own = {one.source for one in found if one.kind == "expert"} | set(bank.values())
    return _merged(replace(one, kind="expert") if one.kind == "embeddings" and one.source in own else one
                   for one in map(located, found))  # fmt: skip


def bank_of(config: Namespace) -> dict[str, str]:
    """Return where each expert is, by domain: the config's bank, or a folder with one for each domain."""
    bank = config.experts.bank
    if isinstance(bank, Mapping):
        return dict(bank)
    folder = experts_folder(bank, runs=config.runs, name=config.name)
    return {name: str(folder / name) for name in config.data.domains}


def _data(config: Namespace) -> list[Requirement]:
    found = []
    for name, domain in config.data.domains.items():
        if isinstance(domain, str) and config.data.root is not None:
            found.append(Requirement("prepared data", str(path_in(config.data.root, domain)), (f"domain {name}",)))
        else:
            found += _data_sets(domain, f"domain {name}")
    return found


def _data_sets(value: Any, purpose: str) -> list[Requirement]:
    """Return the hub's data sets anywhere in a value of the config."""
    return [
        Requirement("data set", arguments["name"], (purpose,), tuple(sorted(arguments.items())))
        for arguments in named_sources(value, "HubDataset")
    ]


def named_sources(value: Any, name: str) -> list[dict[str, Any]]:
    """Return the arguments of every source of the class called ``name``, anywhere in a value of the config."""
    value = _plain(value)
    if isinstance(value, list):
        return [one for inner in value for one in named_sources(inner, name)]
    if not isinstance(value, dict):
        return []
    if str(value.get("class_path", "")).rpartition(".")[2] == name:
        return [value.get("init_args", {})]
    return [one for inner in value.values() for one in named_sources(inner, name)]


def router_configs(config: Namespace, command: str | None) -> dict[str, dict[str, Any]]:
    """Return the configs of the routers that a command builds, by name."""
    tokenizer = None if config.data.tokenizer == "train" else config.data.tokenizer
    found: dict[str, dict[str, Any]] = {}
    if command in (None, "fit", *ROUTE):
        found["the router"] = _plain(config.model.router)
    for given in config.routers if command in (None, "compare") else ():
        saved = next((path for path in (Path(given), Path(given) / "router") if (path / CONFIG).is_file()), None)
        if saved is not None:
            found[given] = json.loads((saved / CONFIG).read_text())
        else:
            name = given if given.endswith((".yaml", ".yml")) else f"routers/{given}.yaml"
            found[given] = read_config(find_config(name)).get("router", {})
    return {name: place_experts(router, bank_of(config), tokenizer=tokenizer) for name, router in found.items()}


def _of_router(value: Any, name: str) -> Iterator[Requirement]:
    """Yield the tables, tokenizers and encoders that a router's config names, at any depth."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        if not isinstance(inner, str):
            yield from _of_router(inner, name)
        elif key == "embeddings":
            yield Requirement("embeddings", inner, (f"embeddings of {name}",))
            if not value.get("tokenizer") and not inner.endswith(".pth"):
                yield Requirement("tokenizer", inner, (f"tokenizer of {name}",))
        elif key == "tokenizer":
            yield Requirement("tokenizer", inner, (f"tokenizer of {name}",))
        elif key == "model":
            yield Requirement("encoder", inner, (f"encoder of {name}",))


def _router_class(router: dict[str, Any]) -> Any:
    module, _, name = str(router.get("class_path", "")).rpartition(".")
    if not name:
        return None
    try:
        return getattr(import_module(module) if module else routers, name, None)
    except ImportError:  # the parser says what is wrong with it
        return None


def _trained(router: dict[str, Any]) -> bool:
    found = _router_class(router)
    return isinstance(found, type) and issubclass(found, routers.TrainedRouter)


def read_by_experts(router: dict[str, Any]) -> tuple[str, int] | None:
    """Return of which split, and how many sequences of each domain, a router's fit runs through the experts, if any.

    Training sequences for losses as targets, validation sequences to find the best expert.
    """
    arguments, found = router.get("init_args") or {}, _router_class(router)
    if found is routers.SingleExpertRouter and arguments.get("expert") is None:
        split, limit = "validation", "validation_sequences"
    elif found is not None and arguments.get("targets") == "loss":
        split, limit = "train", "targets_sequences"
    else:
        return None
    default = signature(found).parameters[limit].default
    return split, arguments.get(limit, default)


def located(requirement: Requirement) -> Requirement:
    """Return the requirement as what it is here: a package, a path, or of the hub as it was taken for."""
    source = requirement.source
    if not requirement.on_the_hub or requirement.kind == "data set":
        return requirement
    if source.startswith(PACKAGE_PREFIX):
        return replace(requirement, kind="package")
    path = Path(source).expanduser()
    only_a_path = source.endswith((".gguf", ".pth")) or source.startswith((".", "/", "~")) or source.count("/") > 1
    is_file_on_hub = source.endswith(".pth") and ":" in source
    return replace(requirement, kind="path") if path.exists() or (only_a_path and not is_file_on_hub) else requirement


def _merged(found: Iterable[Requirement]) -> list[Requirement]:
    """Return each thing once, with everything that it is for."""
    by_thing: dict[tuple[Any, ...], Requirement] = {}
    for one in found:
        key = (one.kind, one.source, one.arguments)
        before = by_thing.get(key)
        purposes = (*before.purposes, *one.purposes) if before else one.purposes
        by_thing[key] = replace(one, purposes=tuple(dict.fromkeys(purposes)))
    return list(by_thing.values())


def _plain(value: Any) -> Any:
    """Return a value of a config as dictionaries all through."""
    if isinstance(value, Namespace):
        value = value.as_dict()
    return {key: _plain(inner) for key, inner in value.items()} if isinstance(value, Mapping) else value
