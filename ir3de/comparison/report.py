"""The comparison as files: CSV, Markdown, a self-contained page, and the table on the console."""

import base64
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.table import Table

from ir3de.comparison.published import PROTOCOLS, Measured, measured, published_table
from ir3de.comparison.standings import Difference, Standing, table_columns, table_row
from ir3de.console import console
from ir3de.evaluation.verdict import Interval
from ir3de.files import replace_file, write_csv

_OTHER = " The comparison by the other protocol is of another setting, other data or another bank, and is left out."
CSV, MARKDOWN, PAGE, JSON = "comparison.csv", "report.md", "report.html", "comparison.json"


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that the comparison found, and what it was made of. The first standing is what others are tested against."""

    name: str
    measure: str
    domains: tuple[str, ...]
    standings: list[Standing]
    failures: dict[str, str]
    figures: dict[str, str]
    sequences: dict[str, int]
    documents: dict[str, int]
    checked_documents: int
    data: dict[str, str]
    seeds: list[int]
    versions: dict[str, str]
    machine: str
    frozen: str
    config: str
    setting: str | None = None
    protocol: str = "corrected"
    faults: list[str] = field(default_factory=list)
    measured_on: dict[str, Any] = field(default_factory=dict)  # setting, data and bank, whatever the protocol
    by_other_protocol: Measured = field(default_factory=dict)
    other_agrees: bool = True  # whether that was measured on the same

    @property
    def first(self) -> Standing:
        """The router that others are tested against."""
        return self.standings[0]

    def tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """Return the report's tables: title, columns and cells."""
        tables = [self.quality_table(), self.domain_table(), self.cost_table()]
        return tables if self.setting is None else [self.published_table(self.setting), *tables]

    def published_table(self, setting: str) -> tuple[str, list[str], list[list[str]]]:
        """Return the paper's figures beside those of this comparison, and of the one by the other protocol."""
        (other,) = (one for one in PROTOCOLS if one != self.protocol)
        return published_table(setting, {self.protocol: measured(self.standings), other: self.by_other_protocol})

    def quality_table(self) -> tuple[str, list[str], list[list[str]]]:
        """Return what each router keeps, and whether it differs from the first one."""
        regret = "regret, nats/token" if self.measure == "perplexity" else "regret, score"
        columns = [
            "router",
            "normalized performance %",
            "routing accuracy %, mean over domains",
            "all sequences %",
            regret,
            "share of the oracle's gain %",
            f"accuracy minus {self.first.name}'s",
            "p",
            "calibration error %",
        ]
        rows = []
        for one in self.standings:
            row, difference = one.row, one.differences.get("routing_accuracy_mean")
            rows.append([
                one.name,
                _ends(row.normalized_performance, row.intervals.get("normalized_performance"), ".2f"),
                _spread(_ends(row.routing_accuracy_mean, row.intervals.get("routing_accuracy_mean"), ".1f"), one),
                _number(row.routing_accuracy, ".1f"),
                _ends(row.regret, row.intervals.get("regret"), ".4f"),
                _ends(row.oracle_gain, row.intervals.get("oracle_gain"), ".1f"),
                _difference(difference),
                "" if difference is None else f"{difference.p_value:.3f}",
                "" if one.reliability is None else f"{one.reliability.error:.1f}",
            ])  # fmt: skip
        return "What each router keeps of the experts' quality", columns, rows

    def domain_table(self) -> tuple[str, list[str], list[list[str]]]:
        """Return the routed perplexity or score of each true domain."""
        rows = [
            [
                one.name,
                *(_ends(one.row.quality[d], one.row.intervals.get(f"quality/{d}"), ".2f") for d in self.domains),
            ]
            for one in self.standings
        ]
        return f"Routed {self.measure} by true domain", ["router", *self.domains], rows

    def cost_table(self) -> tuple[str, list[str], list[list[str]]]:
        """Return what each router costs."""
        priced = [key for key in ("price", "latency") if any(getattr(one, key) is not None for one in self.standings)]
        columns = ["router", "what it is", "chosen on validation data", "parameters", "MB on disk",
                   "training sequences", "fit, s", "adding an expert, s", "decision from ids, µs: p50 / p99",
                   "from text, µs: p50 / p99", *priced]  # fmt: skip
        rows = []
        for one in self.standings:
            costs, fit = one.costs, one.fit
            if costs is None or one.kind == "reference":
                continue
            ids, text = costs.from_ids, costs.from_text
            seconds = "" if fit is None else f"{fit.seconds:.1f}"
            if fit is not None and fit.embedding_seconds:
                seconds += f" + {fit.embedding_seconds:.0f} embedding"
            rows.append([
                one.name,
                one.display_name,
                ", ".join(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
                          for key, value in one.chosen.items() if value is not None),
                f"{costs.num_parameters:,}",
                f"{costs.bytes_on_disk / 1e6:,.1f}",
                "" if fit is None else f"{sum(fit.training_sequences.values()):,}",
                seconds,
                _number(costs.add_expert_seconds, ".2f"),
                "" if ids is None else f"{ids.p50:,.0f} / {ids.p99:,.0f}",
                "" if text is None else f"{text.p50:,.0f} / {text.p99:,.0f}",
                *(_number(getattr(one, key), ".4g") for key in priced),
            ])  # fmt: skip
        return "What each router costs", columns, rows

    def notes(self) -> list[str]:
        """Return what a reader has to know, a sentence or two each."""
        documents = ", ".join(f"{n} {self.sequences[n]:,} of {self.documents[n]:,}" for n in self.domains)
        trained = {sum(one.fit.training_sequences.values()): one.name for one in self.standings if one.fit is not None}
        windowed = {one.name: one.fit.windowed for one in self.standings if one.fit is not None and one.fit.windowed}
        several = [one.name for one in self.standings if one.seeds > 1]
        faulty = f" Faults that are on: {', '.join(self.faults)} (docs/protocols.md)." if self.faults else ""
        checked = f"{self.checked_documents:,} test documents were looked for among those of training and validation"
        apart = "not where `faults.fit_on_test` fits on them" if "fit_on_test" in self.faults else "none is there"
        chosen = "on test data, as published," if "choose_on_test" in self.faults else "on validation data"
        frozen = "" if "choose_on_test" in self.faults else " before a test sequence was read"
        notes = [
            f"Protocol: {self.protocol}.{faulty}{'' if self.other_agrees else _OTHER}",
            f"Test sequences, of so many documents: {documents}. {checked}: {apart}.",
            f"Every choice (settings, epochs, k, λ, temperature) was made {chosen} and frozen{frozen}"
            f" (SHA-256 of choices.json: {self.frozen[:16]}…).",
            "In brackets: 95% intervals, a bootstrap of 1,000 resamples over documents with all of their sequences,"
            f" the same draws for all. p: two-sided, paired, against {self.first.name}; not corrected for the number of"
            " routers.",
        ]
        if several:
            notes.append(
                f"Means over the seeds {self.seeds} for {', '.join(several)} (±: standard deviation over seeds)."
            )
        if len(trained) > 1:
            notes.append(
                "Routers do not all read the same amount of training text: those with an encoder are given fewer"
                " sequences (the column says how many), for a pass costs milliseconds a sequence; the learning curves"
                " show the others with as few."
            )
        if windowed:
            notes.append(
                "Longer than the encoder's window, and so averages of windows, were this many training and validation"
                f" sequences: {', '.join(f'{name} {count}' for name, count in windowed.items())}. Nothing was cut."
            )
        notes.append(
            f"Decisions were timed one prompt at a time on {self.machine}; p99 of at most 100 prompts is nearly the"
            " slowest of them. The time to fit is from prepared text; to add an expert, from what was read of its"
            " domain (a gradient-trained router is fitted again)."
        )
        return notes


