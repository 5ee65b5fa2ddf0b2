"""Counts smoothed by the ridge, which knows what rare tokens resemble (DESIGN.md 3.6)."""

from typing import Any, Literal

import torch
from torch import Tensor

from ir3de.functional.bayes import ridge_prior, smoothed_scores
from ir3de.functional.ridge import solve_ridge, with_bias
from ir3de.routers.choose import Choice
from ir3de.routers.embedding_table import EmbeddingTableRouter
from ir3de.routers.embeddings import Embeddings
from ir3de.routers.threads import one_thread
from ir3de.statistics.token_counts import TokenCounts

STRENGTHS = (1000.0, 300.0, 3000.0, 10000.0)


class SmoothedBayesRouter(EmbeddingTableRouter):
    """Naive Bayes with a Dirichlet prior: half what all domains have in common, half what the balanced ridge expects.

    Like the ridge it is a table over the vocabulary, solved from the counts, exact under adding and removing experts.
    Its table ``(V, E)`` grows with the number of experts.

    Args:
        embeddings: Whose tokenizer and input embedding table: a hub id, a folder, a GGUF file or package:NAME.
        tokenizer: Where the tokenizer is, if not with the embeddings: a .pth checkpoint has none.
        strength: How many tokens the prior counts for, in every domain; null chooses it on validation data.
        ridge_share: How much of the prior is the ridge's; 0 is the pooled counts alone.
        regularization: λ of the ridge, absolute.
        embedding_table: Whether a saved router has a copy of the table, or a pointer verified by fingerprint.
    """

    def __init__(
        self,
        *,
        embeddings: str | Embeddings,
        tokenizer: str | None = None,
        strength: float | None = None,
        ridge_share: float = 0.5,
        regularization: float = 1e-2,
        embedding_table: Literal["copy", "pointer"] = "copy",
    ) -> None:
        if strength is not None and strength <= 0:
            raise ValueError(f"Expected `strength` to be positive or null, but got {strength}.")
        if not 0 <= ridge_share <= 1:
            raise ValueError(f"Expected `ridge_share` to be from 0 to 1, but got {ridge_share}.")
        if regularization < 0:
            raise ValueError(f"Expected `regularization` to be at least 0, but got {regularization}.")
        super().__init__(embeddings=embeddings, tokenizer=tokenizer, embedding_table=embedding_table, selector="mean")
        self._settings: dict[str, Any] = {
            "strength": strength,
            "ridge_share": ridge_share,
            "regularization": regularization,
            "embedding_table": embedding_table,
        }
        self.strength = strength or STRENGTHS[0]
        self._prior: tuple[TokenCounts, Tensor] | None = None

    @property
    def display_name(self) -> str:
        return "IR3DE-Bayes (counts smoothed by the ridge)"

    def solve(self, statistics: TokenCounts) -> None:
        """Make the table; equal counts give equal bytes here."""
        with one_thread():
            if self._prior is None or self._prior[0] is not statistics:  # the strength does not change it
                self._prior = (statistics, self._solve_prior(statistics))
            self.tabulate()

    def rows(self, low: int, high: int) -> Tensor:
        statistics = self._fitted()
        assert self._prior is not None, "solved before"
        counts_VE = statistics.sparse().dense(range(len(statistics.names)), low, high)
        return smoothed_scores(counts_VE, statistics.tokens_E.double(), self._prior[1][low:high], self.strength)

    def _solve_prior(self, statistics: TokenCounts) -> Tensor:
        vocab_size, num_experts = statistics.vocab_size, len(statistics.names)
        table_VD = self.embeddings.table_VD[:vocab_size]
        weight_DE = solve_ridge(*statistics.system(table_VD, "domain"), self._settings["regularization"])
        scores_VE = torch.cat([with_bias(part_vD) @ weight_DE for part_vD in table_VD.split(8192)])
        counts_VE = statistics.sparse().dense(range(num_experts), 0, vocab_size)
        return ridge_prior(counts_VE, statistics.tokens_E.double(), scores_VE, self._settings["ridge_share"])

    def choices(self) -> list[Choice]:
        return [{"strength": value} for value in STRENGTHS] if self._settings["strength"] is None else []

    def settings(self) -> dict[str, Any]:
        return dict(self._settings)

    def chosen(self) -> Choice:
        return {"strength": self.strength}

    def put(self, chosen: Choice) -> None:
        self.strength = chosen["strength"]
