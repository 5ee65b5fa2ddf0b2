"""Multinomial logistic regression on vectors of sequences, solved by scikit-learn."""

import warnings

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from ir3de.functional.ridge import Balance
from ir3de.pretrained.features import SequenceFeatures
from ir3de.routers.choose import Choice
from ir3de.routers.feature_router import FeatureRouter, unit_length
from ir3de.statistics.feature_rows import FeatureRows

C_CANDIDATES = (10.0, 0.1, 1.0, 100.0, 1000.0)
_ITERATIONS = 5000


class LogisticRegressionRouter(FeatureRouter):
    """A linear classifier of vectors at length one; scores are its logits.

    Args:
        features: What makes a sequence's vector, such as a sentence encoder.
        c: The inverse strength of the L2 penalty, scikit-learn's `C`; null chooses it on validation data.
        balance: `domain` gives every domain the same weight; `none` every sequence.
        training_sequences: At most so many training sequences of each domain; null takes all.
    """

    def __init__(
        self,
        *,
        features: SequenceFeatures,
        c: float | None = None,
        balance: Balance = "domain",
        training_sequences: int | None = None,
    ) -> None:
        if c is not None and c <= 0:
            raise ValueError(f"Expected `c` to be positive or null, but got {c}.")
        super().__init__(
            features=features, training_sequences=training_sequences, settings={"c": c, "balance": balance}
        )
        self.c = c or C_CANDIDATES[0]
        self.register_buffer("weight_DE", torch.empty(0), persistent=False)  # the bias is its last row

    weight_DE: Tensor

    @property
    def display_name(self) -> str:
        return f"logistic regression ({self.features.display_name})"

    def choices(self) -> list[Choice]:
        return [{"c": c} for c in C_CANDIDATES] if self._settings["c"] is None else []

    def solve(self, statistics: FeatureRows) -> None:
        """Fit the classifier ``(D + 1, E)`` float64.

        Raises:
            ValueError: if there are fewer than two domains, or the solver does not converge.
        """
        rows_ND, domain_N = statistics.training()
        if len(statistics.names) < 2:
            raise ValueError(f"Expected at least two experts to tell apart, but got {list(statistics.names)}.")
        balanced = "balanced" if self._settings["balance"] == "domain" else None
        solver = LogisticRegression(C=self.c, class_weight=balanced, max_iter=_ITERATIONS)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                solver.fit(unit_length(rows_ND).double().numpy(), domain_N.numpy())
            except ConvergenceWarning as error:
                raise ValueError(
                    f"Logistic regression did not converge in {_ITERATIONS} steps with `c` {self.c}. Set a smaller `c`."
                ) from error
        weight_ED, bias_E = torch.from_numpy(solver.coef_), torch.from_numpy(solver.intercept_)
        if len(bias_E) == 1:  # of two classes scikit-learn keeps the second one's logit
            weight_ED, bias_E = torch.cat([-weight_ED, weight_ED]) / 2, torch.cat([-bias_E, bias_E]) / 2
        self.weight_DE = torch.cat([weight_ED.T, bias_E[None]]).to(self.weight_DE.device)

    def score_features(self, features_BD: Tensor) -> Tensor:
        return unit_length(features_BD).double() @ self.weight_DE[:-1] + self.weight_DE[-1]

    def chosen(self) -> Choice:
        return {"c": self.c}

    def put(self, chosen: Choice) -> None:
        self.c = chosen["c"]

    def tensors(self) -> dict[str, Tensor]:
        return {"weight": self.weight_DE}

    def take(self, tensors: dict[str, Tensor]) -> None:
        self.weight_DE = tensors.get("weight", self.weight_DE)
