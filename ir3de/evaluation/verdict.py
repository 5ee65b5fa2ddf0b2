"""The verdict: decisions looked up in the loss table, for routers and for what they are held against."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ir3de.experts.loss_table import LossTable
from ir3de.metrics import DomainPerplexity, NormalizedPerformance, Regret, RoutingConfusion


@dataclass(frozen=True, slots=True)
class VerdictRow:
    """One line of the table.

    Accuracies and normalized performance are in percent, regret in nats per token; accuracy, its standard error and
    the confusion matrix are ``None`` for what does not choose an expert.
    """

    router: str
    normalized_performance: float
    routing_accuracy: float | None
    routing_accuracy_mean: float | None
    routing_accuracy_mean_error: float | None
    regret: float
    perplexity: dict[str, float]
    confusion: list[list[int]] | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Everything that ``test`` reports: domains, expert perplexities ``[domain][expert]``, routers, references."""

    domains: tuple[str, ...]
    expert_perplexity: dict[str, dict[str, float]]
    routers: list[VerdictRow]
    references: list[VerdictRow]
    sequences: dict[str, int]


def make_verdict(decisions: Mapping[str, Tensor], losses: LossTable, *, seed: int) -> Verdict:
    """Return the verdict on ``decisions``: for each router's display name, its experts ``(N,)`` int64.

    One process makes it, which has all decisions; its metrics ask no other.

    ``seed`` draws the random router. The best single expert is the one with the best normalized performance on these
    very sequences: a bound for every constant router, not a router that could have been chosen in advance.
    """
    domains = losses.expert_names
    num_sequences, num_experts = losses.nll_NE.shape
    generator = torch.Generator().manual_seed(seed)
    references = {
        "oracle": losses.domain_N,
        "loss oracle": losses.nll_NE.argmin(dim=1),
        "random": torch.randint(num_experts, (num_sequences,), generator=generator),
    }
    singles = [_row(name, losses, torch.full_like(losses.domain_N, i)) for i, name in enumerate(domains)]
    best = max(singles, key=lambda row: row.normalized_performance)
    rows = [_row(name, losses, expert_N) for name, expert_N in references.items()]
    rows.insert(2, replace(best, router=f"best single expert ({best.router})"))
    if losses.average_nll_N is not None:  # experts of unlike architectures have no average
        rows.insert(3, _row_of_losses("average of the weights", losses, losses.average_nll_N))
    return Verdict(
        domains,
        {
            expert: dict(zip(domains, _perplexity(losses, nll_N), strict=True))
            for expert, nll_N in zip(domains, losses.nll_NE.T, strict=True)
        },
        [_row(name, losses, expert_N) for name, expert_N in decisions.items()],
        rows,
        {name: int((losses.domain_N == i).sum()) for i, name in enumerate(domains)},
    )


def _perplexity(losses: LossTable, nll_N: Tensor) -> list[float]:
    metric = DomainPerplexity(num_domains=len(losses.expert_names), sync_on_compute=False)
    metric.update(nll_N, losses.tokens_N, losses.domain_N)
    return [float(value) for value in metric.compute()]


def _row_of_losses(name: str, losses: LossTable, nll_N: Tensor) -> VerdictRow:
    own_N = losses.nll_NE.gather(1, losses.domain_N[:, None]).squeeze(1)
    performance = NormalizedPerformance(num_domains=len(losses.expert_names), sync_on_compute=False)
    performance.update(nll_N, own_N, losses.tokens_N, losses.domain_N)
    regret = Regret(sync_on_compute=False)
    regret.update(nll_N, losses.nll_NE.min(dim=1).values, losses.tokens_N)
    perplexity = dict(zip(losses.expert_names, _perplexity(losses, nll_N), strict=True))
    return VerdictRow(name, float(performance.compute()), None, None, None, float(regret.compute()), perplexity, None)


def _row(name: str, losses: LossTable, expert_N: Tensor) -> VerdictRow:
    costs = _row_of_losses(name, losses, losses.nll_NE.gather(1, expert_N[:, None]).squeeze(1))
    metric = RoutingConfusion(num_domains=len(losses.expert_names), sync_on_compute=False)
    metric.update(expert_N, losses.domain_N)
    confusion_EE = metric.compute()
    total_E = confusion_EE.sum(dim=1).double()
    share_E = confusion_EE.diagonal() / total_E
    # of the mean over domains, sequences taken as independent (blocks of one document are not quite)
    error = 100 * float((share_E * (1 - share_E) / total_E).nansum().sqrt() / len(total_E))
    accuracy = {key: float(value) for key, value in metric.accuracy().items()}
    return VerdictRow(
        name,
        costs.normalized_performance,
        accuracy["routing_accuracy"],
        accuracy["routing_accuracy_mean"],
        error,
        costs.regret,
        costs.perplexity,
        confusion_EE.tolist(),
    )
