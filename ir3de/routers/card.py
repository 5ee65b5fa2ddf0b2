"""The card of a saved router, as model hubs show it: what it is, how it was fitted, and numbers where there are any."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from ir3de.hub_repositories import REPOSITORY

CARD = "README.md"
NOT_TESTED: tuple[str, ...] = ("Not tested yet: run `python main.py test`.",)
_TABLES = ("RidgeRouter", "NaiveBayesRouter", "SmoothedBayesRouter")  # those that can be compiled
_METADATA = re.compile(r"\A---\n(.*?\n)---\n", re.DOTALL)


def router_card(
    config: Mapping[str, Any],
    source: str,
    *,
    numbers: Sequence[str] = NOT_TESTED,
    metadata: Mapping[str, Any] | None = None,
    compiled: bool = True,
) -> str:
    """Return the card of the router that ``config`` describes and that is read from ``source``.

    ``numbers`` are lines of Markdown; ``metadata`` is put beside what the config tells. ``compiled`` tells whether the
    compiled form will be there, where there can be one.
    """
    shown = {name: json.dumps(value) for name, value in config["settings"].items()}
    for name, value in config["chosen"].items():
        how = " (chosen on validation data)" if config["settings"].get(name) is None else ""
        shown[name] = "not used" if value is None else f"{json.dumps(value)}{how}"
    rows = [f"| {name} | {value} |" for name, value in shown.items()]
    rows += [
        f"| {what} | {digest[:16]}… |" for what, digest in config["reads"].items() if what in ("tokenizer", "features")
    ]
    if "embeddings" in config["reads"]:
        shape, digest = config["embeddings_shape"], config["reads"]["embeddings"]
        rows.append(f"| embedding table | {config['embeddings_source']}, {shape}, {digest[:16]}… |")
    lines = [
        f"# {config['router']} over {len(config['experts'])} experts",
        "",
        "Picks one expert for each prompt; none of the experts is needed for it.",
        "",
        "```python",
        f"from ir3de.routers import {config['router']}",
        "",
        f'router = {config["router"]}.from_pretrained("{source}")',
        'router.route(["your prompt"]).names',
        "```",
        "",
        *(_without_torch(source) if compiled and config["router"] in _TABLES else []),
        *_experts(config),
        "",
        "| setting | value |",
        "| --- | --- |",
        *rows,
        "",
        *numbers,
        "",
    ]
    if config.get("unchecked"):
        lines += [f"Chosen without validation data of: {', '.join(config['unchecked'])}.", ""]
    return with_metadata("\n".join(lines), {**_known(config), **(metadata or {})})


def metadata_of(card: str) -> dict[str, Any]:
    """Return the metadata at the head of a card; empty where there are none.

    Raises:
        ValueError: if they are no YAML.
    """
    found = _METADATA.match(card)
    try:
        return dict(yaml.safe_load(found[1]) or {}) if found else {}
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise ValueError(f"The card's metadata, between its lines `---`, are no YAML ({error}). Mend them.") from error


def with_metadata(card: str, more: Mapping[str, Any]) -> str:
    """Return a card with ``more`` metadata at its head, in the place of those of the same names."""
    head = yaml.safe_dump({**metadata_of(card), **more}, sort_keys=False, allow_unicode=True, width=120)
    return f"---\n{head}---\n{_METADATA.sub('', card)}"


def read_from(card: str, source: str) -> str:
    """Return a card that says of the router to read it from ``source``."""
    for pattern, count in ((r"(\.from_pretrained\()", 1), (r"(CompiledRouter\.from_pretrained\()", 0)):
        card = re.sub(rf'{pattern}"[^"\n]*"', lambda found: f'{found[1]}"{source}"', card, count=count)
    command = r"(main\.py route --router )(?:'[^'\n]*'|\S+)"
    return re.sub(command, lambda found: f"{found[1]}{shlex.quote(source)}", card)


def _without_torch(source: str) -> list[str]:
    return [
        "Compiled to tables (`python main.py compile`), it routes in microseconds without torch and transformers:",
        "",
        "```python",
        "from ir3de.serving import CompiledRouter",
        "",
        f'router = CompiledRouter.from_pretrained("{source}")',
        'router.route("your prompt").expert',
        "```",
        "",
        "```sh",
        f'python main.py route --router {shlex.quote(source)} "your prompt"',
        "```",
        "",
    ]


def _known(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the config tells hubs: what reads it, what it is, and the models that it knows."""
    table = str(config.get("embeddings_source", ""))
    bases = [table] if REPOSITORY.fullmatch(table) and not Path(table).exists() else []
    return {
        "library_name": "ir3de",
        "pipeline_tag": "text-classification",
        "tags": ["routing", "ir3de", str(config["router"])],
        **({"base_model": bases} if bases else {}),
    }


def _experts(config: Mapping[str, Any]) -> list[str]:
    known, models = config["experts"], config.get("models") or {}
    if not all(known.values()):
        return [f"- {name}" for name in known]
    what = "sequences" if "rows" in next(iter(known.values())) else "tokens"
    if not models:
        lines = [f"| {name} | {facts['tokens']:,} |" for name, facts in known.items()]
        return [f"| expert | training {what} |", "| --- | ---: |", *lines]
    lines = [f"| {name} | {facts['tokens']:,} | {models.get(name, '')} |" for name, facts in known.items()]
    return [f"| expert | training {what} | model |", "| --- | ---: | --- |", *lines]
