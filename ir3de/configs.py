"""Configs by name: found in the working directory or in ``configs/``, and composed of parts."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml  # type: ignore[import-untyped]
from jsonargparse import ArgumentParser

PARTS = ("data", "experts", "model", "trainer", "prepare", "reasoning")
SUFFIXES = (".yaml", ".yml")
Built = TypeVar("Built")
SHIPPED = Path(__file__).resolve().parents[1] / "configs"


class UniqueKeyLoader(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error, not the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f"the key `{twice[0]}` stands twice{node.start_mark}; give each a name of its own")
        return super().construct_mapping(node, deep)


def find_config(name: str, *, beside: Path | None = None) -> Path:
    """Return the config that ``name`` means: as given, beside the file that names it, or in ``configs/``.

    Raises:
        FileNotFoundError: if there is none; the nearest names are listed.
    """
    folders = [Path(), *([beside] if beside else []), Path("configs"), SHIPPED]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    known = sorted({str(p.relative_to(f)) for f in folders[1:] for p in f.rglob("*.yaml")} if folders[1:] else set())
    near = get_close_matches(name, known, n=3) or known
    raise FileNotFoundError(
        f"Found no config `{name}` in the working directory or in configs/. There are: {', '.join(near)}."
    )


def load_config(name: str) -> dict[str, Any]:
    """Return the config called ``name`` with its parts (``model: routers/ir3de.yaml``) put in their places.

    Raises:
        FileNotFoundError: if it, or a part, is not found.
        ValueError: if a file is not a mapping, not YAML, or has a key twice.
    """
    path = find_config(name)
    config = read_config(path)
    for part in PARTS:
        value = config.get(part)
        if isinstance(value, str) and value.endswith(SUFFIXES):
            config[part] = read_config(find_config(value, beside=path.parent))
        elif isinstance(value, dict):
            for key, inner in value.items():
                if key in ("module", "trainer") and isinstance(inner, str) and inner.endswith(SUFFIXES):
                    value[key] = read_config(find_config(inner, beside=path.parent))
    return config


def read_config(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        ValueError: if it is not YAML, no mapping, or has a key twice.
    """
    try:
        config = yaml.load(path.read_text(), Loader=UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"`{path}` is not valid YAML: {error}") from error
    except ValueError as error:
        raise ValueError(f"In `{path}`, {error}.") from error
    if not isinstance(config, dict):
        raise ValueError(f"Expected `{path}` to be a mapping of keys to values, but got {type(config).__name__}.")
    return config


def built(cls: type[Built], key: str, given: Any) -> Built:
    """Return the settings at ``key`` of a parsed config as an object of ``cls``, with the sources in them."""
    if isinstance(given, cls):
        return given
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, key)
    found: Built = parser.instantiate(parser.parse_object({} if given is None else {key: given}))[key]
    return found


RUNS, UNNAMED = "runs", "unnamed"  # the folder of all runs and the name of one, where a config says nothing


def experts_folder(given: str | None, *, runs: str | Path, name: str) -> Path:
    """Return the folder with an expert for each domain: the one that is given, or that of a run's own experts."""
    return Path(runs) / name / "experts" if given is None else Path(given)


EXPERT = "expert:"


def place_experts(config: Any, bank: Mapping[str, str], *, tokenizer: str | None) -> Any:
    """Return a router's config with the bank's expert in the place of each ``embeddings: expert:NAME``.

    ``expert:first`` is the bank's first. ``tokenizer`` is the data's, where it was not trained here: a published
    checkpoint has none of its own.

    Raises:
        ValueError: if the bank has no such expert.
    """
    if isinstance(config, list):
        return [place_experts(one, bank, tokenizer=tokenizer) for one in config]
    if not isinstance(config, dict):
        return config
    placed = {key: place_experts(value, bank, tokenizer=tokenizer) for key, value in config.items()}
    given = placed.get("embeddings")
    if isinstance(given, str) and given.startswith(EXPERT):
        name = given.removeprefix(EXPERT)
        name = next(iter(bank)) if name == "first" else name
        if name not in bank:
            raise ValueError(f"Expected `embeddings: {given}` to name one of the experts {list(bank)}, or first.")
        placed["embeddings"] = bank[name]
        if tokenizer is not None:
            placed["tokenizer"] = tokenizer
    return placed
