"""The comparison from end to end: fit, freeze, score once, time, draw, report."""

import hashlib
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ir3de.comparison.drawing import draw
from ir3de.comparison.entries import Entry, find_entries, seeds_of
from ir3de.comparison.fits import Fit, Fitter, fitted_router, read_fit
from ir3de.comparison.published import read_measured
from ir3de.comparison.report import JSON, Report, write_report
from ir3de.comparison.scored import score_all, stand
from ir3de.comparison.scoring import DECISIONS, write_decisions
from ir3de.comparison.tracking import track
from ir3de.console import console, without_chatter
from ir3de.data.datamodule import DomainDataModule
from ir3de.evaluation.resampling import Table
from ir3de.files import replace_file
from ir3de.routers.router import Router
from ir3de.runs import global_rank
from ir3de.tracking import Tracking

FROZEN, IDENTITY = "choices.json", "data.json"
VERSIONS = ("torch", "lightning", "transformers", "tokenizers", "scikit-learn", "numpy")


@dataclass
class Comparison:
    """Compares routers on one data module.

    Args:
        data: The domains.
        folder: Where everything is written.
        make_trainer: Gives a trainer that writes into a folder.
        make_table: Gives the test split's losses or scores under every expert.
        best_single: Gives the best single expert on so many validation sequences of each domain.
        routers: What is compared: names of configs, paths of configs, or folders of saved routers.
        seed: The first seed, which also draws resamples.
        tracking: How W&B is told, if at all.
        prices: What a million tokens cost under each expert, where that is given.
        latencies: Seconds of an answer of each expert, where they are given.
        config: The run's resolved config, for the report.
        setting: Which of the paper's settings this is, if any.
        protocol: The protocol by which the config says that it measures.
        other: The folder of the comparison by the other protocol.
        bank: Where each expert is.
        place_experts: Puts the bank's experts where a router's config names them.
        fit_settings: What of it decides a fit beside the router's own config: how text is read and trained on.
    """

    data: DomainDataModule
    folder: Path
    make_trainer: Callable[[Path], Trainer]
    make_table: Callable[[], Table]
    best_single: Callable[[int], str]
    routers: Sequence[str]
    seed: int
    tracking: Tracking | None
    prices: Mapping[str, float] | None = None
    latencies: Mapping[str, float] | None = None
    config: str = ""
    setting: str | None = None
    protocol: str = "corrected"
    other: Path | None = None
    bank: Mapping[str, str] = field(default_factory=dict)
    fit_settings: str = ""
    place_experts: Callable[[dict[str, Any]], dict[str, Any]] = dict
    failures: dict[str, str] = field(default_factory=dict)

    def run(self, *, seeds: int) -> None:
        """Compare the routers; those with something drawn in them are fitted with so many seeds.

        Raises:
            FileNotFoundError: if a config or an expert is missing.
            ValueError: if a config is none of a router's, test documents are among the training documents, the folder
                has a comparison on other data, or no router could be fitted.
        """
        if seeds < 1:
            raise ValueError(f"Expected `seeds` to be at least 1, but got {seeds}.")
        entries = find_entries(self.routers, place_experts=self.place_experts)
        kinds = {entry.name: None if entry.config is None else entry.module().router for entry in entries}
        costs = {"prices": self.prices, "latencies": self.latencies}
        for key, given in costs.items():
            if given is not None and set(given) != set(self.data.domain_names):
                raise ValueError(
                    f"Expected `experts.{key}` for each of {list(self.data.domain_names)}, but got {sorted(given)}."
                )
        checked = self.data.check_disjoint()
        identity = self._check_data()
        content = {split: self.data.expert_blocks(split).content for split in ("train", "validation", "test")}
        measured_on = {"setting": self.setting, "content": content, "bank": dict(self.bank)}
        by_other, agrees = ({}, True) if self.other is None else read_measured(self.other / JSON, measured_on)
        fits = self._fit(entries, kinds, seeds, identity)
        if global_rank() > 0:
            return
        if not fits:
            raise ValueError(f"No router could be fitted: {'; '.join(f'{k}: {v}' for k, v in self.failures.items())}")
        fitted = self._freeze(entries, fits)
        out = console(stderr=True)
        out.print("[dim]All choices are frozen; now the test sequences are read[/dim]")
        self.data.trainer = None  # what follows is one process's work
        table = self.make_table()
        document_N = torch.from_numpy(self.data.router_rows("test").documents())
        scored = score_all(fitted, self.data, table, self.failures)
        write_decisions(
            self.folder / DECISIONS, table, document_N.numpy(),
            {one.entry.name: one.experts for one in scored}, {one.entry.name: one.scores for one in scored},
        )  # fmt: skip
        standings = stand(scored, table, document_N, self)
        figures = draw(standings, scored, self.data, self.folder, self.failures)
        report = Report(
            name=self.folder.parent.name,
            measure=table.measure,
            domains=self.data.domain_names,
            standings=standings,
            failures=self.failures,
            figures=figures,
            sequences={name: int((table.domain_N == i).sum()) for i, name in enumerate(self.data.domain_names)},
            documents={n: len(document_N[table.domain_N == i].unique()) for i, n in enumerate(self.data.domain_names)},
            checked_documents=checked,
            data=identity,
            seeds=[self.seed + place for place in range(seeds)],
            versions={"python": platform.python_version()} | {name: version(name) for name in VERSIONS},
            machine=f"{platform.machine()}, {torch.get_num_threads()} threads",
            frozen=hashlib.sha256((self.folder / FROZEN).read_bytes()).hexdigest(),
            config=self.config,
            setting=self.setting,
            protocol=self.protocol,
            faults=self.data.faults.on,
            measured_on=measured_on,
            by_other_protocol=by_other,
            other_agrees=agrees,
        )
        write_report(report, self.folder)
        if self.tracking is not None:
            track(report, scored, self.folder, self.tracking)

    def _check_data(self) -> dict[str, str]:
        identity = {split: self.data.expert_blocks(split).fingerprint for split in ("train", "validation", "test")}
        path = self.folder / IDENTITY
        if path.is_file():
            there = json.loads(path.read_text())
            differing = [split for split, value in identity.items() if there.get(split) != value]
            if differing:
                raise ValueError(
                    f"The comparison in `{self.folder}` was made on other data ({', '.join(differing)} differ). Give"
                    " this one a `--name` of its own, or remove that folder."
                )
        if global_rank() == 0:
            replace_file(path, json.dumps(identity, indent=1).encode())
        return identity

    def _fit(
        self, entries: Sequence[Entry], kinds: Mapping[str, Router | None], seeds: int, identity: Mapping[str, str]
    ) -> dict[tuple[str, int], Path]:
        """Return the folder of every fitted router by its name and seed; what fails is kept in ``failures``."""
        decides = json.dumps([dict(identity), self.fit_settings], sort_keys=True)
        digest = hashlib.sha256(decides.encode()).hexdigest()
        fitter = Fitter(self.data, digest, self.make_trainer, self.best_single, self.seed)
        found: dict[tuple[str, int], Path] = {}
        work = []
        for entry in entries:
            router = kinds[entry.name]
            work += [(entry, place) for place in ([0] if router is None else seeds_of(router, seeds))]
        columns = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
        with Progress(*columns, TimeElapsedColumn(), console=console(stderr=True), disable=global_rank() > 0) as bar:
            task = bar.add_task("Fitting", total=len(work))
            for entry, place in work:
                bar.update(task, description=f"Fitting {entry.name}" + (f", seed {place}" if place else ""))
                folder = self.folder / "fits" / entry.name / f"seed_{self.seed + place}"
                if entry.saved is not None:
                    found[entry.name, place] = entry.saved.parent
                else:
                    try:
                        with without_chatter():
                            fitter.fit(entry, place, folder)
                        found[entry.name, place] = folder
                    except Exception as error:  # one router's failure must not lose the others
                        self.failures[entry.name] = _sentence(error)
                        bar.console.print(
                            f"[red]{entry.name} failed[/red]: {self.failures[entry.name]}", soft_wrap=True
                        )
                bar.advance(task)
        return {key: folder for key, folder in found.items() if key[0] not in self.failures}

    def _freeze(
        self, entries: Sequence[Entry], fits: Mapping[tuple[str, int], Path]
    ) -> list[tuple[Entry, list[Router], list[Path], Fit | None]]:
        """Load every fitted router, and write down what each is, before any test sequence is read."""
        found, frozen = [], {}
        for entry in entries:
            folders = [folder for (name, _), folder in fits.items() if name == entry.name]
            if not folders:
                continue
            try:
                routers = [fitted_router(entry, folder) for folder in folders]
                _check_experts(routers[0], self.data)
            except Exception as error:
                self.failures[entry.name] = _sentence(error)
                continue
            homes = [folder / "router" if entry.saved is None else entry.saved for folder in folders]
            frozen[entry.name] = [{"identity": r.identity_hash(), "chosen": r.chosen()} for r in routers]
            found.append((entry, routers, homes, read_fit(folders[0])))
        replace_file(self.folder / FROZEN, json.dumps(frozen, indent=1, sort_keys=True).encode())
        return found


def _check_experts(router: Router, data: DomainDataModule) -> None:
    if router.expert_names != data.domain_names:
        raise ValueError(
            f"it chooses between {list(router.expert_names)}, but the domains are {list(data.domain_names)}"
        )


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
