"""Ridge regression on features in context: a layer's hidden states, or a sentence encoder (DESIGN.md 3.4)."""

from functools import cached_property
from typing import Any, Literal, Self

import torch
from torch import Tensor

from ir3de.functional.ridge import Balance, RegularizationScale, domain_weights, solve_ridge
from ir3de.functional.votes import Votes, plurality, token_entropy, vote_shares
from ir3de.pretrained.hidden_states import HiddenStates
from ir3de.pretrained.tokenizer import TextTokenizer
from ir3de.routers.artifact import Artifact
from ir3de.routers.choose import Choice
from ir3de.routers.closed_form import ClosedFormRouter
from ir3de.routers.threads import one_thread
from ir3de.statistics.accumulate import TrainingText
from ir3de.statistics.grams import GramAccumulator, Grams


class ContextualRidgeRouter(ClosedFormRouter[Grams]):
    """The ridge of IR3DE on hidden states. Routing runs the model; what is kept of a domain is one Gram matrix.

    Adding, removing and merging are exact on these matrices, whose own last bits depend on the order of batches and the
    number of processes. Nothing is chosen on validation data.

    Args:
        model: Whose hidden states: a hub id or a folder with safetensors.
        layer: Which layer: 0 is the embeddings, -1 the last.
        pooling: `tokens` scores every token, and `selector` decides; `mean`, `first` and `last` score the sequence.
        regularization: λ of the ridge.
        regularization_scale: Whether λ is absolute, or times the mean diagonal of the Gram matrix.
        balance: `domain` gives every domain the same weight; `none` every row.
        selector: How tokens decide under `pooling: tokens`.
        k: How many tokens of lowest entropy vote under entropy_top_k.
    """

    counts_training = False
    features: HiddenStates

    def __init__(
        self,
        *,
        model: str,
        layer: int = -1,
        pooling: Literal["tokens", "mean", "first", "last"] = "mean",
        regularization: float = 1e-2,
        regularization_scale: RegularizationScale = "absolute",
        balance: Balance = "domain",
        selector: Literal["majority", "mean", "entropy_top_k"] = "mean",
        k: int = 10,
    ) -> None:
        super().__init__()
        if regularization < 0:
            raise ValueError(f"Expected `regularization` to be at least 0, but got {regularization}.")
        if k < 1:
            raise ValueError(f"Expected `k` to be at least 1, but got {k}.")
        if pooling != "tokens" and selector != "mean":
            raise ValueError(
                f"`selector: {selector}` lets tokens vote, but `pooling: {pooling}` has one row a sequence."
            )
        self.features = HiddenStates(model, layer=layer, pooling=pooling)
        self._settings: dict[str, Any] = {
            "model": model,
            "layer": layer,
            "pooling": pooling,
            "regularization": regularization,
            "regularization_scale": regularization_scale,
            "balance": balance,
            "selector": selector,
            "k": k,
        }
        self.weight_DE = torch.empty(0)

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        return self.features.tokenizer

    @property
    def reads_vectors(self) -> bool:
        return False  # tokens may have rows of their own

    @property
    def display_name(self) -> str:
        return f"ridge on hidden states ({self._settings['pooling']})"

    def basis(self) -> dict[str, Any]:
        return {"tokenizer": self.tokenizer.fingerprint, "features": self.features.fingerprint}

    def accumulator(self, data: TrainingText) -> GramAccumulator:
        return GramAccumulator(
            self.features.rows,
            names=data.domain_names,
            basis=self.basis(),
            num_features=self.features.num_features,
            documents=data.training_sources,
        )

    def solve(self, statistics: Grams) -> None:
        """Solve ``W`` ``(D + 1, E)`` float64 from the domains' Gram matrices."""
        rows_E = torch.tensor([share.tokens for share in statistics.shares.values()])
        with one_thread():
            system = statistics.system(domain_weights(rows_E, self._settings["balance"]))
            self.weight_DE = solve_ridge(
                *system, self._settings["regularization"], self._settings["regularization_scale"]
            )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return scores ``(B, E)`` float64: shares of votes, or the mean of the rows' scores."""
        scores_BTE, mask_BT = self._row_scores(input_ids, attention_mask)
        if self._settings["selector"] == "mean":
            return scores_BTE.masked_fill(~mask_BT[..., None], 0).sum(dim=1) / mask_BT.sum(dim=1, keepdim=True)
        return vote_shares(self._votes(scores_BTE, mask_BT), len(self.expert_names))

    def best(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        if self._settings["selector"] == "mean":
            return super().best(input_ids, attention_mask)
        return plurality(self._votes(*self._row_scores(input_ids, attention_mask)), len(self.expert_names))

    def _row_scores(self, ids_BT: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        features_BTD, rows_BT = self.features.rows(ids_BT, mask_BT)
        weight_DE = self.weight_DE.to(features_BTD.device)
        return features_BTD.double() @ weight_DE[:-1] + weight_DE[-1], rows_BT

    def _votes(self, scores_BTE: Tensor, mask_BT: Tensor) -> Votes:
        winner_BT = scores_BTE.argmax(dim=2)
        if self._settings["selector"] == "majority":
            return Votes(winner_BT, mask_BT)
        entropy_BT = token_entropy(scores_BTE.flatten(0, 1)).view(mask_BT.shape).masked_fill(~mask_BT, torch.inf)
        kept_BK = entropy_BT.argsort(dim=1, stable=True)[:, : self._settings["k"]]  # of equals the earlier token
        return Votes(winner_BT.gather(1, kept_BK), mask_BT.gather(1, kept_BK))

    def settings(self) -> dict[str, Any]:
        return dict(self._settings)

    def chosen(self) -> Choice:
        return {}

    def put(self, chosen: Choice) -> None:
        assert not chosen, "nothing is chosen"

    def tensors(self) -> dict[str, Tensor]:
        return {"weight": self.weight_DE}

    def take(self, tensors: dict[str, Tensor]) -> None:
        self.weight_DE = tensors.get("weight", self.weight_DE)

    def read_statistics(self, content: bytes, *, where: str) -> Grams:
        return Grams.from_bytes(content, where=where)

    def with_settings(self, settings: dict[str, Any]) -> Self:
        return type(self)(**settings)

    @classmethod
    def restored(cls, artifact: Artifact, tokenizer: TextTokenizer) -> Self:
        return cls(**artifact.config["settings"])
