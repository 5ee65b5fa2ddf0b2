"""IR3DE: ridge regression on input token embeddings, solved in closed form from token counts (DESIGN.md 3)."""

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal, Self

import torch
from torch import Tensor

from ir3de.functional.ridge import (
    Balance,
    RegularizationScale,
    RidgePath,
    normalize_columns,
    solve_ridge,
    with_bias,
)
from ir3de.routers.bayes import NaiveBayesRouter
from ir3de.routers.choose import Choice
from ir3de.routers.closed_form import Accumulator
from ir3de.routers.embedding_table import EmbeddingTableRouter
from ir3de.routers.embeddings import Embeddings
from ir3de.routers.router import Router
from ir3de.routers.threads import one_thread
from ir3de.routers.token_table import Selector
from ir3de.statistics.accumulate import TrainingText
from ir3de.statistics.loss_sums import LossAccumulator, LossSums
from ir3de.statistics.token_counts import TokenCounts

K_CANDIDATES = (10, 1, 2, 5, 25, 50, 100, 200)
REGULARIZATIONS = (1e-2, *(10.0**i for i in range(-4, 7) if i != -2))
System = tuple[Tensor, Tensor]
BALANCES: tuple[Balance, ...] = ("domain", "none")
PUBLISHED_NAMES: dict[Selector, str] = {
    "majority": "IR3DE-all (majority)",
    "mean": "IR3DE-avg (mean)",
    "entropy_top_k": "IR3DE (entropy top-k)",
}


