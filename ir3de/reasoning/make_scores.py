"""From a config to the score table: prompts first, then one expert after the other, then the table."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from ir3de.configs import built, experts_folder
from ir3de.console import console
from ir3de.data.domain import path_in
from ir3de.experts.bank import WEIGHT_AVERAGE, ExpertBank
from ir3de.experts.expert_tokenizer import load_expert_tokenizer
from ir3de.experts.memory import free_bytes
from ir3de.files import replace_file
from ir3de.reasoning.answers import AnswerCache, answers_folder
from ir3de.reasoning.benchmarks import Benchmark, load_benchmarks
from ir3de.reasoning.chatter import without_chatter
from ir3de.reasoning.code_execution import code_execution
from ir3de.reasoning.expert_lm import Asking, ExpertLM
from ir3de.reasoning.prompts import DomainPrompts, check_sources, in_two_domains, make_prompts, reasons, write_prompts
from ir3de.reasoning.score_rows import DomainRows, domain_rows, write_score_table
from ir3de.reasoning.settings import KEY, Reasoning
from ir3de.reasoning.task_scores import TaskScores, score_task

Scores = dict[str, dict[str, list[TaskScores]]]  # by domain, then by member


@dataclass(frozen=True)
class _Run:
    """What a run is made of."""

    settings: Reasoning
    bank: ExpertBank
    tokenizers: dict[str, Any]
    cache_dir: Path
    allow_code: bool

    @property
    def members(self) -> tuple[str, ...]:
        return self.bank.members if self.settings.average else self.bank.names


def make_scores(config: Namespace, *, only: Sequence[str] | None, allow_code: bool) -> None:
    """Write the prompts and the score table that a config describes; see ``scores``.

    Raises:
        FileNotFoundError: if an expert or a source is missing.
        ValueError: if a task or an expert is not as it should be, or code would run without leave or isolation.
    """
    settings, domains = built(Reasoning, KEY, config.reasoning), sorted(config.data.domains)
    settings.check(domains)
    asked = domains if only is None else [name for name in domains if name in only]
    if only is not None and len(asked) < len(set(only)):
        raise ValueError(f"Expected `--domain` to name domains of {domains}, but got {list(only)}.")
    path, folders = _table_path(config), _prompt_folders(config)
    check_sources(settings)
    bank = _bank(config, domains)
    tokenizers = {name: load_expert_tokenizer(bank.sources[name], fallback=config.data.tokenizer) for name in domains}
    tokenizers[WEIGHT_AVERAGE] = tokenizers[bank.names[0]]
    run = _Run(settings, bank, tokenizers, Path(config.data.cache_dir), allow_code)
    out = console(stderr=True)
    if settings.limit is not None:
        out.print(f"[yellow]A smaller run: {settings.limit} questions of every task[/yellow] (`reasoning.limit`)")
    with without_chatter(), code_execution(allowed=allow_code):
        benchmarks = load_benchmarks(settings, domains if only is None else asked, allow_code=allow_code)
        if only is None:
            prompts = make_prompts(benchmarks, settings)
            write_prompts(folders, prompts)
            _report_prompts(prompts, folders, settings)
        if config.experts.losses.residence == "all":
            out.print(
                "[yellow]`scores` has one expert in memory at a time[/yellow], whatever `experts.losses.residence`"
                " says (all): each answers every question before the next one is loaded", soft_wrap=True,
            )  # fmt: skip
        out.print(bank.settle(free_bytes(device_of(settings.device))), soft_wrap=True)
        if settings.average and WEIGHT_AVERAGE not in run.members:
            out.print(f"There is no average of weights: {bank.architectures_differ()}.", soft_wrap=True)
        out.print(
            f"[dim]Answers are kept in {run.cache_dir / 'answers'}; a run that is stopped goes on from there[/dim]"
        )
        found = _answer(run, benchmarks)
    rows = [domain_rows(name, found[name]) for name in benchmarks]
    _report_scores(rows, found, run.members)
    if only is not None:
        out.print(f"answered: {', '.join(asked)}. Without `--domain` the table is written", soft_wrap=True)
        return
    write_score_table(path, rows, run.members)
    replace_file(path.with_suffix(".json"), json.dumps(_facts(found, run), indent=1).encode())
    console().print(f"[green]written[/green] {path}", soft_wrap=True)


def device_of(name: str) -> torch.device:
    """Return the device that a setting names; ``auto`` is the first GPU, or the CPU.

    Raises:
        ValueError: if there is no such device.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"Expected a device such as cpu or cuda:0, or auto, but got `{name}`.") from error


def _table_path(config: Namespace) -> Path:
    path = config.experts.losses.table
    if path is None or not str(path).endswith(".parquet"):
        raise ValueError(f"Expected `experts.losses.table` to say where scores go, as .parquet, but got `{path}`.")
    return Path(path)


def _prompt_folders(config: Namespace) -> dict[str, Path]:
    named = {name: given for name, given in config.data.domains.items() if isinstance(given, str)}
    if len(named) < len(config.data.domains):
        others = sorted({*config.data.domains} - {*named})
        raise ValueError(f"Expected a folder for each of `data.domains`, where prompts go, but got none for {others}.")
    return {name: path_in(config.data.root, given) for name, given in sorted(named.items())}


