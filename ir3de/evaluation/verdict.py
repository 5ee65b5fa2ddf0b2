"""The verdict: decisions looked up in a table of losses or scores, for routers and for what they are held against."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ir3de.evaluation.bootstrap import RESAMPLES, interval, resampled_sums
from ir3de.experts.loss_table import LossTable
from ir3de.experts.score_table import ScoreTable
from ir3de.functional.quality import Measure, domain_quality, normalized_performance, oracle_gain
from ir3de.metrics import DomainQuality, NormalizedPerformance, Regret, RoutingConfusion

Interval = tuple[float, float]
Table = LossTable | ScoreTable


@dataclass(frozen=True, slots=True)
class VerdictRow:
    """One line of the table.

    Accuracies, normalized performance and the share of the oracle's gain are in percent, regret in nats per token (or
    score per sequence). ``quality`` has the routed perplexity (or score) of each true domain. ``intervals`` has the 95%
    interval of each of these by its name, and of ``quality/<domain>``. Accuracy and the confusion matrix are ``None``
    for what does not choose an expert, and ``cost``, a mean over sequences, where costs are not known.
    """

    router: str
    normalized_performance: float
    oracle_gain: float | None
    routing_accuracy: float | None
    routing_accuracy_mean: float | None
    regret: float
    cost: float | None
    quality: dict[str, float]
    intervals: dict[str, Interval]
    confusion: list[list[int]] | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Everything that ``test`` reports: domains, expert qualities ``[expert][domain]``, routers, references.

    ``measure`` says whether qualities are perplexities or scores.
    """

    measure: Measure
    domains: tuple[str, ...]
    expert_quality: dict[str, dict[str, float]]
    routers: list[VerdictRow]
    references: list[VerdictRow]
    sequences: dict[str, int]
    resamples: int = RESAMPLES


def make_verdict(decisions: Mapping[str, Tensor], table: Table, *, seed: int) -> Verdict:
    """Return the verdict on ``decisions``: for each router's display name, its experts ``(N,)`` int64.

    One process makes it, which has all decisions; its metrics ask no other.

    ``seed`` draws the random router and the bootstrap. The best single expert is the one with the best normalized
    performance on these very sequences: a bound for every constant router, not one that could have been chosen in
    advance.
    """
    domains = table.expert_names
    num_sequences, num_experts = table.values_NE.shape
    singles = [torch.full_like(table.domain_N, i) for i in range(num_experts)]
    best = domains.index(best_single_expert(table))
    generator = torch.Generator().manual_seed(seed)
    references: dict[str, Tensor | None] = {
        "oracle": table.domain_N,
        "loss oracle" if table.measure == "perplexity" else "score oracle": table.best_N,
        f"best single expert ({domains[best]})": singles[best],
    }
    if table.average_N is not None:  # experts of unlike architectures have no average
        references["average of the weights"] = None
    references["random"] = torch.randint(num_experts, (num_sequences,), generator=generator)
    rows = _rows({**decisions, **references}, table, singles[best], seed)
    return Verdict(
        table.measure,
        domains,
        {
            expert: dict(zip(domains, _quality(table, values_N), strict=True))
            for expert, values_N in zip(domains, table.values_NE.T, strict=True)
        },
        rows[: len(decisions)],
        rows[len(decisions) :],
        {name: int((table.domain_N == i).sum()) for i, name in enumerate(domains)},
    )


def best_single_expert(table: Table) -> str:
    """Return the expert with the best normalized performance on all of the table's sequences; the first of equals."""
    performance = {
        name: _performance(table, values_N)
        for name, values_N in zip(table.expert_names, table.values_NE.T, strict=True)
    }
    return max(performance, key=performance.__getitem__)


