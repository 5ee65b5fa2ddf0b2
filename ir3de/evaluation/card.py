"""Writes the card of a saved router with its numbers, for people and, as a model index, for model hubs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from ir3de.evaluation.report import units
from ir3de.evaluation.verdict import Verdict
from ir3de.files import replace_file
from ir3de.routers.card import CARD, NOT_TESTED, router_card

RUN_CONFIG = "config.yaml"  # of the run that the router's folder is in
METRICS = {
    "routing_accuracy": ("accuracy", "routing accuracy, %"),
    "routing_accuracy_mean": ("accuracy", "routing accuracy, mean over domains, %"),
    "normalized_performance": ("normalized_performance", "normalized performance, %"),
    "regret": ("regret", "regret"),
}


def write_card(folder: Path, *, verdict: Verdict | None) -> None:
    """Write ``README.md`` into a saved router's folder, with the numbers of ``verdict`` where there is one."""
    config = json.loads((folder / "config.json").read_text())
    datasets = hub_datasets(folder.parent / RUN_CONFIG)
    metadata: dict[str, Any] = {"datasets": datasets} if datasets else {}
    numbers = NOT_TESTED
    if verdict is not None:
        numbers = tuple(_numbers(verdict))
        values = {name: getattr(verdict.routers[0], name) for name in METRICS}
        metadata |= model_index(config["router"], values, verdict.sequences, datasets, measure=verdict.measure)
    card = router_card(config, folder.name, numbers=numbers, metadata=metadata)
    replace_file(folder / CARD, card.encode())


def model_index(
    router: str, values: Mapping[str, float | None], sequences: Mapping[str, int], datasets: list[str], *, measure: str
) -> dict[str, Any]:
    """Return measured values, by the names of ``METRICS``, as a card's ``model-index``."""
    unit = "nats per token" if measure == "perplexity" else "score"
    metrics = [
        {"type": kind, "value": round(float(value), 4), "name": f"{title}, {unit}" if name == "regret" else title}
        for name, (kind, title) in METRICS.items()
        if (value := values[name]) is not None
    ]
    result = {
        "task": {"type": "text-classification", "name": "routing between experts"},
        "dataset": {
            "type": datasets[0] if len(datasets) == 1 else "text",
            "name": f"{sum(sequences.values()):,} held-out sequences of {', '.join(sequences)}",
            "split": "test",
        },
        "metrics": metrics,
    }
    return {"model-index": [{"name": router, "results": [result]}]}


def hub_datasets(config: Path) -> list[str]:
    """Return the hub ids of the data sets that a run's config names, if there is such a file."""
    if not config.is_file():
        return []
    domains = (yaml.safe_load(config.read_text()) or {}).get("data", {}).get("domains", {})
    return sorted(set(_hub_names(domains)))


def _hub_names(value: Any) -> list[str]:
    if not isinstance(value, dict):
        return []
    if str(value.get("class_path", "")).rpartition(".")[2] in ("HubDataset", "HubFiles"):
        return [str(value["init_args"]["name"])]
    return [name for one in value.values() for name in _hub_names(one)]


def _numbers(verdict: Verdict) -> list[str]:
    titles = {name: title.replace("\n", " ") for name, title in units(verdict).items()}
    lines = [
        f"On {sum(verdict.sequences.values()):,} held-out sequences:",
        "",
        "| router | " + " | ".join(titles.values()) + " |",
        "| --- |" + " ---: |" * len(titles),
    ]
    for row in [*verdict.routers, *verdict.references]:
        values = [getattr(row, name) for name in titles]
        lines.append(f"| {row.router} | " + " | ".join("" if v is None else f"{v:.4g}" for v in values) + " |")
    return lines
