"""What routers are held against: chance, one expert for all, and those who know the answer."""

import hashlib
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from ir3de.routers.artifact import Artifact
from ir3de.routers.router import Router, highest
from ir3de.types import Batch, RoutingDecision


class ReferenceRouter(Router):
    """A router that learns nothing from text, and so reads none of it in a fit."""

    closed_form = True
    training_sequences = 1
    tokenizer = None

    def decide_batch(self, batch: Batch) -> RoutingDecision:
        self._check_fitted()
        return self._decision(*highest(self.score_batch(batch)))

    def settings(self) -> dict[str, Any]:
        return {}

    def tensors(self) -> dict[str, Tensor]:
        return {}

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> Self:
        cls.check_artifact(artifact)
        router = cls(**artifact.config["settings"])
        names = list(artifact.config["experts"])
        router.begin(names, torch.ones(len(names)))
        return router


class RandomRouter(ReferenceRouter):
    """Chance: an expert drawn for each prompt by its token ids, so that the same prompt gets the same expert.

    Args:
        seed: Decides the draws.
    """

    display_name = "random"

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return a one at a drawn expert ``(B, E)``."""
        drawn = []
        for ids_T, mask_T in zip(input_ids.cpu(), attention_mask.cpu(), strict=True):
            content = ids_T[mask_T].numpy().astype("<i8").tobytes()
            digest = hashlib.sha256(f"{self.seed} ".encode() + content).digest()
            drawn.append(int.from_bytes(digest[:8], "little") % len(self.expert_names))
        return _one_hot(torch.tensor(drawn, device=input_ids.device), len(self.expert_names))

    def settings(self) -> dict[str, Any]:
        return {"seed": self.seed}


class SingleExpertRouter(ReferenceRouter):
    """One expert for every prompt: what there is without a router.

    Args:
        expert: Its name; null takes the one with the best normalized performance on validation sequences.
        validation_sequences: With null, at most so many validation sequences of each domain are run through all
            experts.
    """

    def __init__(self, *, expert: str | None = None, validation_sequences: int = 64) -> None:
        super().__init__()
        if validation_sequences < 1:
            raise ValueError(f"Expected `validation_sequences` to be at least 1, but got {validation_sequences}.")
        self.configured_expert = expert
        self.validation_sequences = validation_sequences
        self.expert = expert

    @property
    def display_name(self) -> str:
        return f"best single expert ({self.expert})" if self.configured_expert is None else f"always {self.expert}"

    def begin(self, expert_names: Sequence[str], sequences_E: Tensor) -> None:
        super().begin(expert_names, sequences_E)
        if self.expert is not None and self.expert not in self.expert_names:
            raise ValueError(f"Expected `expert` to be one of {list(expert_names)}, but got `{self.expert}`.")

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return a one at the expert ``(B, E)``."""
        if self.expert is None:
            raise ValueError(
                "No expert was chosen: `expert: null` needs a fit, which runs validation text through all."
            )
        place = self.expert_names.index(self.expert)
        return _one_hot(torch.full((len(input_ids),), place, device=input_ids.device), len(self.expert_names))

    def settings(self) -> dict[str, Any]:
        return {"expert": self.configured_expert, "validation_sequences": self.validation_sequences}

    def chosen(self) -> dict[str, Any]:
        return {"expert": self.expert}

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> Self:
        router = super().from_artifact(artifact)
        router.expert = artifact.config["chosen"]["expert"]
        return router


class OracleRouter(ReferenceRouter):
    """The expert of the sequence's true domain, which only a test knows."""

    display_name = "oracle"

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Refuse a prompt, whose domain nobody knows.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"`{self.display_name}` knows the answers of a data set only: it cannot route a prompt.")

    def score_batch(self, batch: Batch) -> Tensor:
        return _one_hot(batch["domain"], len(self.expert_names))


class LossOracleRouter(OracleRouter):
    """The expert with the lowest loss on that very sequence; ``best_N`` is put here before a test."""

    display_name = "loss oracle"
    best_N: Tensor | None = None

    def score_batch(self, batch: Batch) -> Tensor:
        if self.best_N is None:  # no losses are computed of validation sequences
            return super().score_batch(batch)
        return _one_hot(self.best_N.to(batch["index"].device)[batch["index"]], len(self.expert_names))


def _one_hot(expert_B: Tensor, num_experts: int) -> Tensor:
    return torch.nn.functional.one_hot(expert_B, num_experts).double()
