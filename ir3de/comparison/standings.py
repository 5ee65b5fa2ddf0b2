"""The rows of the comparison: quality with intervals, the paired test against the first router, and what each costs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from ir3de.comparison.calibration import Reliability
from ir3de.comparison.fits import Fit
from ir3de.comparison.timing import Costs
from ir3de.data.faults import RoutedLimit
from ir3de.evaluation.bootstrap import interval, paired_p_value
from ir3de.evaluation.resampling import Table, resample
from ir3de.evaluation.verdict import WEIGHT_AVERAGE_NAME, Interval, VerdictRow, best_single_expert, make_verdict

TESTED = ("normalized_performance", "routing_accuracy_mean", "regret")


@dataclass(frozen=True)
class Difference:
    """A metric minus the first router's, its 95% interval, and the p-value of no difference: paired, by documents."""

    value: float
    interval: Interval | None
    p_value: float


@dataclass(frozen=True)
class Standing:
    """One row of the comparison.

    ``deviation`` is the standard deviation of the mean routing accuracy over seeds, in percent. ``price`` is per
    million tokens, mean over the test tokens, and ``latency`` in seconds, mean over the test sequences.
    """

    name: str
    display_name: str
    kind: str
    seeds: int
    row: VerdictRow
    differences: dict[str, Difference]
    deviation: float | None = None
    price: float | None = None
    latency: float | None = None
    costs: Costs | None = None
    fit: Fit | None = None
    reliability: Reliability | None = None
    chosen: dict[str, Any] = field(default_factory=dict)
    identity: str = ""


def quality_rows(
    decisions: Mapping[str, Tensor], table: Table, document_N: Tensor, *, seed: int, routed_limit: RoutedLimit | None
) -> tuple[dict[str, VerdictRow], dict[str, dict[str, Difference]]]:
    """Return the verdict's row of every router, and its differences to the first one; ``decisions`` are ``(S, N)``.

    ``routed_limit`` is ``make_verdict``'s."""
    verdict = make_verdict(
        decisions, table, document_N=document_N, seed=seed, references=False, routed_limit=routed_limit
    )
    rows = {row.router: row for row in [*verdict.routers, *verdict.references]}
    single_N = torch.full_like(table.domain_N, table.expert_names.index(best_single_expert(table)))
    every: dict[str, Tensor | None] = dict(decisions)
    if WEIGHT_AVERAGE_NAME in rows:
        every[WEIGHT_AVERAGE_NAME] = None
    resampled = resample(every, table, document_N, single_N=single_N, seed=seed, routed_limit=routed_limit)
    first = next(iter(decisions))
    differences: dict[str, dict[str, Difference]] = {}
    for name, of_router in resampled.items():
        differences[name] = {}
        for metric in TESTED:
            if name == first or metric not in of_router:
                continue
            difference_R = of_router[metric] - resampled[first][metric]
            value = getattr(rows[name], metric) - getattr(rows[first], metric)
            differences[name][metric] = Difference(value, interval(difference_R), paired_p_value(difference_R))
    return rows, differences


def mean_price(expert_SN: Tensor, table: Table, price_E: Tensor) -> float:
    """Return the price of a million tokens, mean over the tokens of all sequences."""
    weight_N = table.weights_N.double()
    return float((price_E[expert_SN] * weight_N).sum() / (weight_N.sum() * len(expert_SN)))


def table_columns(domains: tuple[str, ...], measure: str) -> list[str]:
    """Return the columns of ``comparison.csv``."""
    metrics = ["normalized_performance", "routing_accuracy_mean", "routing_accuracy", "regret", "oracle_gain"]
    metrics += [f"{measure}/{domain}" for domain in domains]
    columns = ["router", "display_name", "kind", "seeds"]
    columns += [f"{metric}{end}" for metric in metrics for end in ("", "/low", "/high")]
    columns += [f"{m}/{part}" for m in TESTED for part in ("difference", "difference/low", "difference/high", "p")]
    return [
        *columns, "routing_accuracy_mean/deviation_over_seeds", "calibration_error", "temperature", "price", "latency",
        "num_parameters", "bytes_on_disk", "fit_seconds", "embedding_seconds", "add_expert_seconds",
        "decision_from_ids_us/p50", "decision_from_ids_us/p99", "decision_from_text_us/p50",
        "decision_from_text_us/p99", "prompts_timed", "training_sequences", "windowed", "chosen", "identity",
    ]  # fmt: skip


def table_row(standing: Standing, domains: tuple[str, ...], measure: str) -> dict[str, Any]:
    """Return the cells of one row by column; what does not apply is ``None``."""
    row, cells = standing.row, {"router": standing.name, "kind": standing.kind, "seeds": standing.seeds}
    cells |= {"display_name": standing.display_name}
    values: dict[str, float | None] = {
        metric: getattr(row, metric)
        for metric in ("normalized_performance", "routing_accuracy_mean", "routing_accuracy", "regret", "oracle_gain")
    }
    values |= {f"quality/{domain}": row.quality[domain] for domain in domains}
    for metric, value in values.items():
        ends = row.intervals.get(metric) or (None, None)
        shown = metric.replace("quality/", f"{measure}/")
        cells |= {shown: value, f"{shown}/low": ends[0], f"{shown}/high": ends[1]}
    for metric, one in standing.differences.items():
        ends = one.interval or (None, None)
        cells |= {f"{metric}/difference": one.value, f"{metric}/difference/low": ends[0]}
        cells |= {f"{metric}/difference/high": ends[1], f"{metric}/p": one.p_value}
    cells["routing_accuracy_mean/deviation_over_seeds"] = standing.deviation
    cells |= {"price": standing.price, "latency": standing.latency, "identity": standing.identity}
    if standing.reliability is not None:
        cells |= {"calibration_error": standing.reliability.error, "temperature": standing.reliability.temperature}
    if standing.costs is not None:
        costs = asdict(standing.costs)
        cells |= {key: costs[key] for key in ("num_parameters", "bytes_on_disk", "add_expert_seconds")}
        for key, timing in (("ids", standing.costs.from_ids), ("text", standing.costs.from_text)):
            if timing is not None:
                cells |= {f"decision_from_{key}_us/p50": timing.p50, f"decision_from_{key}_us/p99": timing.p99}
                cells["prompts_timed"] = timing.prompts
    if standing.fit is not None:
        cells |= {"fit_seconds": standing.fit.seconds, "embedding_seconds": standing.fit.embedding_seconds}
        cells |= {
            "training_sequences": sum(standing.fit.training_sequences.values()),
            "windowed": standing.fit.windowed,
        }
    cells["chosen"] = ", ".join(f"{key} {value}" for key, value in standing.chosen.items() if value is not None)
    return cells
