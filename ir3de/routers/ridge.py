"""IR3DE: ridge regression on input token embeddings, solved in closed form from token counts (DESIGN.md 3)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor

from ir3de.functional.ridge import (
    Balance,
    RegularizationScale,
    domain_weights,
    gram_from_counts,
    normalize_columns,
    solve_ridge,
    with_bias,
)
from ir3de.pretrained.embeddings import check_table, load_embedding_table, table_fingerprint
from ir3de.pretrained.loading import load_tokenizer
from ir3de.pretrained.tokenizer import TextTokenizer
from ir3de.routers.artifact import EMBEDDINGS, read_tensors, write_tensors
from ir3de.routers.bayes import NaiveBayesRouter
from ir3de.routers.router import Choice, Router
from ir3de.routers.token_table import Selector, TokenTableRouter
from ir3de.statistics.token_counts import TokenCounts

K_CANDIDATES = (10, 1, 2, 5, 25, 50, 100, 200)
PUBLISHED_NAMES: dict[Selector, str] = {
    "majority": "IR3DE-all (majority)",
    "mean": "IR3DE-avg (mean)",
    "entropy_top_k": "IR3DE (entropy top-k)",
}


@dataclass(frozen=True)
class Embeddings:
    """The router's own tokenizer and embedding table ``(V, D)`` float32, and where they came from."""

    source: str
    tokenizer: TextTokenizer
    table_VD: Tensor

    def __post_init__(self) -> None:
        check_table(self.table_VD, self.source)
        if self.tokenizer.vocab_size > len(self.table_VD):
            raise ValueError(
                f"The tokenizer of `{self.source}` has {self.tokenizer.vocab_size} entries, but its embedding table has"
                f" {len(self.table_VD)} rows. Give the tokenizer and the table of one model."
            )

    @classmethod
    def load(cls, source: str) -> "Embeddings":
        """Read both from a hub id, a folder, a GGUF file or ``package:NAME``."""
        return cls(source, load_tokenizer(source), load_embedding_table(source))