def write_report(report: Report, folder: Path) -> None:
    """Write CSV, JSON, Markdown and the page into ``folder``, and print the first table."""
    columns = table_columns(report.domains, report.measure)
    rows = [table_row(one, report.domains, report.measure) for one in report.standings]
    write_csv(folder / CSV, columns, [[row.get(column) for column in columns] for row in rows])
    replace_file(folder / JSON, (json.dumps(asdict(report), indent=1, default=str) + "\n").encode())
    environment = Environment(
        loader=PackageLoader("ir3de.comparison"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        autoescape=lambda name: name is not None and name.endswith(".html"),
    )  # fmt: skip
    given: dict[str, Any] = {"report": report, "tables": report.tables(), "notes": report.notes()}
    replace_file(folder / MARKDOWN, environment.get_template("report.md").render(**given).encode())
    pictures = {file: base64.b64encode((folder / file).read_bytes()).decode() for file in report.figures}
    page = environment.get_template("report.html").render(**given, pictures=pictures)
    replace_file(folder / PAGE, page.encode())
    _print(report, folder)


def _print(report: Report, folder: Path) -> None:
    out = console()
    if report.setting is not None:
        out.print(_shown(*report.published_table(report.setting)))
    table = _shown(*report.quality_table())
    table.caption = "In brackets: 95% intervals over documents. The report has costs, domains, figures and notes."
    out.print(table)
    for name, why in report.failures.items():
        out.print(f"[red]{name} failed[/red]: {why}", soft_wrap=True)
    for file in (CSV, MARKDOWN, PAGE):
        out.print(f"[green]written[/green] {folder / file}", soft_wrap=True)


def _shown(title: str, columns: list[str], rows: list[list[str]]) -> Table:
    table = Table(title=title, title_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    for cells in rows:
        table.add_row(*(cell.replace("[", "\\[") for cell in cells))
    return table


def _number(value: float | None, how: str) -> str:
    return "" if value is None else format(value, how)


def _ends(value: float | None, ends: Interval | None, how: str) -> str:
    return _number(value, how) + (f" [{ends[0]:{how}}, {ends[1]:{how}}]" if value is not None and ends else "")


def _spread(shown: str, one: Standing) -> str:
    return shown if one.deviation is None else f"{shown} ±{one.deviation:.1f}"


def _difference(one: Difference | None) -> str:
    return "" if one is None else _ends(one.value, one.interval, "+.1f")
