"""What the config leaves open is chosen on the validation sequences that the statistics keep (DESIGN.md 4)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ir3de.routers.router import Router, pad_rows
from ir3de.statistics.token_counts import TokenCounts

Choice = dict[str, Any]
SEQUENCES_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class ScoredChoice:
    """A choice and its routing accuracy on validation data, mean over domains, in percent."""

    choice: Choice
    routing_accuracy_mean: float


@dataclass(frozen=True)
class ValidationBatches:
    """The held-out sequences of all domains as padded batches ``(ids_BT, mask_BT, domain_B)``."""

    batches: list[tuple[Tensor, Tensor, Tensor]]

    @classmethod
    def of(cls, statistics: TokenCounts) -> "ValidationBatches":
        """Return the batches of ``statistics``; sequences of like length are together."""
        rows = [(row, i) for i, share in enumerate(statistics.shares.values()) for row in share.validation.sequences()]
        rows.sort(key=lambda one: len(one[0]))
        batches = []
        for first in range(0, len(rows), SEQUENCES_AT_ONCE):
            part = rows[first : first + SEQUENCES_AT_ONCE]
            batches.append((*pad_rows([row for row, _ in part]), torch.tensor([domain for _, domain in part])))
        return cls(batches)

    def accuracy_mean(self, router: Router) -> float:
        """Return the share of sequences that reach their expert, mean over the domains that have any, in percent."""
        decided = [router.best(ids_BT, mask_BT)[0] for ids_BT, mask_BT, _ in self.batches]
        return accuracy_mean(torch.cat(decided), torch.cat([domain_B for _, _, domain_B in self.batches]))


def accuracy_mean(expert_N: Tensor, domain_N: Tensor) -> float:
    """Return the share of sequences that reach their expert, mean over the domains that have any, in percent."""
    right_E = np.bincount(domain_N, weights=(expert_N == domain_N).numpy())
    total_E = np.bincount(domain_N)
    present = total_E > 0
    return float(100 * (right_E[present] / total_E[present]).mean())


def best_choice(scored: list[ScoredChoice]) -> Choice:
    """Return the choice with the highest accuracy; the first of equals."""
    return max(scored, key=lambda one: one.routing_accuracy_mean).choice  # max keeps the first
