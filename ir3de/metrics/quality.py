"""What routing costs: quality per true domain, normalized performance, regret (DESIGN.md 2)."""

import torch
from torch import Tensor
from torchmetrics import Metric

from ir3de.functional.quality import Measure, domain_quality, normalized_performance


class DomainQuality(Metric):
    """Perplexity, or mean score, of each true domain's sequences; NaN for a domain without any.

    With the losses of the expert that each sequence was routed to, this is the routed perplexity.
    """

    values_E: Tensor
    weights_E: Tensor

    def __init__(self, *, num_domains: int, measure: Measure = "perplexity", sync_on_compute: bool = True) -> None:
        super().__init__(sync_on_compute=sync_on_compute)
        self.measure: Measure = measure
        self.add_state("values_E", torch.zeros(num_domains, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("weights_E", torch.zeros(num_domains, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, values_B: Tensor, weights_B: Tensor, domain_B: Tensor) -> None:
        """Add sequences: summed NLL ``(B,)`` in nats with tokens, or weighted scores with weights; true domain."""
        self.values_E.index_add_(0, domain_B, values_B.double())
        self.weights_E.index_add_(0, domain_B, weights_B.double())

    def compute(self) -> Tensor:
        """Return the quality of each domain, ``(E,)`` float64."""
        return domain_quality(self.values_E, self.weights_E, self.measure)


class NormalizedPerformance(Metric):
    """Mean over domains of routed quality against the domain's own expert's, in percent.

    100 is what always choosing the domain's own expert gives; a domain without sequences is left out.
    """

    higher_is_better = True

    def __init__(self, *, num_domains: int, measure: Measure = "perplexity", sync_on_compute: bool = True) -> None:
        super().__init__(sync_on_compute=sync_on_compute)
        settings = {"num_domains": num_domains, "measure": measure, "sync_on_compute": sync_on_compute}
        self.measure: Measure = measure
        self.routed = DomainQuality(**settings)  # type: ignore[arg-type]
        self.own = DomainQuality(**settings)  # type: ignore[arg-type]

    def update(self, values_B: Tensor, own_values_B: Tensor, weights_B: Tensor, domain_B: Tensor) -> None:
        """Add sequences, under the chosen and under the domain's own expert; see ``DomainQuality``."""
        self.routed.update(values_B, weights_B, domain_B)
        self.own.update(own_values_B, weights_B, domain_B)

    def compute(self) -> Tensor:
        """Return the normalized performance in percent, a float64 scalar."""
        return normalized_performance(self.routed.compute(), self.own.compute(), self.measure)

    def reset(self) -> None:
        """Forget all sequences."""
        super().reset()
        self.routed.reset()
        self.own.reset()


class Regret(Metric):
    """What the chosen expert is worse than the best of that very sequence, in nats per token or score per sequence."""

    higher_is_better = False
    excess: Tensor
    weight: Tensor

    def __init__(self, *, measure: Measure = "perplexity", sync_on_compute: bool = True) -> None:
        super().__init__(sync_on_compute=sync_on_compute)
        self._sign = 1 if measure == "perplexity" else -1
        self.add_state("excess", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("weight", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, values_B: Tensor, best_values_B: Tensor, weights_B: Tensor) -> None:
        """Add sequences: NLL in nats or weighted score ``(B,)`` under the chosen and under the best expert."""
        self.excess += self._sign * (values_B.double() - best_values_B.double()).sum()
        self.weight += weights_B.double().sum()

    def compute(self) -> Tensor:
        """Return the regret, a float64 scalar."""
        return self.excess / self.weight
