"""``download``: fetches what a config needs from the hub, sizes first, resumable, checked."""

import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import datasets
from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import GatedRepoError
from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined] # made when asked for
from jsonargparse import Namespace
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.prompt import Confirm
from rich.table import Table

from ir3de.console import console
from ir3de.data.tables import HubDataset
from ir3de.experts.adapters import ADAPTER_CONFIG
from ir3de.files import replace_file
from ir3de.hub.check import gate_hints
from ir3de.hub.facts import size_text
from ir3de.hub.fetched import fetched_by_commands
from ir3de.hub.plan import NO_ACCESS, Plan, beginning, plan
from ir3de.hub.present import is_present
from ir3de.hub.requirements import Requirement, requirements
from ir3de.hub.transfer import fetch_file, partial_bytes, remember_absent, settle
from ir3de.pretrained.embeddings import INDEX, WEIGHTS

What = Literal["tokenizers", "experts", "encoders", "datasets"]
_KINDS = {
    "tokenizers": ("tokenizer",), "experts": ("expert",), "encoders": ("encoder", "embeddings"),
    "datasets": ("data set",),
}  # fmt: skip
# What is asked for where a repository may have it or not: that it has not is remembered, for runs without a network.
_ASKED_FOR = {"expert": (ADAPTER_CONFIG,), "encoder": (INDEX, WEIGHTS), "embeddings": (INDEX, WEIGHTS)}
RECORD = "downloads.json"


def download(config: Namespace, *, yes: bool = False, only: list[What] | None = None) -> None:
    """Fetch the experts, tokenizers, encoders and data sets that a config names, sizes shown first.

    What was stopped goes on where it was. Every file is compared with the hub's hash.

    Args:
        config: The parsed config.
        yes: Go on without asking; needed where there is no terminal to ask at.
        only: Kinds to fetch: tokenizers, experts, encoders, datasets. By default all.

    Raises:
        ValueError: if the hub cannot be asked, the disk is too small, or something could not be fetched.
    """
    out = console()
    chosen = [kind for name in only or _KINDS for kind in _KINDS[name]]
    asked = [one for one in requirements(config) if one.kind in chosen]
    if not asked:
        out.print("This config needs nothing of the hub.")
        return
    if constants.is_offline_mode():
        _check_offline(asked)
        out.print("HF_HUB_OFFLINE is set, and everything is in the cache already.")
        return
    disable_progress_bars()
    datasets.disable_progress_bars()
    api = HfApi()
    with out.status("Asking the hub for sizes"):
        plans = [plan(one, api) for one in asked]
        if config.experts.losses.adapter_base is None:
            plans += [plan(one, api) for one in _bases(plans) if one.source not in {of.source for of in asked}]
    out.print(_table(plans))
    for other in fetched_by_commands(config):
        note = f"not fetched here but by `{other.command}`: {other.kind}, {other.source}, {other.size}"
        out.print(note, style="dim", markup=False, soft_wrap=True)
    to_fetch = [one for one in plans if one.problem is None and not _complete(one)]
    failures = {one.requirement.source: one.problem for one in plans if one.problem}
    if to_fetch:
        if get_token() is None:
            for hint in gate_hints([one.requirement for one in to_fetch if one.gated]):
                out.print(hint, soft_wrap=True)
        _check_disk(to_fetch)
        _confirm(yes, sum(map(_bytes_to_come, to_fetch)))
        failures |= _fetch_all(to_fetch)
    fetched = [one for one in plans if one.requirement.source not in failures]
    for one in fetched:
        settle(one)
    record = _record(Path(config.runs) / config.name / RECORD, fetched)
    for one in fetched:
        out.print(f"[green]here[/green] {one.requirement.source} at commit {one.commit}", soft_wrap=True)
    if to_fetch:
        out.print(
            "What was fetched has been compared with the hub's hashes (SHA-256 for large files, git's for others)."
        )
    out.print(f"The files are in {constants.HF_HUB_CACHE}; commits and hashes in {record}.", soft_wrap=True)
    if failures:
        raise ValueError(_failed(failures, [one.requirement for one in plans]))


def _bases(plans: Sequence[Plan]) -> list[Requirement]:
    """Return the base of every expert that is an adapter, as its own configuration names it."""
    found = {}
    for one in plans:
        of = one.requirement
        for file in one.files if of.kind == "expert" else ():
            if file.name != ADAPTER_CONFIG:
                continue
            with suppress(Exception):  # what cannot be fetched now fails again, and is named, with its repository
                base = json.loads(fetch_file(one, file, lambda size: None).read_text()).get("base_model_name_or_path")
                if base and not Path(base).exists():
                    found[base] = Requirement("expert", base, (f"the base of {of.source}",))
    return list(found.values())


def _check_offline(asked: Sequence[Requirement]) -> None:
    missing = [one.source for one in asked if not is_present(one)]
    if missing:
        raise ValueError(
            f"HF_HUB_OFFLINE is set, so that nothing can be fetched; not in the cache are: {', '.join(missing)}."
            " Unset it, or copy the cache of a machine that has them and set HF_HOME to it."
        )


