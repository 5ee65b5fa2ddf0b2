"""Routers whose parameters an optimizer trains: saved as tensors, with a pointer to the frozen model they read with."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from ir3de.functional.ridge import Balance, domain_weights
from ir3de.pretrained.described import described, features_from
from ir3de.pretrained.features import SequenceFeatures
from ir3de.pretrained.tokenizer import TextTokenizer
from ir3de.routers.artifact import ROUTER, Artifact, sha256, tensor_bytes
from ir3de.routers.router import Router, highest
from ir3de.types import Batch, RoutingDecision


class TrainedRouter(Router):
    """A classifier of one vector a sequence; its scores are logits.

    Args:
        features: What makes a sequence's vector.
        training_sequences: At most so many training sequences of each domain; null takes all.
        balance: `domain` lets every domain weigh the same in the loss; `none` every sequence.
        settings: The other settings, as plain values.
    """

    features: SequenceFeatures

    def __init__(
        self,
        *,
        features: SequenceFeatures,
        training_sequences: int | None,
        balance: Balance,
        settings: dict[str, Any],
    ) -> None:
        super().__init__()
        if training_sequences is not None and training_sequences < 1:
            raise ValueError(f"Expected `training_sequences` to be at least 1 or null, but got {training_sequences}.")
        self.features = features
        self.training_sequences = training_sequences
        self._settings = {"training_sequences": training_sequences, "balance": balance, **settings}
        self.class_weights_E: Tensor | None = None

    def begin(self, expert_names: Sequence[str], sequences_E: Tensor) -> None:
        """Make the parameters for these experts, from torch's seed, and weigh domains by their training sequences.

        Raises:
            ValueError: if a domain has no training sequence.
        """
        super().begin(expert_names, sequences_E)
        self.build(len(expert_names))
        self.class_weights_E = domain_weights(sequences_E, self._settings["balance"]).float()

    @abstractmethod
    def build(self, num_experts: int) -> None:
        """Make the parameters."""

    @abstractmethod
    def score_features(self, features_BD: Tensor) -> Tensor:
        """Return logits ``(B, E)`` for vectors ``(B, D)`` float32."""

    @property
    def tokenizer(self) -> TextTokenizer:
        return self.features.tokenizer

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits ``(B, E)``."""
        return self.score_features(self.features(input_ids, attention_mask))

    def score_batch(self, batch: Batch) -> Tensor:
        return self.score_features(batch["features"]) if "features" in batch else super().score_batch(batch)

    def decide_batch(self, batch: Batch) -> RoutingDecision:
        self._check_fitted()
        return self._decision(*highest(self.score_batch(batch).double()))

    def settings(self) -> dict[str, Any]:
        return {"features": described(self.features), **self._settings}

    def identity(self) -> dict[str, Any]:
        """Return what the router is: other than of a closed-form one, its weights are no function of the rest."""
        return super().identity() | {"weights": sha256(tensor_bytes(self.tensors()))}

    def tensors(self) -> dict[str, Tensor]:
        return dict(self.state_dict())

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> Self:
        cls.check_artifact(artifact)
        settings = dict(artifact.config["settings"])
        router = cls(**{**settings, "features": features_from(settings["features"])})
        names = list(artifact.config["experts"])
        router.begin(names, torch.ones(len(names)))
        router.check_reads(artifact)
        router.load_state_dict(artifact.tensors(ROUTER))
        return router.eval()
