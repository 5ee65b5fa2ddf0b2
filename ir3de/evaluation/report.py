"""A verdict as tables: on the console, as CSV and as JSON."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from ir3de.console import console
from ir3de.evaluation.verdict import Verdict, VerdictRow
from ir3de.files import replace_file, write_csv

RESULTS, PERPLEXITY, CONFUSION = "results", "expert_perplexity.csv", "confusion_matrix.csv"
UNITS = {
    "normalized_performance": "normalized\nperformance %",
    "routing_accuracy": "routing\naccuracy %",
    "routing_accuracy_mean": "routing accuracy %\nmean over domains",
    "routing_accuracy_mean_error": "± 1 standard\nerror",
    "regret": "regret\nnats/token",
}


def verdict_table(verdict: Verdict) -> tuple[list[str], list[list[Any]]]:
    """Return the columns and rows of ``results.csv``: routers, then references; what has no value is ``None``."""
    columns = ["router", "kind", *UNITS, *(f"perplexity/{name}" for name in verdict.domains)]
    rows = []
    for kind, group in (("router", verdict.routers), ("reference", verdict.references)):
        rows += [
            [row.router, kind, *(getattr(row, name) for name in UNITS), *(row.perplexity[d] for d in verdict.domains)]
            for row in group
        ]
    return columns, rows


def write_tables(verdict: Verdict, folder: Path) -> None:
    """Write results (CSV and JSON), expert perplexities and the confusion matrix (CSV) into ``folder``."""
    columns, rows = verdict_table(verdict)
    write_csv(folder / f"{RESULTS}.csv", columns, rows)
    replace_file(folder / f"{RESULTS}.json", (json.dumps(asdict(verdict), indent=2) + "\n").encode())
    by_domain = [[d, *(verdict.expert_perplexity[e][d] for e in verdict.domains)] for d in verdict.domains]
    write_csv(folder / PERPLEXITY, ["domain", *(f"expert/{e}" for e in verdict.domains)], by_domain)
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
    """Print the two tables: experts on domains, and routers against references."""
    out = console()
    experts = Table(title="Perplexity of every expert on every domain's test sequences", title_style="bold")
    experts.add_column("domain (sequences)")
    for name in verdict.domains:
        experts.add_column(f"expert {name}", justify="right")
    for domain in verdict.domains:
        values = [verdict.expert_perplexity[e][domain] for e in verdict.domains]
        cells = [f"[bold]{v:.2f}[/bold]" if v == min(values) else f"{v:.2f}" for v in values]
        experts.add_row(f"{domain} ({verdict.sequences[domain]})", *cells)
    out.print(experts)

    table = Table(title="What each router keeps of the experts' quality (the run's router first)", title_style="bold")
    table.add_column("router")
    for title in UNITS.values():
        table.add_column(title, justify="right")
    for row in verdict.routers:
        table.add_row(*_cells(row))
    table.add_section()
    for row in verdict.references:
        table.add_row(*_cells(row))
    out.print(table)

    routed = Table(title="Routed perplexity by true domain", title_style="bold")
    routed.add_column("router")
    for name in verdict.domains:
        routed.add_column(name, justify="right")
    for row in [*verdict.routers, *verdict.references]:
        routed.add_row(row.router, *(f"{row.perplexity[d]:.2f}" for d in verdict.domains))
    out.print(routed)


def _cells(row: VerdictRow) -> list[str]:
    formats = {"regret": ".4f", "normalized_performance": ".2f"}
    values = [(name, getattr(row, name)) for name in UNITS]
    return [row.router, *("" if v is None else format(v, formats.get(name, ".1f")) for name, v in values)]
