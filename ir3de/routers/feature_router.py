"""Closed-form routers over vectors of sequences: kept as they are, so that experts come and go exactly."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Self

from torch import Tensor
from torch.nn.functional import normalize

from ir3de.pretrained.described import described, features_from
from ir3de.pretrained.features import SequenceFeatures
from ir3de.pretrained.tokenizer import TextTokenizer
from ir3de.routers.artifact import Artifact
from ir3de.routers.choose import accuracy_mean
from ir3de.routers.closed_form import Accumulator, ClosedFormRouter
from ir3de.routers.router import highest
from ir3de.statistics.feature_rows import FeatureRows, RowAccumulator
from ir3de.types import Batch, RoutingDecision


class FeatureRouter(ClosedFormRouter[FeatureRows]):
    """Scores one vector a sequence. What the settings leave open is chosen on the validation vectors.

    Args:
        features: What makes a sequence's vector.
        training_sequences: At most so many training sequences of each domain; null takes all.
        settings: The other settings, as plain values.
    """

    counts_training = False
    features: SequenceFeatures

    def __init__(self, *, features: SequenceFeatures, training_sequences: int | None, settings: dict[str, Any]) -> None:
        super().__init__()
        if training_sequences is not None and training_sequences < 1:
            raise ValueError(f"Expected `training_sequences` to be at least 1 or null, but got {training_sequences}.")
        self.features = features
        self.training_sequences = training_sequences
        self._settings = settings

    @abstractmethod
    def score_features(self, features_BD: Tensor) -> Tensor:
        """Return scores ``(B, E)`` float64 for vectors ``(B, D)`` float32."""

    @property
    def tokenizer(self) -> TextTokenizer:
        return self.features.tokenizer

    def basis(self) -> dict[str, Any]:
        return {"features": self.features.fingerprint}

    def reads(self) -> dict[str, Any]:
        return {"tokenizer": self.tokenizer.fingerprint, **self.basis()}

    def accumulator(self, data: Any) -> Accumulator[FeatureRows]:
        return RowAccumulator(data, basis=self.basis(), num_features=self.features.num_features)

    def held_out_accuracy(self, statistics: FeatureRows) -> Callable[[], float] | None:
        features_MD, domain_M = statistics.validation()
        if not len(features_MD):
            return None
        return lambda: accuracy_mean(highest(self.score_features(features_MD))[0], domain_M)

    @property
    def unchecked(self) -> list[str]:
        shares = self._fitted().shares if self.choices() else {}
        return [name for name, share in shares.items() if not len(share.validation_MD)]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return scores ``(B, E)`` float64."""
        return self.score_features(self.features(input_ids, attention_mask))

    def score_batch(self, batch: Batch) -> Tensor:
        return self.score_features(batch["features"])

    def decide_batch(self, batch: Batch) -> RoutingDecision:
        self._check_fitted()
        return self._decision(*highest(self.score_batch(batch)))

    def settings(self) -> dict[str, Any]:
        return {
            "features": described(self.features),
            "training_sequences": self.training_sequences,
            **self._settings,
        }

    def read_statistics(self, content: bytes, *, where: str) -> FeatureRows:
        return FeatureRows.from_bytes(content, where=where)

    def with_settings(self, settings: dict[str, Any]) -> Self:
        return type(self)(**{**settings, "features": self.features})

    @classmethod
    def restored(cls, artifact: Artifact, tokenizer: TextTokenizer) -> Self:
        settings = dict(artifact.config["settings"])
        return cls(**{**settings, "features": features_from(settings["features"])})


def unit_length(features_BD: Tensor) -> Tensor:
    """Return the rows at length one, so that a product is a cosine."""
    return normalize(features_BD, dim=1)
