"""What routing costs in loss: perplexity per true domain, normalized performance, regret (DESIGN.md 2)."""

import torch
from torch import Tensor
from torchmetrics import Metric


class DomainPerplexity(Metric):
    """``exp(ΣNLL / Σtokens)`` of each true domain's sequences; NaN for a domain without any.

    With the losses of the expert that each sequence was routed to, this is the routed perplexity.
    """

    higher_is_better = False
    nll_E: Tensor
    tokens_E: Tensor

    def __init__(self, *, num_domains: int, sync_on_compute: bool = True) -> None:
        super().__init__(sync_on_compute=sync_on_compute)
        self.add_state("nll_E", torch.zeros(num_domains, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("tokens_E", torch.zeros(num_domains, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, nll_B: Tensor, tokens_B: Tensor, domain_B: Tensor) -> None:
        """Add sequences: summed NLL ``(B,)`` in nats, predicted tokens ``(B,)``, and true domain ``(B,)`` int64."""
        self.nll_E.index_add_(0, domain_B, nll_B.double())
        self.tokens_E.index_add_(0, domain_B, tokens_B)

    def compute(self) -> Tensor:
        """Return the perplexity of each domain, ``(E,)`` float64."""
        return torch.exp(self.nll_E / self.tokens_E)


class NormalizedPerformance(Metric):
    """Mean over domains of ``100 · p̂_d / p_d``: routed perplexity p_d against the domain's own expert's p̂_d.

    100 is what always choosing the domain's own expert gives; a domain without sequences is left out.
    """

    higher_is_better = True

    def __init__(self, *, num_domains: int, sync_on_compute: bool = True) -> None:
        super().__init__(sync_on_compute=sync_on_compute)
        self.routed = DomainPerplexity(num_domains=num_domains, sync_on_compute=sync_on_compute)
        self.own = DomainPerplexity(num_domains=num_domains, sync_on_compute=sync_on_compute)

    def update(self, nll_B: Tensor, own_nll_B: Tensor, tokens_B: Tensor, domain_B: Tensor) -> None:
        """Add sequences: summed NLL under the chosen and under the domain's own expert, both ``(B,)`` in nats."""
        self.routed.update(nll_B, tokens_B, domain_B)
        self.own.update(own_nll_B, tokens_B, domain_B)

    def compute(self) -> Tensor:
        """Return the normalized performance in percent, a float64 scalar."""
        return (100 * self.own.compute() / self.routed.compute()).nanmean()

    def reset(self) -> None:
        """Forget all sequences."""
        super().reset()
        self.routed.reset()
        self.own.reset()


class Regret(Metric):
    """Loss of the chosen expert above the best expert of that very sequence, in nats per token."""

    higher_is_better = False
    excess: Tensor
    tokens: Tensor

    def __init__(self, *, sync_on_compute: bool = True) -> None:
        super().__init__(sync_on_compute=sync_on_compute)
        self.add_state("excess", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("tokens", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, nll_B: Tensor, best_nll_B: Tensor, tokens_B: Tensor) -> None:
        """Add sequences: summed NLL under the chosen and under the best expert, both ``(B,)`` in nats."""
        self.excess += (nll_B.double() - best_nll_B.double()).sum()
        self.tokens += tokens_B.sum()

    def compute(self) -> Tensor:
        """Return the regret, a float64 scalar."""
        return self.excess / self.tokens
