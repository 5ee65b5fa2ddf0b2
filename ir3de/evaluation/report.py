"""A verdict as tables: on the console, as CSV and as JSON."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from ir3de.console import console
from ir3de.evaluation.verdict import Interval, Verdict, VerdictRow
from ir3de.experts.bank import WEIGHT_AVERAGE
from ir3de.files import replace_file, write_csv

RESULTS, CONFUSION = "results", "confusion_matrix.csv"
UNITS = {
    "normalized_performance": "normalized\nperformance %",
    "oracle_gain": "share of the\noracle's gain %",
    "routing_accuracy": "routing\naccuracy %",
    "routing_accuracy_mean": "routing accuracy %\nmean over domains",
    "regret": "regret\nnats/token",
    "cost": "cost",
}
_FORMATS = {"regret": ".4f", "normalized_performance": ".2f", "cost": ".4g"}


def units(verdict: Verdict) -> dict[str, str]:
    """Return the columns that this verdict has, with their titles."""
    shown = dict(UNITS) if any(row.cost is not None for row in verdict.routers) else _without(UNITS, "cost")
    return shown if verdict.measure == "perplexity" else {**shown, "regret": "regret\nscore"}


def verdict_table(verdict: Verdict) -> tuple[list[str], list[list[Any]]]:
    """Return the columns and rows of ``results.csv``: routers, then references; what has no value is ``None``.

    Each number is followed by the ends of its 95% interval, where it has one.
    """
    names = [*units(verdict), *(f"quality/{domain}" for domain in verdict.domains)]
    columns = ["router", "kind"]
    for name in names:
        shown = name.replace("quality/", f"{verdict.measure}/")
        columns += [shown] if name == "cost" else [shown, f"{shown}/low", f"{shown}/high"]
    rows = []
    for kind, group in (("router", verdict.routers), ("reference", verdict.references)):
        for row in group:
            cells: list[Any] = [row.router, kind]
            for name in names:
                value = row.quality[name[8:]] if name.startswith("quality/") else getattr(row, name)
                cells += [value] if name == "cost" else [value, *row.intervals.get(name, (None, None))]
            rows.append(cells)
    return columns, rows


def write_tables(verdict: Verdict, folder: Path) -> None:
    """Write results (CSV and JSON), the experts' qualities and the confusion matrix (CSV) into ``folder``."""
    columns, rows = verdict_table(verdict)
    write_csv(folder / f"{RESULTS}.csv", columns, rows)
    replace_file(folder / f"{RESULTS}.json", (json.dumps(asdict(verdict), indent=2) + "\n").encode())
    by_domain = [[d, *(verdict.expert_quality[e][d] for e in verdict.domains)] for d in verdict.domains]
    write_csv(
        folder / f"expert_{verdict.measure}.csv", ["domain", *(f"expert/{e}" for e in verdict.domains)], by_domain
    )
    confusion = verdict.routers[0].confusion or []
    lines = [[d, *counts] for d, counts in zip(verdict.domains, confusion, strict=True)]
    write_csv(folder / CONFUSION, ["domain", *(f"routed_to/{e}" for e in verdict.domains)], lines)


def flat_metrics(verdict: Verdict) -> dict[str, float]:
    """Return every number of the table under a name for loggers, such as ``test/naive_Bayes/regret``."""
    columns, rows = verdict_table(verdict)
    return {
        f"test/{re.sub(r'[^0-9A-Za-z]+', '_', row[0]).strip('_')}/{column}": float(value)
        for row in rows
        for column, value in zip(columns[2:], row[2:], strict=True)
        if value is not None
    }


def print_verdict(verdict: Verdict) -> None:
    """Print the tables: experts on domains, routers against references, and routed quality by domain."""
    out = console()
    out.print(matrix_table(verdict.measure, verdict.expert_quality, verdict.sequences))
    titles = units(verdict)
    table = Table(title="What each router keeps of the experts' quality (the run's router first)", title_style="bold")
    table.add_column("router")
    for title in titles.values():
        table.add_column(title, justify="right")
    for row in verdict.routers:
        table.add_row(*_cells(row, list(titles)))
    table.add_section()
    for row in verdict.references:
        table.add_row(*_cells(row, list(titles)))
    table.caption = f"In brackets: 95% intervals, a bootstrap of {verdict.resamples} resamples over documents."
    out.print(table)

    routed = Table(title=f"Routed {verdict.measure} by true domain", title_style="bold")
    routed.add_column("router")
    for name in verdict.domains:
        routed.add_column(name, justify="right")
    for row in [*verdict.routers, *verdict.references]:
        routed.add_row(row.router, *(f"{row.quality[d]:.2f}" for d in verdict.domains))
    out.print(routed)


def matrix_table(measure: str, quality: Mapping[str, Mapping[str, float]], sequences: Mapping[str, int]) -> Table:
    """Return the table of every expert on every domain: ``quality`` is ``[expert][domain]``, the best in bold."""
    table = Table(title=f"{measure.capitalize()} of every expert on every domain's test sequences", title_style="bold")
    table.add_column("domain (sequences)")
    for expert in quality:
        table.add_column(expert if expert == WEIGHT_AVERAGE else f"expert {expert}", justify="right")
    for domain, number in sequences.items():
        values = [quality[expert][domain] for expert in quality]
        best = min(values) if measure == "perplexity" else max(values)
        cells = [f"[bold]{v:.2f}[/bold]" if v == best else f"{v:.2f}" for v in values]
        table.add_row(f"{domain} ({number})", *cells)
    return table


def _cells(row: VerdictRow, names: list[str]) -> list[str]:
    values = [(name, getattr(row, name)) for name in names]
    return [row.router, *(_with_interval(v, row.intervals.get(n), _FORMATS.get(n, ".1f")) for n, v in values)]


def _with_interval(value: float | None, ends: Interval | None, how: str) -> str:
    if value is None:
        return ""
    return format(value, how) + (f" [dim]\\[{ends[0]:{how}}, {ends[1]:{how}}][/dim]" if ends else "")


def _without(mapping: dict[str, str], key: str) -> dict[str, str]:
    return {name: value for name, value in mapping.items() if name != key}