def _bank(config: Namespace, domains: list[str]) -> ExpertBank:
    given, losses = config.experts.bank, config.experts.losses
    # One at a time: an expert answers everything before the next one, and what it leaves free holds its answers' state.
    settings = {"dtype": losses.dtype, "residence": "one", "adapter_base": losses.adapter_base}
    if not isinstance(given, Mapping):
        folder = experts_folder(given, runs=config.runs, name=config.name)
        return ExpertBank.from_folder(folder, domains, **settings)
    if {*given} != {*domains}:
        raise ValueError(f"Expected an expert in `experts.bank` for each of {domains}, but got {sorted(given)}.")
    return ExpertBank({name: given[name] for name in domains}, **settings)


def _answer(run: _Run, benchmarks: Mapping[str, Benchmark]) -> Scores:
    settings = run.settings
    bare = (
        {name: one.prompt_field for one in benchmarks.values() for name in one.tasks} if settings.bare_prompts else {}
    )
    asking = Asking(
        batch_size=settings.batch_size,
        shard_requests=settings.shard_requests,
        device=device_of(settings.device),
        seed=settings.seed,
        bare=bare,
    )
    work = [(one, name, task) for one in benchmarks.values() for name, task in one.tasks.items()]
    found: Scores = {name: {member: [] for member in run.members} for name in benchmarks}
    columns = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
    with Progress(*columns, TimeElapsedColumn(), console=console(stderr=True)) as bar:
        every = bar.add_task("Tasks", total=len(run.members) * len(work))
        one_task = bar.add_task("Answers", total=None)
        for member in run.members:
            tokenizer = run.tokenizers[member]
            folder = answers_folder(
                run.cache_dir,
                fingerprint=run.bank.fingerprint(member),
                dtype=run.bank.dtype,
                tokenizer=tokenizer,
                seed=settings.seed,
            )
            lm = ExpertLM(
                run.bank, member, tokenizer=tokenizer, asking=asking, cache=AnswerCache(folder),
                on_answers=lambda done, total: bar.update(one_task, completed=done, total=total),
            )  # fmt: skip
            for benchmark, name, task in work:
                bar.update(one_task, description=f"{name} under {member}", completed=0, total=None)
                scored = score_task(lm, task, benchmark, settings, allow_code=run.allow_code)
                found[benchmark.domain][member].append(scored)
                bar.advance(every)
            lm.release()
    return found


def _report_prompts(prompts: Sequence[DomainPrompts], folders: Mapping[str, Path], settings: Reasoning) -> None:
    table = Table(title="Prompts of the router")
    for column in ("domain", "train", "validation", "test", "questions", "of one text", "left out"):
        table.add_column(column, justify="left" if column == "domain" else "right")
    for one in prompts:
        sizes = [len(one.prompts[split]) for split in ("train", "validation", "test")]
        numbers = [*sizes, one.questions, one.merged, sum(one.left_out.values())]
        table.add_row(one.domain, *(f"{number:,}" for number in numbers))
    out = console(stderr=True)
    out.print(table)
    for one in prompts:
        fewer = len(one.prompts["train"])
        if fewer < settings.prompts:
            out.print(
                f"[yellow]{one.domain} has {fewer} prompts to train on[/yellow], {settings.prompts} were asked for"
            )
        if one.left_out:
            out.print(f"left out of what {one.domain} is fitted on: {reasons(one.left_out)}", soft_wrap=True)
        if one.respaced:
            out.print(
                f"[yellow]{one.respaced} questions of {one.domain} differ from another by white space alone[/yellow];"
                " they are routed by its text", soft_wrap=True,
            )  # fmt: skip
    for name, count in in_two_domains(prompts).items():
        out.print(
            f"[yellow]{count} questions of {name} are questions of another domain too[/yellow]; no router can be right"
            " about them, and the data module leaves them out", soft_wrap=True,
        )  # fmt: skip
    for folder in folders.values():
        console().print(f"[green]written[/green] {folder}/{{train,validation,test}}.jsonl", soft_wrap=True)


def _report_scores(rows: Sequence[DomainRows], found: Scores, members: Sequence[str]) -> None:
    table = Table(title="Scores of the experts, in percent")
    table.add_column("expert")
    for one in rows:
        table.add_column(one.domain, justify="right")
    for place, member in enumerate(members):
        table.add_row(member, *(f"{100 * one.score_M()[place]:.2f}" for one in rows))
    console().print(table)
    for by_member in found.values():
        for member, tasks in by_member.items():
            for task in tasks:
                if task.cut:
                    console(stderr=True).print(
                        f"[yellow]{task.cut} prompts of {task.task} did not fit into the window of {member}[/yellow],"
                        " which lost their beginning", soft_wrap=True,
                    )  # fmt: skip


def _facts(found: Scores, run: _Run) -> dict[str, Any]:
    """Return what the table was made with, and what lm-eval reports of every task."""
    settings = {key: value for key, value in asdict(run.settings).items() if key != "training"}
    sources = run.settings.training
    reported = {
        domain: {member: {task.task: task.reported for task in tasks} for member, tasks in by_member.items()}
        for domain, by_member in found.items()
    }
    return {
        "settings": settings,
        "training": {name: one if isinstance(one, str) else one.identity() for name, one in sources.items()},
        "dtype": run.bank.dtype,
        "experts": {name: [run.bank.sources.get(name), run.bank.fingerprint(name)] for name in run.members},
        "versions": {name: version(name) for name in ("lm_eval", "transformers", "torch")},
        "reported": reported,
    }
