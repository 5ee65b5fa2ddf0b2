"""Naive Bayes on tokens: the honest baseline, from the very same counts as the ridge (DESIGN.md 3.2)."""

from functools import cached_property
from typing import Any, Self

from torch import Tensor

from ir3de.functional.bayes import naive_bayes_scores
from ir3de.pretrained.loading import load_tokenizer
from ir3de.pretrained.tokenizer import TextTokenizer
from ir3de.routers.artifact import Artifact
from ir3de.routers.choose import Choice
from ir3de.routers.token_table import TokenTableRouter
from ir3de.statistics.token_counts import TokenCounts

SMOOTHINGS = (0.1, 0.01, 0.03, 0.3, 1.0)


class NaiveBayesRouter(TokenTableRouter):
    """Multinomial naive Bayes over tokens with equal priors. Its table ``(V, E)`` grows with the number of experts.

    Args:
        tokenizer: Whose ids are counted: a hub id, a folder, a GGUF file or package:NAME.
        smoothing: Added to every count; null chooses it on validation data.
    """

    def __init__(self, *, tokenizer: str | TextTokenizer, smoothing: float | None = None) -> None:
        super().__init__(selector="mean")
        self._tokenizer = tokenizer
        if smoothing is not None and smoothing <= 0:
            raise ValueError(f"Expected `smoothing` to be positive or null, but got {smoothing}.")
        self.configured_smoothing = smoothing
        self.smoothing = SMOOTHINGS[0] if smoothing is None else smoothing

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        return load_tokenizer(self._tokenizer) if isinstance(self._tokenizer, str) else self._tokenizer

    @property
    def display_name(self) -> str:
        return "naive Bayes"

    def solve(self, statistics: TokenCounts) -> None:
        self.tabulate()

    def rows(self, low: int, high: int) -> Tensor:
        statistics = self._fitted()
        counts_VE = statistics.sparse().dense(range(len(statistics.names)), low, high)
        tokens_E = statistics.tokens_E.double()
        return naive_bayes_scores(counts_VE, tokens_E, self.smoothing, vocab_size=statistics.vocab_size)

    def choices(self) -> list[Choice]:
        return [{"smoothing": value} for value in SMOOTHINGS] if self.configured_smoothing is None else []

    def settings(self) -> dict[str, Any]:
        return {"smoothing": self.configured_smoothing}

    def chosen(self) -> Choice:
        return {"smoothing": self.smoothing}

    def put(self, chosen: Choice) -> None:
        self.smoothing = chosen["smoothing"]

    def with_settings(self, settings: dict[str, Any]) -> Self:
        return type(self)(tokenizer=self.tokenizer, **settings)

    @classmethod
    def restored(cls, artifact: Artifact, tokenizer: TextTokenizer) -> Self:
        return cls(tokenizer=tokenizer, **artifact.config["settings"])
