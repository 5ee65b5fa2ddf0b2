"""Routers that are a table over the vocabulary: routing is a gather and a vote (DESIGN.md 3.2)."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from ir3de.functional.counts import check_token_ids
from ir3de.functional.votes import (
    Votes,
    all_votes,
    entropy_top_k_votes,
    mean,
    plurality,
    ranks,
    token_entropy,
    vote_shares,
)
from ir3de.routers.choose import ValidationBatches
from ir3de.routers.closed_form import Accumulator, ClosedFormRouter
from ir3de.statistics.accumulate import CountAccumulator, TrainingText
from ir3de.statistics.token_counts import TokenCounts

Selector = Literal["majority", "mean", "entropy_top_k"]
_SCORES_AT_ONCE = 1 << 23  # 64 MiB of token scores


class TokenTableRouter(ClosedFormRouter[TokenCounts]):
    """A router whose token scores depend on nothing but the token's id.

    ``winner_V`` (the expert each entry votes for) and ``rank_V`` (the entry's place by (entropy, id)), both int32, do
    not grow with the number of experts. ``scores_VE`` ``(V, E)`` float64 is kept while ``keeps_scores``.
    """

    scores_VE: Tensor
    winner_V: Tensor
    rank_V: Tensor

    def __init__(self, *, selector: Selector, k: int | None = None) -> None:
        super().__init__()
        self.selector: Selector = selector
        self.k = k
        for name in ("scores_VE", "winner_V", "rank_V"):
            self.register_buffer(name, torch.empty(0), persistent=False)

    @abstractmethod
    def rows(self, low: int, high: int) -> Tensor:
        """Return the token scores of the entries from ``low`` to ``high - 1``, ``(high - low, E)`` float64."""

    @property
    def keeps_scores(self) -> bool:
        """Whether the whole table of token scores is kept."""
        return True

    def basis(self) -> dict[str, Any]:
        return {"tokenizer": self.tokenizer.fingerprint, "vocab_size": self.tokenizer.vocab_size}

    def accumulator(self, data: TrainingText) -> Accumulator[Any]:
        domains = [shard.domain for shard in data.counted_shards().shards]
        return CountAccumulator(domains, data, **self.basis())

    def tabulate(self) -> None:
        """Make the table from ``rows``, a piece of the vocabulary at a time."""
        vocab_size, num_experts = self.tokenizer.vocab_size, len(self.expert_names)
        step = max(256, min(8192, _SCORES_AT_ONCE // num_experts))
        winners, entropies, kept = [], [], []
        for low in range(0, vocab_size, step):
            scores_vE = self.rows(low, min(low + step, vocab_size))
            winners.append(scores_vE.argmax(dim=1).to(torch.int32))  # the first of equals
            entropies.append(token_entropy(scores_vE))
            if self.keeps_scores:
                kept.append(scores_vE)
        device = self.winner_V.device
        self.scores_VE = (torch.cat(kept) if kept else torch.empty(0, dtype=torch.float64)).to(device)
        self.winner_V = torch.cat(winners).to(device)
        self.rank_V = ranks(torch.cat(entropies)).to(device)

    def held_out_accuracy(self, statistics: TokenCounts) -> Callable[[], float] | None:
        batches = ValidationBatches.of(statistics)
        return (lambda: batches.accuracy_mean(self)) if batches.batches else None

    @property
    def unchecked(self) -> list[str]:
        """The experts without validation data, if something was chosen: it was chosen without a look at them."""
        shares = self._fitted().shares if self.choices() else {}
        return [name for name, share in shares.items() if not len(share.validation)]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return scores ``(B, E)`` float64: shares of votes, or the mean of the token scores.

        Raises:
            ValueError: if a real token's id is not in the vocabulary.
        """
        check_token_ids(input_ids.masked_select(attention_mask), len(self.winner_V))
        if self.selector == "mean":
            return self.mean_scores(input_ids, attention_mask)
        return vote_shares(self._votes(input_ids, attention_mask), len(self.expert_names))

    def best(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        if self.selector == "mean":
            return super().best(input_ids, attention_mask)
        check_token_ids(input_ids.masked_select(attention_mask), len(self.winner_V))
        return plurality(self._votes(input_ids, attention_mask), len(self.expert_names))

    def mean_scores(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the mean of the token scores ``(B, E)`` float64."""
        return mean(input_ids, attention_mask, self.scores_VE)

    def _votes(self, ids_BT: Tensor, mask_BT: Tensor) -> Votes:
        if self.selector == "majority":
            return all_votes(ids_BT, mask_BT, self.winner_V)
        assert self.k is not None, "k is chosen before the router is used"
        return entropy_top_k_votes(ids_BT, mask_BT, self.winner_V, self.rank_V, k=self.k)

    def read_statistics(self, content: bytes, *, where: str) -> TokenCounts:
        return TokenCounts.from_bytes(content, where=where)

    def tensors(self) -> dict[str, Tensor]:
        kept = {"scores": self.scores_VE} if self.keeps_scores else {}
        return kept | {"winner": self.winner_V, "rank": self.rank_V}

    def take(self, tensors: dict[str, Tensor]) -> None:
        if tensors:
            self.winner_V, self.rank_V = tensors["winner"], tensors["rank"]
            self.scores_VE = tensors.get("scores", torch.empty(0, dtype=torch.float64))
