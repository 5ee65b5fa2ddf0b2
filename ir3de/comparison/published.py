"""What the paper published beside what is measured here, by each protocol."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ir3de.comparison.standings import Standing
from ir3de.evaluation.verdict import Interval

# By the config in configs/routers/paper: averages over domains of normalized performance, in percent; one seed, no
# intervals (DESIGN.md section 5).
PAPER: dict[str, dict[str, float]] = {
    "m2d2": {"paper_ir3de": 98.2, "paper_ir3de_all": 100.0, "paper_knn": 100.0, "paper_modem_large": 98.3},
    "clm2": {"paper_ir3de": 95.3, "paper_knn": 97.9, "paper_modem_large": 87.0},
    "reasoning": {
        "paper_ir3de": 98.4, "paper_ir3de_all": 95.0, "paper_ir3de_mean": 96.0, "paper_knn": 97.6,
        "paper_modem_large": 72.3,
    },
}  # fmt: skip
ROUTERS = {
    "paper_ir3de": "IR3DE",
    "paper_ir3de_all": "IR3DE-all",
    "paper_ir3de_mean": "IR3DE-avg",
    "paper_knn": "kNN",
    "paper_modem_large": "MoDEM-large",
}
PROTOCOLS = ("published", "corrected")
Measured = dict[str, tuple[float, Interval | None]]


def measured(standings: Sequence[Standing]) -> Measured:
    """Return the normalized performance of each router of a comparison, with its interval."""
    return {
        one.name: (one.row.normalized_performance, one.row.intervals.get("normalized_performance")) for one in standings
    }


def read_measured(path: Path, measured_on: Mapping[str, Any]) -> tuple[Measured, bool]:
    """Return what the comparison that wrote ``path`` measured, and whether it was on the same setting, data and bank.

    Nothing is returned where there is none, or where it was on others.
    """
    if not path.is_file():
        return {}, True
    there = json.loads(path.read_text())
    if there.get("measured_on") != json.loads(json.dumps(measured_on)):
        return {}, False
    rows = {one["name"]: one["row"] for one in there["standings"]}
    ends = {name: row["intervals"].get("normalized_performance") for name, row in rows.items()}
    found = {
        name: (row["normalized_performance"], None if ends[name] is None else (ends[name][0], ends[name][1]))
        for name, row in rows.items()
    }
    return found, True


def published_table(setting: str, by_protocol: dict[str, Measured]) -> tuple[str, list[str], list[list[str]]]:
    """Return title, columns and cells: the paper's figure and those measured by each protocol, empty where none was.

    Rows are the paper's routers, and after them what else was measured.
    """
    paper = PAPER[setting]
    every = [*ROUTERS, *(name for measured in by_protocol.values() for name in measured)]
    rows = []
    for name in dict.fromkeys(every):
        cells = [_cell(by_protocol.get(protocol, {}).get(name)) for protocol in PROTOCOLS]
        rows.append([ROUTERS.get(name, name), f"{paper[name]:.1f}" if name in paper else "", *cells])
    columns = ["router", "paper", "ours, published protocol", "ours, corrected protocol"]
    return f"Published and ours ({setting}): normalized performance %", columns, rows


def _cell(one: tuple[float, Interval | None] | None) -> str:
    if one is None:
        return ""
    value, ends = one
    return f"{value:.2f}" + ("" if ends is None else f" [{ends[0]:.2f}, {ends[1]:.2f}]")
