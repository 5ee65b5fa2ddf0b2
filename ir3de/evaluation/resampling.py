"""Every metric of every router on the same resamples: what intervals and paired tests are made of."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ir3de.data.faults import RoutedLimit
from ir3de.evaluation.bootstrap import resampled_sums
from ir3de.experts.loss_table import LossTable
from ir3de.experts.score_table import ScoreTable
from ir3de.functional.quality import domain_quality, normalized_performance, oracle_gain

Table = LossTable | ScoreTable
Resampled = dict[str, Tensor]  # for each metric's name its values (R,)


def chosen_values(table: Table, expert_N: Tensor) -> Tensor:
    """Return each sequence's loss or score under its expert ``(N,)``."""
    return table.values_NE.gather(1, expert_N[:, None]).squeeze(1)


def first_routed(expert_N: Tensor, limit: RoutedLimit | None) -> Tensor:
    """Return ``(N,)`` bool: which sequences are among the first that go to their expert; all without a limit."""
    if limit is None:
        return torch.ones_like(expert_N, dtype=torch.bool)
    ordered_N = expert_N[limit.order_N]
    place_NE = torch.nn.functional.one_hot(ordered_N).cumsum(dim=0)
    kept_N = torch.empty_like(expert_N, dtype=torch.bool)
    kept_N[limit.order_N] = place_NE.gather(1, ordered_N[:, None]).squeeze(1) <= limit.sequences
    return kept_N


def resample(
    decisions: Mapping[str, Tensor | None],
    table: Table,
    document_N: Tensor,
    *,
    single_N: Tensor,
    seed: int,
    routed_limit: RoutedLimit | None,
) -> dict[str, Resampled]:
    """Return the resampled metrics of each router, all on the same draws of documents.

    ``decisions`` are experts ``(S, N)`` int64, a row for each seed over which metrics are averaged, or ``None`` for
    the average of weights, which decides nothing. ``single_N`` is the expert that the oracle's gain is counted from,
    and with ``routed_limit`` not all sequences count, see ``first_routed``.
    """
    fixed = [table.weights_N.double(), table.own_N, chosen_values(table, single_N)]
    fixed += [chosen_values(table, table.best_N), torch.ones_like(fixed[0])]
    columns, places = list(fixed), {}
    for name, expert_SN in decisions.items():
        places[name] = len(columns)
        if expert_SN is None:
            assert table.average_N is not None, "listed only where it is there"
            columns.append(table.average_N)
        else:
            kept_SN = [first_routed(expert_N, routed_limit) for expert_N in expert_SN]
            columns += [
                chosen_values(table, expert_N) * kept for expert_N, kept in zip(expert_SN, kept_SN, strict=True)
            ]
            columns += [(expert_N == table.domain_N).double() for expert_N in expert_SN]
            if routed_limit is not None:
                columns += [table.weights_N * kept_N for kept_N in kept_SN]
                columns += [chosen_values(table, table.best_N) * kept_N for kept_N in kept_SN]
    sums_RDC = resampled_sums(
        torch.stack(columns, dim=1), table.domain_N, document_N, len(table.expert_names), seed=seed
    )
    found = {}
    for name, expert_SN in decisions.items():
        seeds, first = 1 if expert_SN is None else len(expert_SN), places[name]
        of_seeds = [
            _metrics(
                table,
                sums_RDC[..., : len(fixed)],
                sums_RDC[..., first + s],
                None if expert_SN is None else sums_RDC[..., first + seeds + s],
                None
                if routed_limit is None or expert_SN is None
                else sums_RDC[..., [first + 2 * seeds + s, first + 3 * seeds + s]],
            )
            for s in range(seeds)
        ]
        found[name] = {key: torch.stack([one[key] for one in of_seeds]).mean(dim=0) for key in of_seeds[0]}
    return found


def _metrics(
    table: Table, fixed_RDC: Tensor, value_RD: Tensor, right_RD: Tensor | None, kept_RD2: Tensor | None
) -> Resampled:
    weight, own, single, best, count = fixed_RDC.unbind(dim=-1)
    sign = 1 if table.measure == "perplexity" else -1
    own_RD, single_RD = (domain_quality(one, weight, table.measure) for one in (own, single))
    if kept_RD2 is not None:
        weight, best = kept_RD2.unbind(dim=-1)
    routed_RD = domain_quality(value_RD, weight, table.measure)
    metrics = {
        "normalized_performance": normalized_performance(routed_RD, own_RD, table.measure),
        "oracle_gain": oracle_gain(routed_RD, single_RD, own_RD, table.measure),
        "regret": sign * (value_RD - best).sum(dim=1) / weight.sum(dim=1),
    } | {f"quality/{domain}": routed_RD[:, i] for i, domain in enumerate(table.expert_names)}
    if right_RD is not None:
        metrics["routing_accuracy"] = 100 * right_RD.sum(dim=1) / count.sum(dim=1)
        metrics["routing_accuracy_mean"] = (100 * right_RD / count).nanmean(dim=1)
    return metrics
