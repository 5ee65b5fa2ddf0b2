"""The verdict: decisions looked up in a table of losses or scores, for routers and for what they are held against."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ir3de.data.faults import RoutedLimit
from ir3de.evaluation.bootstrap import RESAMPLES, interval
from ir3de.evaluation.resampling import Resampled, Table, chosen_values, first_routed, resample
from ir3de.functional.quality import Measure, normalized_performance, oracle_gain
from ir3de.metrics import DomainQuality, NormalizedPerformance, Regret, RoutingConfusion

Interval = tuple[float, float]
WEIGHT_AVERAGE_NAME = "average of the weights"


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
    documents: dict[str, int]
    resamples: int = RESAMPLES


def make_verdict(
    decisions: Mapping[str, Tensor],
    table: Table,
    *,
    document_N: Tensor,
    seed: int,
    references: bool = True,
    routed_limit: RoutedLimit | None = None,
) -> Verdict:
    """Return the verdict on ``decisions``: for each router's display name, its experts ``(N,)`` or ``(S, N)`` int64.

    With a row for each of S seeds, metrics are means over them. One process makes the verdict, which has all decisions;
    its metrics ask no other. ``document_N`` is each sequence's document within its domain, by which resamples are
    drawn; ``seed`` draws them and the random router. The best single expert is the one with the best normalized
    performance on these very sequences: a bound for every constant router, not one that could have been chosen in
    advance. ``references`` are left out where they are among the routers; the average of weights stays. With
    ``routed_limit`` only the first so many sequences that are given to an expert count, see ``Faults``.
    """
    domains = table.expert_names
    num_sequences, num_experts = table.values_NE.shape
    best = domains.index(best_single_expert(table))
    single_N = torch.full_like(table.domain_N, best)
    bounds: dict[str, Tensor | None] = {
        "oracle": table.domain_N,
        "loss oracle" if table.measure == "perplexity" else "score oracle": table.best_N,
        f"best single expert ({domains[best]})": single_N,
    }
    if table.average_N is not None:  # experts of unlike architectures have no average
        bounds[WEIGHT_AVERAGE_NAME] = None
    generator = torch.Generator().manual_seed(seed)
    bounds["random"] = torch.randint(num_experts, (num_sequences,), generator=generator)
    if not references:
        bounds = {name: one for name, one in bounds.items() if name == WEIGHT_AVERAGE_NAME}
    of_seeds = {name: None if one is None else one.reshape(-1, num_sequences) for name, one in bounds.items()}
    every = {name: one.reshape(-1, num_sequences) for name, one in decisions.items()} | of_seeds
    resampled = resample(every, table, document_N, single_N=single_N, seed=seed, routed_limit=routed_limit)
    rows = [_row(name, table, expert_SN, single_N, resampled[name], routed_limit) for name, expert_SN in every.items()]
    return Verdict(
        table.measure,
        domains,
        {
            expert: dict(
                zip(domains, _quality(table, values_N, torch.ones_like(single_N, dtype=torch.bool)), strict=True)
            )
            for expert, values_N in zip(domains, table.values_NE.T, strict=True)
        },
        rows[: len(decisions)],
        rows[len(decisions) :],
        {name: int((table.domain_N == i).sum()) for i, name in enumerate(domains)},
        {name: len(document_N[table.domain_N == i].unique()) for i, name in enumerate(domains)},
    )


def best_single_expert(table: Table) -> str:
    """Return the expert with the best normalized performance on all of the table's sequences; the first of equals."""
    performance = {
        name: _performance(table, values_N)
        for name, values_N in zip(table.expert_names, table.values_NE.T, strict=True)
    }
    return max(performance, key=performance.__getitem__)


def _row(  # noqa: PLR0917 - private, called once
    name: str, table: Table, expert_SN: Tensor | None, single_N: Tensor, resampled: Resampled, limit: RoutedLimit | None
) -> VerdictRow:
    values = [_average(table)] if expert_SN is None else [chosen_values(table, expert_N) for expert_N in expert_SN]
    kept = [first_routed(table.domain_N, None)] if expert_SN is None else [first_routed(e, limit) for e in expert_SN]
    points = [_point(table, values_N, single_N, kept_N) for values_N, kept_N in zip(values, kept, strict=True)]
    confusion = None
    if expert_SN is not None:
        metric = RoutingConfusion(num_domains=len(table.expert_names), sync_on_compute=False)
        for point, expert_N in zip(points, expert_SN, strict=True):
            one = RoutingConfusion(num_domains=len(table.expert_names), sync_on_compute=False)
            one.update(expert_N, table.domain_N)
            metric.update(expert_N, table.domain_N)
            point |= {key: float(value) for key, value in one.accuracy().items()}
            if table.cost_NE is not None:
                point["cost"] = float(table.cost_NE.gather(1, expert_N[:, None]).mean())
        confusion = metric.compute().tolist()
    mean = {key: sum(point[key] for point in points) / len(points) for key in points[0]}
    return VerdictRow(
        name,
        mean["normalized_performance"],
        None if math.isnan(mean["oracle_gain"]) else mean["oracle_gain"],  # the oracle may gain nothing
        mean.get("routing_accuracy"),
        mean.get("routing_accuracy_mean"),
        mean["regret"],
        mean.get("cost"),
        {domain: mean[f"quality/{domain}"] for domain in table.expert_names},
        {key: found for key, value_R in resampled.items() if (found := interval(value_R)) is not None},
        confusion,
    )


def _point(table: Table, values_N: Tensor, single_N: Tensor, kept_N: Tensor) -> dict[str, float]:
    regret = Regret(measure=table.measure, sync_on_compute=False)
    regret.update(values_N[kept_N], chosen_values(table, table.best_N)[kept_N], table.weights_N[kept_N])
    every_N = torch.ones_like(kept_N)
    routed = _quality(table, values_N, kept_N)
    single, own = (_quality(table, of_N, every_N) for of_N in (chosen_values(table, single_N), table.own_N))
    routed_D, single_D, own_D = (torch.tensor(one, dtype=torch.float64) for one in (routed, single, own))
    return {
        "normalized_performance": float(normalized_performance(routed_D, own_D, table.measure)),
        "oracle_gain": float(oracle_gain(routed_D, single_D, own_D, table.measure)),
        "regret": float(regret.compute()),
        **{f"quality/{domain}": value for domain, value in zip(table.expert_names, routed, strict=True)},
    }


def _average(table: Table) -> Tensor:
    assert table.average_N is not None, "listed only where it is there"
    return table.average_N


def _quality(table: Table, values_N: Tensor, kept_N: Tensor) -> list[float]:
    metric = DomainQuality(num_domains=len(table.expert_names), measure=table.measure, sync_on_compute=False)
    metric.update(values_N[kept_N], table.weights_N[kept_N], table.domain_N[kept_N])
    return [float(value) for value in metric.compute()]


def _performance(table: Table, values_N: Tensor) -> float:
    metric = NormalizedPerformance(num_domains=len(table.expert_names), measure=table.measure, sync_on_compute=False)
    metric.update(values_N, table.own_N, table.weights_N, table.domain_N)
    return float(metric.compute())