def _rows(decisions: Mapping[str, Tensor | None], table: Table, single_N: Tensor, seed: int) -> list[VerdictRow]:
    """All lines of the table; what decides nothing is the average of weights. All intervals are of the same draws."""
    values = {name: _average(table) if one is None else _chosen(table, one) for name, one in decisions.items()}
    fixed = [table.weights_N.double(), _chosen(table, table.domain_N), _chosen(table, single_N)]
    fixed += [_chosen(table, table.best_N), torch.ones_like(fixed[0])]
    nothing_N = torch.zeros_like(fixed[0])
    right = {n: nothing_N if d is None else (d == table.domain_N).double() for n, d in decisions.items()}
    columns_NC = torch.stack([*fixed, *values.values(), *right.values()], dim=1)
    sums_RDC = resampled_sums(columns_NC, table.domain_N, len(table.expert_names), seed=seed)
    weight, own, single, best, count = sums_RDC[..., : len(fixed)].unbind(dim=-1)
    sign = 1 if table.measure == "perplexity" else -1
    own_RD, single_RD = (domain_quality(one, weight, table.measure) for one in (own, single))
    single_D, own_D = (torch.tensor(_quality(table, fixed[i]), dtype=torch.float64) for i in (2, 1))
    rows = []
    for place, (name, expert_N) in enumerate(decisions.items(), start=len(fixed)):
        value_RD, right_RD = sums_RDC[..., place], sums_RDC[..., place + len(decisions)]
        routed_RD = domain_quality(value_RD, weight, table.measure)
        resampled = {
            "normalized_performance": normalized_performance(routed_RD, own_RD, table.measure),
            "oracle_gain": oracle_gain(routed_RD, single_RD, own_RD, table.measure),
            "regret": sign * (value_RD - best).sum(dim=1) / weight.sum(dim=1),
        } | {f"quality/{domain}": routed_RD[:, i] for i, domain in enumerate(table.expert_names)}
        if expert_N is not None:
            resampled["routing_accuracy"] = 100 * right_RD.sum(dim=1) / count.sum(dim=1)
            resampled["routing_accuracy_mean"] = (100 * right_RD / count).nanmean(dim=1)
        intervals = {key: found for key, value_R in resampled.items() if (found := interval(value_R)) is not None}
        rows.append(_row(name, table, values[name], expert_N, (single_D, own_D), intervals))
    return rows


def _row(  # noqa: PLR0917 - private, called once
    name: str,
    table: Table,
    values_N: Tensor,
    expert_N: Tensor | None,
    bounds: tuple[Tensor, Tensor],  # qualities (D,) of the best single expert and of each domain's own
    intervals: dict[str, Interval],
) -> VerdictRow:
    regret = Regret(measure=table.measure, sync_on_compute=False)
    regret.update(values_N, _chosen(table, table.best_N), table.weights_N)
    quality = _quality(table, values_N)
    single_D, own_D = bounds
    gain = float(oracle_gain(torch.tensor(quality, dtype=torch.float64), single_D, own_D, table.measure))
    accuracy: dict[str, float] = {}
    confusion = None
    if expert_N is not None:
        metric = RoutingConfusion(num_domains=len(table.expert_names), sync_on_compute=False)
        metric.update(expert_N, table.domain_N)
        accuracy = {key: float(value) for key, value in metric.accuracy().items()}
        confusion = metric.compute().tolist()
    costs = table.cost_NE is not None and expert_N is not None
    return VerdictRow(
        name,
        _performance(table, values_N),
        None if math.isnan(gain) else gain,  # the oracle may gain nothing
        accuracy.get("routing_accuracy"),
        accuracy.get("routing_accuracy_mean"),
        float(regret.compute()),
        float(table.cost_NE.gather(1, expert_N[:, None]).mean()) if costs else None,  # type: ignore[union-attr,index]
        dict(zip(table.expert_names, quality, strict=True)),
        intervals,
        confusion,
    )


def _chosen(table: Table, expert_N: Tensor) -> Tensor:
    return table.values_NE.gather(1, expert_N[:, None]).squeeze(1)


def _average(table: Table) -> Tensor:
    assert table.average_N is not None, "listed only where it is there"
    return table.average_N


def _quality(table: Table, values_N: Tensor) -> list[float]:
    metric = DomainQuality(num_domains=len(table.expert_names), measure=table.measure, sync_on_compute=False)
    metric.update(values_N, table.weights_N, table.domain_N)
    return [float(value) for value in metric.compute()]


def _performance(table: Table, values_N: Tensor) -> float:
    metric = NormalizedPerformance(num_domains=len(table.expert_names), measure=table.measure, sync_on_compute=False)
    metric.update(values_N, _chosen(table, table.domain_N), table.weights_N, table.domain_N)
    return float(metric.compute())
