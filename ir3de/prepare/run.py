"""The command ``prepare``: every domain's raw text to token Parquet, as the paper's data lie."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.utils.tqdm import disable_progress_bars
from jsonargparse import Namespace
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ir3de.configs import built
from ir3de.console import console
from ir3de.data.domain import path_in
from ir3de.data.splits import SPLITS
from ir3de.prepare.domain import DomainPlan, Status
from ir3de.prepare.encode import Around
from ir3de.prepare.settings import Preparation
from ir3de.pretrained.loading import load_tokenizer

COUNTS = ("documents", "rows", "tokens_in_rows", "tokens_cut", "tokens_left_over", "documents_without_row")


def prepare(config: Namespace, *, domain: list[str] | str | None = None) -> None:
    """Make token Parquet of raw text: DATA.ROOT/DOMAIN/{train,validation,test}/*.parquet.

    Args:
        config: the config, of which `data` and `prepare` are read.
        domain: prepare this domain only, or these (`[cs_l1, math_l1]`); by default all of `prepare.domains`.

    Raises:
        ValueError: if settings or sources do not fit, or what is there was made with others.
        FileNotFoundError: if a source is not there.
    """
    settings = built(Preparation, "prepare", config.prepare)
    names = _names(config, settings, [domain] if isinstance(domain, str) else domain)
    plans = [
        DomainPlan.of(
            name, _folder(config, name), settings, block_length=config.data.block_length, pack=config.data.pack
        )
        for name in names
    ]
    tokenizer = load_tokenizer(config.data.tokenizer)
    around = Around.of(settings.separator, tokenizer, config.data.tokenizer)
    disable_progress_bars()  # ours says what is fetched
    columns = [SpinnerColumn(), TextColumn("{task.description}"), _StatusColumn(), TimeElapsedColumn()]
    made: dict[str, Mapping[str, Any]] = {}
    with Progress(*columns, console=console(stderr=True)) as bar:
        for plan in plans:
            status = Status()
            task = bar.add_task(plan.name, total=None, status=status)
            made[plan.name] = plan.make(tokenizer, config.data.tokenizer, around, status)
            bar.update(task, total=1, completed=1)
    _report(made, {plan.name: plan.folder for plan in plans})


def _names(config: Namespace, settings: Preparation, chosen: list[str] | None) -> list[str]:
    """Return the domains to prepare, and refuse what would fail later."""
    settings.check()
    if not settings.domains:
        raise ValueError(
            "Expected `prepare.domains` to say where each domain's raw text is, but it is empty. Add it to the config:"
            " `prepare: prepare/m2d2.yaml` shows how."
        )
    unknown = sorted({*(chosen or [])} - {*settings.domains})
    if unknown:
        raise ValueError(f"Expected `--domain` to name some of {list(settings.domains)}, but got {unknown}.")
    if config.data.root is None:
        raise ValueError("Expected `data.root`, the folder that `prepare` writes to, but got null. Set it.")
    if config.data.tokenizer == "train":
        raise ValueError(
            "Expected `data.tokenizer` to name the experts' tokenizer (a hub id, a folder, package:NAME), but got"
            " `train`: a tokenizer is trained on text, and `prepare` leaves token ids only."
        )
    small = {split: limit for split, limit in (settings.max_tokens or {}).items() if limit < config.data.block_length}
    if small:
        raise ValueError(
            f"Expected `prepare.max_tokens` to be at least a block of {config.data.block_length}, but got {small}."
        )
    return [name for name in settings.domains if not chosen or name in chosen]


def _folder(config: Namespace, name: str) -> Path:
    """Return where the data module reads the domain."""
    there = config.data.domains.get(name, name)
    if not isinstance(there, str):
        raise ValueError(
            f"Expected `data.domains.{name}` to be a folder within `data.root`, which `prepare` writes, but it is a"
            " source of its own. Write its folder, or prepare other domains with `--domain`."
        )
    return path_in(config.data.root, there)


class _StatusColumn(ProgressColumn):
    """What a domain is at whenever the bar is drawn, while a file is fetched too."""

    def render(self, task: Task) -> Text:
        return Text(str(task.fields["status"]))


def _report(made: Mapping[str, Mapping[str, Any]], folders: Mapping[str, Path]) -> None:
    table = Table(title="Prepared")
    table.add_column("domain")
    table.add_column("split")
    for count in (*COUNTS, "files"):
        table.add_column(count.replace("_", " "), justify="right")
    for name, manifest in made.items():
        for split in SPLITS:
            state = manifest["splits"][split]
            table.add_row(name, split, *(f"{state[count]:,}" for count in COUNTS), f"{len(state['files']):,}")
    out = console()
    out.print(table)
    for name, manifest in made.items():
        left_out = [
            f"{count:,} {reason} ({splits})"
            for splits, reasons in manifest["left_out"].items()
            for reason, count in reasons.items()
        ]
        out.print(f"{name}: {folders[name]}" + (f"; passed over: {', '.join(left_out)}" if left_out else ""))