class RidgeRouter(EmbeddingTableRouter):
    """IR3DE: the ridge map from a token's embedding to one score per expert, and a selector.

    Args:
        embeddings: Whose tokenizer and input embedding table the router uses: a hub id, a folder (an expert's own,
            for example), a GGUF file, or package:NAME. Independent of the experts' tokenizers.
        tokenizer: Where the tokenizer is, if not with the embeddings: a .pth checkpoint has none.
        regularization: λ of the ridge; null chooses it on validation data, from a path of eleven.
        regularization_scale: Whether λ is absolute, as published, or times the mean diagonal of the Gram matrix.
        targets: What a token should score: `domain` 1 for its own domain's expert and 0 for the others; `loss` the
            negative loss of every expert on the training sequence that it is in, so that no domain has to be known.
        targets_sequences: With `loss`, at most so many training sequences of each domain are run through all experts.
        balance: `domain` gives every domain the same weight; `none` every token, as published; null chooses on
            validation data.
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
        tokenizer: str | None = None,
        regularization: float | None = 1e-2,
        regularization_scale: RegularizationScale = "absolute",
        targets: Literal["domain", "loss"] = "domain",
        targets_sequences: int = 500,
        balance: Literal["domain", "none"] | None = "domain",
        normalize: bool = False,
        selector: Literal["majority", "mean", "entropy_top_k"] | None = None,
        k: int | None = None,
        embedding_table: Literal["copy", "pointer"] = "copy",
    ) -> None:
        if regularization is not None and regularization < 0:
            raise ValueError(f"Expected `regularization` to be at least 0 or null, but got {regularization}.")
        if k is not None and k < 1:
            raise ValueError(f"Expected `k` to be at least 1 or null, but got {k}.")
        if k is not None and selector in ("majority", "mean"):
            raise ValueError(f"`k` is for the selector entropy_top_k, but got k={k} with {selector}. Set `k: null`.")
        if targets == "loss" and (
            selector is None or regularization is None or (selector == "entropy_top_k" and not k)
        ):
            raise ValueError(
                "What is open is chosen by domains, which `targets: loss` does without. Give `selector` (mean, for"
                " example), `regularization` and, for entropy_top_k, `k`."
            )
        if targets_sequences < 1:
            raise ValueError(f"Expected `targets_sequences` to be at least 1, but got {targets_sequences}.")
        super().__init__(
            embeddings=embeddings,
            tokenizer=tokenizer,
            embedding_table=embedding_table,
            selector=selector or "entropy_top_k",
            k=k or K_CANDIDATES[0],
        )
        self._settings: dict[str, Any] = {
            "regularization": regularization,
            "regularization_scale": regularization_scale,
            "targets": targets,
            "targets_sequences": targets_sequences,
            "balance": balance if targets == "domain" else "none",
            "normalize": normalize,
            "selector": selector,
            "k": k,
            "embedding_table": embedding_table,
        }
        self.regularization = REGULARIZATIONS[0] if regularization is None else regularization
        self.regularization_scale: RegularizationScale = regularization_scale
        self.targets = targets
        self.targets_sequences = targets_sequences
        self.counts_training = targets == "domain"
        self.balance: Balance = self._settings["balance"] or BALANCES[0]
        self.normalize = normalize
        self.weight_DE = torch.empty(0)
        self._last: tuple[TokenCounts | LossSums, Balance, System] | None = None

    @property
    def display_name(self) -> str:
        name = PUBLISHED_NAMES[self.selector].replace("top-k", f"top-{self.k}")
        return name if self.targets == "domain" else f"{name[:-1]}, losses as targets)"

    @property
    def keeps_scores(self) -> bool:
        """With more experts than embedding features, the mean is cheaper made from the embeddings."""
        return len(self.expert_names) <= self.embeddings.table_VD.shape[1]

    def accumulator(self, data: TrainingText) -> Accumulator[Any]:
        if self.targets == "domain":
            return super().accumulator(data)
        return LossAccumulator(data.domain_names, self.basis())

    def read_statistics(self, content: bytes, *, where: str) -> Any:
        if self.targets == "domain":
            return super().read_statistics(content, where=where)
        return LossSums.from_bytes(content, where=where)

    def solve(self, statistics: TokenCounts | LossSums) -> None:
        """Solve ``W`` ``(D + 1, E)`` float64 and make the table of ``S = ẼW``; equal counts give equal bytes here."""
        with one_thread():
            system = self._system(statistics, self.balance)
            self._use(solve_ridge(*system, self.regularization, self.regularization_scale))

    def rows(self, low: int, high: int) -> Tensor:
        return with_bias(self.embeddings.table_VD[low:high]) @ self.weight_DE

    def mean_scores(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        if self.keeps_scores:
            return super().mean_scores(input_ids, attention_mask)
        x_MD = with_bias(self.embeddings.table_VD[input_ids[attention_mask].cpu()])
        row_M = attention_mask.nonzero()[:, 0].cpu()
        mean_BD = torch.zeros(len(input_ids), x_MD.shape[1], dtype=torch.float64).index_add_(0, row_M, x_MD)
        return mean_BD / attention_mask.sum(dim=1, keepdim=True).cpu() @ self.weight_DE

    def settings(self) -> dict[str, Any]:
        return dict(self._settings)

    def chosen(self) -> Choice:
        return {
            "balance": self.balance,
            "regularization": self.regularization,
            "selector": self.selector,
            "k": self.k if self.selector == "entropy_top_k" else None,
        }

    def put(self, chosen: Choice) -> None:
        self.balance, self.regularization = chosen["balance"], chosen["regularization"]
        self.selector, self.k = chosen["selector"], chosen["k"]

    def choices(self) -> list[Choice]:
        given = self._settings
        by_k = [given["k"]] if given["k"] else K_CANDIDATES
        votes: list[Choice] = [{"selector": "entropy_top_k", "k": k} for k in by_k]
        votes += [{"selector": "mean", "k": None}, {"selector": "majority", "k": None}]
        every = [
            {"balance": balance, "regularization": regularization, **vote}
            for balance in ([given["balance"]] if given["balance"] else BALANCES)
            for regularization in (REGULARIZATIONS if given["regularization"] is None else [given["regularization"]])
            for vote in votes
            if given["selector"] in (None, vote["selector"])
        ]
        return every if len(every) > 1 else []

    def explore(self) -> Iterator[Choice]:
        """Put the router into each choice; all λ come from one eigendecomposition for each ``balance``."""
        choices = self.choices()
        for balance, of_balance in groupby(choices, key=itemgetter("balance")):
            with one_thread():
                system = self._system(self._fitted(), balance)
                several = self._settings["regularization"] is None
                path = RidgePath(*system) if several else None
            for regularization, of_both in groupby(of_balance, key=itemgetter("regularization")):
                with one_thread():
                    scale = self.regularization_scale
                    solved = path.solve(regularization, scale) if path else solve_ridge(*system, regularization, scale)
                    self._use(solved)
                for choice in of_both:
                    self.put(choice)
                    yield choice

    def effective_regularization(self) -> float:
        """Return λ over the mean diagonal of the Gram matrix: how much it shrinks, whatever the size of the data."""
        if self.regularization_scale == "mean_diagonal":
            return self.regularization
        with one_thread():
            xx_DD, _ = self._system(self._fitted(), self.balance)
        return self.regularization / float(xx_DD.diagonal().mean())

    def siblings(self) -> dict[str, Router]:
        """Return the three selectors over this table and naive Bayes over these counts, each as a router."""
        open_k = self.targets == "loss" and self._settings["k"] is None
        twins = [self.with_selector(key) for key in PUBLISHED_NAMES if not (open_k and key == "entropy_top_k")]
        siblings: dict[str, Router] = {twin.display_name: twin for twin in twins}
        if self.targets == "loss":
            return siblings
        bayes = NaiveBayesRouter(tokenizer=self.tokenizer)
        bayes.fit(self._fitted())
        return siblings | {bayes.display_name: bayes}

    def with_selector(self, selector: Selector) -> Self:
        """Return this router with another selector, whose k is chosen where this one's was open."""
        k = self._settings["k"] if selector == "entropy_top_k" else None
        fixed = {"balance": self.balance, "regularization": self.regularization, "selector": selector, "k": k}
        twin = self.with_settings(self._settings | fixed)
        twin._last = self._last
        twin.fit(self._fitted())
        return twin

    def tensors(self) -> dict[str, Tensor]:
        return super().tensors() | {"weight": self.weight_DE}

    def take(self, tensors: dict[str, Tensor]) -> None:
        super().take(tensors)
        self.weight_DE = tensors.get("weight", self.weight_DE)

    def _system(self, statistics: TokenCounts | LossSums, balance: Balance) -> System:
        """Return the Gram matrix and the right side; the last ones are kept, since λ and votes change neither."""
        if self._last is None or self._last[0] is not statistics or self._last[1] != balance:
            table_VD = self.embeddings.table_VD[: statistics.vocab_size]
            self._last = (statistics, balance, statistics.system(table_VD, balance))
        return self._last[2]

    def _use(self, weight_DE: Tensor) -> None:
        self.weight_DE = normalize_columns(weight_DE) if self.normalize else weight_DE
        self.tabulate()
