"""What a command fetches itself when it reads it, so that ``download`` does not: raw text, and the benchmarks' data."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from jsonargparse import Namespace

from ir3de.hub.facts import raw_text_size
from ir3de.hub.requirements import named_sources
from ir3de.hub.tasks import known_task

Command = Literal["prepare", "scores"]


@dataclass(frozen=True)
class Fetched:
    """Data of one repository of the hub: what they are, about how much, for what, and which command fetches them."""

    kind: Literal["raw text", "benchmark data"]
    source: str
    size: str
    purposes: tuple[str, ...]
    command: Command


def fetched_by_commands(config: Namespace) -> list[Fetched]:
    """Return what ``prepare`` and ``scores`` fetch of the hub by themselves, present or not."""
    return [*_raw_text(config), *_benchmarks(config)]


def _raw_text(config: Namespace) -> Iterator[Fetched]:
    files: dict[str, list[str]] = {}
    domains: dict[str, list[str]] = {}
    for domain, given in config.prepare.domains.items():
        for arguments in named_sources(given, "HubFiles"):
            name = arguments["name"]
            files.setdefault(name, []).extend(_listed(arguments["files"]))
            domains.setdefault(name, []).append(domain)
    for name, patterns in files.items():
        size = raw_text_size(name, set(patterns))
        yield Fetched("raw text", name, size, tuple(dict.fromkeys(domains[name])), "prepare")


def _listed(given: Any) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def _benchmarks(config: Namespace) -> Iterator[Fetched]:
    domains: dict[str, list[str]] = {}
    for domain, tasks in config.reasoning.tasks.items():
        for name in tasks:
            task = known_task(name)
            domains.setdefault(task.data if task else f"the task {name}", []).append(domain)
    for source, of in domains.items():
        yield Fetched("benchmark data", source, "size unknown", tuple(dict.fromkeys(of)), "scores")