def _complete(one: Plan) -> bool:
    """Return whether nothing of a plan is to be done; a data set is also to be prepared by its library."""
    return not one.missing and (one.requirement.kind != "data set" or is_present(_pinned(one)))


def _pinned(one: Plan) -> Requirement:
    """Return what a plan is for, at its commit."""
    arguments = dict(one.requirement.arguments) | {"revision": one.commit}
    return replace(one.requirement, arguments=tuple(sorted(arguments.items())))


def _table(plans: Sequence[Plan]) -> Table:
    table = Table(title="What this config needs of the hub")
    for column in ("kind", "from", "for", "files", "size", "to fetch", ""):
        table.add_column(column, justify="right" if column in ("files", "size", "to fetch") else "left")
    for one in plans:
        of = one.requirement
        if one.problem is not None:
            table.add_row(of.kind, of.source, ", ".join(of.purposes), "", "", "", f"[red]{one.problem}[/red]")
            continue
        note = "gated" if one.gated else ""
        missing = size_text(_bytes_to_come(one)) if one.missing else "here"
        table.add_row(
            of.kind, of.source, ", ".join(of.purposes), str(len(one.files)), size_text(one.num_bytes), missing, note
        )
    total, missing_total = sum(one.num_bytes for one in plans), sum(map(_bytes_to_come, plans))
    table.add_section()
    table.add_row("total", "", "", "", size_text(total), size_text(missing_total), f"{size_text(_free())} free")
    return table


def _bytes_to_come(one: Plan) -> int:
    """Return the bytes that are still to be fetched, without what an earlier call has left."""
    return sum(file.size - partial_bytes(one, file) for file in one.missing)


def _free() -> int:
    """Return the bytes that are free where the cache is."""
    folder = Path(constants.HF_HUB_CACHE)
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(there).free


def _check_disk(plans: Sequence[Plan]) -> None:
    needed = sum(map(_bytes_to_come, plans))
    if needed > _free():
        raise ValueError(
            f"Expected {size_text(needed)} free in `{constants.HF_HUB_CACHE}`, but there are {size_text(_free())}."
            " Set HF_HOME to a larger disk, or fetch a part with --only."
        )


def _confirm(yes: bool, num_bytes: int) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise ValueError(f"There is no terminal to ask at: say `--yes true` to fetch {size_text(num_bytes)}.")
    if not Confirm.ask(f"Fetch {size_text(num_bytes)}?", console=console(), default=True):
        raise ValueError("Nothing was fetched.")


def _fetch_all(plans: Sequence[Plan]) -> dict[str, str]:
    """Fetch every file of every plan, and return what went wrong, by source."""
    failures: dict[str, str] = {}
    columns: list[Any] = [TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()]
    with Progress(*columns, TimeRemainingColumn(), console=console()) as progress:
        for one in plans:
            of = one.requirement
            task = progress.add_task(of.source, total=one.missing_bytes)
            try:
                for file in one.missing:
                    fetch_file(one, file, lambda size, task=task: progress.advance(task, size))  # type: ignore[misc]
                _remember_absent(one)
                if of.kind == "data set":  # makes the table that the library reads, and looks at it
                    HubDataset(**dict(_pinned(one).arguments)).check()
            except Exception as error:  # it is one of many: named, and the others go on
                failures[of.source] = _reason(error)
                progress.console.print(f"[red]failed[/red] {of.source}: {failures[of.source]}", soft_wrap=True)
    return failures


def _remember_absent(one: Plan) -> None:
    of, names = one.requirement, {file.name for file in one.files}
    if of.source.endswith(".pth"):
        return
    for name in _ASKED_FOR.get(of.kind, ()):
        if name not in names:
            remember_absent(one, name)


def _reason(error: Exception) -> str:
    return NO_ACCESS if isinstance(error, GatedRepoError) else beginning(error)


def _record(path: Path, plans: Sequence[Plan]) -> Path:
    """Write which commit and which hashes are here, beside what earlier calls fetched."""
    known: dict[str, Any] = {}
    with suppress(FileNotFoundError):
        known = json.loads(path.read_text())
    for one in plans:
        hashes = {file.name: file.sha256 or f"git:{file.git_hash}" for file in one.files}
        known[f"{one.requirement.repo_type}:{one.requirement.source}:{one.requirement.kind}"] = {
            "commit": one.commit, "bytes": one.num_bytes, "files": hashes,
        }  # fmt: skip
    replace_file(path, json.dumps(known, indent=1, sort_keys=True).encode())
    return path


def _failed(failures: dict[str, str], asked: Sequence[Requirement]) -> str:
    lines = [f"{len(failures)} could not be fetched; `download` again goes on where this was:"]
    lines += [f"  {source}: {reason}" for source, reason in failures.items()]
    return "\n".join([*lines, *gate_hints([one for one in asked if failures.get(one.source) == NO_ACCESS])])
