"""Every fitted router with its scores on test and validation sequences, and the standing that they give it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ir3de.comparison.calibration import choose_temperature, reliability
from ir3de.comparison.entries import Entry, is_reference
from ir3de.comparison.fits import Fit
from ir3de.comparison.scoring import score_split
from ir3de.comparison.standings import Standing, mean_price, quality_rows
from ir3de.comparison.timing import PROMPTS, measure_costs
from ir3de.console import console
from ir3de.data.datamodule import DomainDataModule
from ir3de.evaluation.resampling import Table
from ir3de.evaluation.verdict import WEIGHT_AVERAGE_NAME
from ir3de.routers import LossOracleRouter
from ir3de.routers.choose import accuracy_mean
from ir3de.routers.router import Router


@dataclass(frozen=True)
class Scored:
    """A router of each seed with its scores ``(N, E)`` and experts ``(N,)`` on the test split, a value for each seed.

    ``validation`` are the first seed's scores ``(M, E)`` on the validation split.
    """

    entry: Entry
    routers: list[Router]
    homes: list[Path]
    fit: Fit | None
    scores: list[Tensor]
    experts: list[Tensor]
    validation: Tensor | None


class Costed(Protocol):
    """What a standing needs of the comparison."""

    data: DomainDataModule
    seed: int
    prices: Mapping[str, float] | None
    latencies: Mapping[str, float] | None


def score_all(
    fitted: Sequence[tuple[Entry, list[Router], list[Path], Fit | None]],
    data: DomainDataModule,
    table: Table,
    failures: dict[str, str],
) -> list[Scored]:
    """Return every router with its scores; one that fails is named in ``failures`` and left out."""
    found = []
    for entry, routers, homes, fit in fitted:
        try:
            for router in routers:
                if isinstance(router, LossOracleRouter):
                    router.best_N = table.best_N
            pairs = [score_split(router, data, "test") for router in routers]
            scores, experts = [one for one, _ in pairs], [one for _, one in pairs]
            held_out = None if is_reference(routers[0]) else score_split(routers[0], data, "validation")[0]
            found.append(Scored(entry, routers, homes, fit, scores, experts, held_out))
        except Exception as error:  # one router's failure must not lose the others
            failures[entry.name] = " ".join(str(error).split())
            console(stderr=True).print(f"[red]{entry.name} failed[/red]: {failures[entry.name]}", soft_wrap=True)
    if not found:
        raise ValueError(f"No router could be scored: {'; '.join(f'{k}: {v}' for k, v in failures.items())}")
    return found


def stand(scored: Sequence[Scored], table: Table, document_N: Tensor, of: Costed) -> list[Standing]:
    """Return the rows of the comparison, in the order of ``scored``; the average of weights comes last."""
    names = of.data.domain_names
    decisions = {one.entry.name: torch.stack(one.experts) for one in scored}
    limit = of.data.routed_limit
    rows, differences = quality_rows(decisions, table, document_N, seed=of.seed, routed_limit=limit)
    every = of.data.texts("test")
    texts = [every[i] for i in np.random.default_rng(of.seed).permutation(len(every))[:PROMPTS].tolist()]
    price_E, latency_E = (
        None if given is None else torch.tensor([given[name] for name in names], dtype=torch.float64)
        for given in (of.prices, of.latencies)
    )
    of.data.read_as(scored[0].routers[0])
    held_domain_M = torch.from_numpy(of.data.router_rows("validation").domains())
    standings = []
    for one in scored:
        expert_SN, router = decisions[one.entry.name], one.routers[0]
        accuracies = torch.tensor([accuracy_mean(expert_N, table.domain_N) for expert_N in expert_SN])
        reference = is_reference(router)
        believed = None
        if one.validation is not None:
            temperature = choose_temperature(one.validation, held_domain_M)
            believed = reliability(one.scores[0], table.domain_N, temperature)
        fit_seconds = None if one.fit is None else one.fit.seconds + one.fit.embedding_seconds
        standings.append(
            Standing(
                one.entry.name,
                router.display_name,
                "reference" if reference else "router",
                len(expert_SN),
                rows[one.entry.name],
                differences[one.entry.name],
                float(accuracies.std()) if len(accuracies) > 1 else None,
                None if price_E is None else mean_price(expert_SN, table, price_E),
                None if latency_E is None else float(latency_E[expert_SN].mean()),
                measure_costs(router, one.homes[0], texts, fit_seconds=fit_seconds),
                None if reference else one.fit,
                believed,
                router.chosen(),
                router.identity_hash(),
            )
        )
    if WEIGHT_AVERAGE_NAME in rows:
        row, difference = rows[WEIGHT_AVERAGE_NAME], differences[WEIGHT_AVERAGE_NAME]
        standings.append(Standing("weight_average", WEIGHT_AVERAGE_NAME, "reference", 1, row, difference))
    return standings