class RidgeRouter(TokenTableRouter):
    """IR3DE: the ridge map from a token's embedding to one score per expert, and a selector.

    Args:
        embeddings: Whose tokenizer and input embedding table the router uses: a hub id, a folder (an expert's own,
            for example), a GGUF file, or package:NAME. Independent of the experts' tokenizers.
        regularization: λ of the ridge.
        regularization_scale: Whether λ is absolute, as published, or times the mean diagonal of the Gram matrix.
        balance: `domain` gives every domain the same weight; `none` every token, as published.
        normalize: Divide each expert's coefficients and bias by the coefficients' norm, as the published code does.
        selector: How tokens decide: majority (IR3DE-all), mean (IR3DE-avg), entropy_top_k (IR3DE); null chooses it
            on validation data.
        k: How many tokens of lowest entropy vote under entropy_top_k; null chooses it on validation data.
        embedding_table: Whether a saved router has a copy of the table, or a pointer: its source, verified by
            fingerprint whenever the router is loaded.
    """

    def __init__(
        self,
        *,
        embeddings: str | Embeddings,
        regularization: float = 1e-2,
        regularization_scale: RegularizationScale = "absolute",
        balance: Balance = "domain",
        normalize: bool = False,
        selector: Literal["majority", "mean", "entropy_top_k"] | None = None,
        k: int | None = None,
        embedding_table: Literal["copy", "pointer"] = "copy",
    ) -> None:
        if regularization < 0:
            raise ValueError(f"Expected `regularization` to be at least 0, but got {regularization}.")
        if k is not None and k < 1:
            raise ValueError(f"Expected `k` to be at least 1 or null, but got {k}.")
        if k is not None and selector in ("majority", "mean"):
            raise ValueError(f"`k` is for the selector entropy_top_k, but got k={k} with {selector}. Set `k: null`.")
        super().__init__(selector=selector or "entropy_top_k", k=k or K_CANDIDATES[0])
        self._embeddings = embeddings
        self.regularization = regularization
        self.regularization_scale: RegularizationScale = regularization_scale
        self.balance: Balance = balance
        self.normalize = normalize
        self.configured_selector: Selector | None = selector
        self.configured_k = k
        self.embedding_table = embedding_table
        self.weight_DE = torch.empty(0)

    @cached_property
    def embeddings(self) -> Embeddings:
        """The tokenizer and the table, read when they are first needed."""
        return Embeddings.load(self._embeddings) if isinstance(self._embeddings, str) else self._embeddings

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        return self.embeddings.tokenizer

    @property
    def display_name(self) -> str:
        return PUBLISHED_NAMES[self.selector].replace("top-k", f"top-{self.k}")

    def token_scores(self, statistics: TokenCounts) -> Tensor:
        """Solve ``W`` ``(D + 1, E)`` float64 and return ``S = ẼW``; the same counts give the same bytes here."""
        with _one_thread():
            by_name = sorted(range(len(statistics.names)), key=statistics.names.__getitem__)
            counts_EV = statistics.counts_EV[by_name]
            table_VD = self.embeddings.table_VD[: counts_EV.shape[1]]
            weights_E = domain_weights(counts_EV.sum(dim=1), self.balance)
            xx_DD, xy_DE = gram_from_counts(table_VD, counts_EV, weights_E)
            weight_DE = solve_ridge(xx_DD, xy_DE, self.regularization, self.regularization_scale)
            if self.normalize:
                weight_DE = normalize_columns(weight_DE)
            in_bank_order = torch.tensor(by_name).argsort()
            self.weight_DE = weight_DE[:, in_bank_order].contiguous()
            return with_bias(table_VD) @ self.weight_DE

    def settings(self) -> dict[str, Any]:
        return {
            "regularization": self.regularization,
            "regularization_scale": self.regularization_scale,
            "balance": self.balance,
            "normalize": self.normalize,
            "selector": self.configured_selector,
            "k": self.configured_k,
            "embedding_table": self.embedding_table,
        }

    def chosen(self) -> dict[str, Any]:
        return {"selector": self.selector, "k": self.k if self.selector == "entropy_top_k" else None}

    def choices(self) -> list[Choice]:
        by_k = [self.configured_k] if self.configured_k else K_CANDIDATES
        every: list[Choice] = [{"selector": "entropy_top_k", "k": k} for k in by_k]
        every += [{"selector": "mean", "k": None}, {"selector": "majority", "k": None}]
        open_ = [c for c in every if self.configured_selector in (None, c["selector"])]
        return open_ if len(open_) > 1 else []

    def choose(self, choice: Choice) -> None:
        self.selector, self.k = choice["selector"], choice["k"]

    def siblings(self) -> dict[str, Router]:
        """Return the three selectors over this table and naive Bayes over these counts, each as a router."""
        assert self.statistics is not None, "siblings come from the fit's counts"
        siblings: dict[str, Router] = {name: self.with_selector(key) for key, name in PUBLISHED_NAMES.items()}
        bayes = NaiveBayesRouter(tokenizer=self.tokenizer)
        bayes.fit(self.statistics)
        return siblings | {bayes.display_name: bayes}

    def with_selector(self, selector: Selector) -> "RidgeRouter":
        """Return this router with another selector, whose k is open where this one's was; the table is shared."""
        k = self.configured_k if selector == "entropy_top_k" else None
        settings = self.settings() | {"selector": selector, "k": k}
        twin = RidgeRouter(embeddings=self.embeddings, **settings)
        twin.statistics, twin.expert_names, twin.weight_DE = self.statistics, self.expert_names, self.weight_DE
        twin.scores_VE, twin.winner_V, twin.rank_V = self.scores_VE, self.winner_V, self.rank_V
        return twin

    def tensors(self) -> dict[str, Tensor]:
        return super().tensors() | {"weight": self.weight_DE}

    def restore(self, tensors: dict[str, Tensor], chosen: dict[str, Any]) -> None:
        super().restore(tensors, chosen)
        self.weight_DE = tensors["weight"]
        self.choose(chosen)

    def save_more(self, folder: Path) -> dict[str, Any]:
        """Write the embedding table, or leave it at its source, and return its identity."""
        table_VD = self.embeddings.table_VD
        if self.embedding_table == "copy":
            write_tensors(folder / EMBEDDINGS, {"embeddings": table_VD})
        return {
            "embeddings": {
                "source": self.embeddings.source,
                "shape": list(table_VD.shape),
                "fingerprint": table_fingerprint(table_VD),
            },
            "weights": self._weights(),
        }

    @classmethod
    def load_more(cls, folder: Path, config: dict[str, Any], tokenizer: TextTokenizer) -> Self:
        saved = config["embeddings"]
        if config["settings"]["embedding_table"] == "copy":
            table_VD = read_tensors(folder / EMBEDDINGS)["embeddings"]
        else:
            table_VD = load_embedding_table(saved["source"])
        if table_fingerprint(table_VD) != saved["fingerprint"]:
            raise ValueError(
                f"The embedding table of `{saved['source']}` is not the one that the router in `{folder}` was fitted"
                f" with ({saved['fingerprint'][:12]}). Bring that one back, or fit again."
            )
        return cls(embeddings=Embeddings(saved["source"], tokenizer, table_VD), **config["settings"])

    def _weights(self) -> dict[str, float]:
        assert self.statistics is not None, "a saved router is fitted"
        weights_E = domain_weights(self.statistics.tokens_E, self.balance)
        return dict(zip(self.statistics.names, weights_E.tolist(), strict=True))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Solve on one thread: the number of BLAS threads changes the last bits of W."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
