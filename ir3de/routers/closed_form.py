"""Routers that are solved from statistics: experts are added, removed and merged, exactly and at once."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

from ir3de.pretrained.tokenizer import TextTokenizer
from ir3de.routers.artifact import ROUTER, STATISTICS, Artifact
from ir3de.routers.choose import Choice, ScoredChoice, best_choice
from ir3de.routers.router import Router
from ir3de.statistics.accumulate import TrainingText
from ir3de.statistics.statistics import Statistics, check_share

St = TypeVar("St", bound=Statistics[Any])
Made_co = TypeVar("Made_co", bound=Statistics[Any], covariant=True)


class Accumulator(Protocol[Made_co]):
    """Adds up batches on one process, and then the processes; ``reduce`` adds a tensor over them."""

    def add(self, batch: Any) -> None: ...

    def total(self, reduce: Callable[[Tensor], Tensor], *, world_size: int) -> Made_co: ...


class ClosedFormRouter(Router, Generic[St]):
    """A router that is a function of its settings and its statistics, and of nothing else.

    So a router that an expert was added to and removed from is the one that never saw it. ``scored`` has what was
    open in the settings with its accuracy on validation data; ``unchecked`` names the experts without such data, for
    which what was chosen has not been tried. ``models`` says, where it was told, which language model an expert is.
    """

    closed_form = True
    counts_training = True  # whether the fit reads the training text as counts of shards, or as batches of sequences

    def __init__(self) -> None:
        super().__init__()
        self.statistics: St | None = None
        self.scored: list[ScoredChoice] = []
        self.models: dict[str, str] = {}

    @property
    @abstractmethod
    def tokenizer(self) -> TextTokenizer: ...

    @abstractmethod
    def basis(self) -> dict[str, Any]:
        """Return what the statistics must have been made with; see ``Statistics.basis``."""

    def reads(self) -> dict[str, Any]:
        """Return what the router reads text with: fingerprints of its tokenizer and of the tables it has."""
        return self.basis()

    @abstractmethod
    def accumulator(self, data: TrainingText) -> Accumulator[St]:
        """Return what adds up the training text of ``data``, batch by batch."""

    @abstractmethod
    def solve(self, statistics: St) -> None:
        """Make the router's tensors from ``statistics``, with the choices in force."""

    @abstractmethod
    def with_settings(self, settings: dict[str, Any]) -> Self:
        """Return an unfitted router that reads text alike, with these settings."""

    def frozen(self) -> Self:
        """Return an unfitted router that has nothing left to choose: what was chosen here is given."""
        return self.with_settings(self.settings() | self.chosen())

    def choices(self) -> list[Choice]:
        """Return what is left to choose on validation data, the preferred first; empty where nothing is."""
        return []

    def explore(self) -> Iterator[Choice]:
        """Put the router into each of ``choices``, solved, and yield it."""
        for choice in self.choices():
            self.put(choice)
            self.solve(self._fitted())
            yield choice

    def held_out_accuracy(self, statistics: St) -> Callable[[], float] | None:
        """Return what measures the router as it is on the held-out sequences of the statistics, if there are any."""
        return None

    def solve_and_choose(self, statistics: St) -> None:
        """Solve, with what is open chosen by routing accuracy, mean over domains, on the sequences that are kept.

        A function of the statistics, so that an expert that was removed has left no trace in it. Where no domain has
        validation data, the preferred choice is taken.
        """
        self.scored = []
        if self.choices():
            measure = self.held_out_accuracy(statistics)
            if measure is not None:
                self.scored = [ScoredChoice(choice, measure()) for choice in self.explore()]
            self.put(best_choice(self.scored) if self.scored else self.choices()[0])
        self.solve(statistics)

    @property
    def unchecked(self) -> list[str]:
        """The experts without validation data, if something was chosen: it was chosen without a look at them."""
        return []

    def fit(self, statistics: St) -> None:
        """Solve, and choose what is open.

        Raises:
            ValueError: if the statistics were made with another tokenizer or table, or a domain has no tokens.
        """
        statistics.check_basis(self.basis())
        for name, share in statistics.shares.items():
            check_share(name, share)
        self.statistics = statistics
        self.expert_names = statistics.names
        self.models = {name: model for name, model in self.models.items() if name in statistics.shares}
        self.solve_and_choose(statistics)

    def add_expert(self, name: str, share: Any, *, model: str | None = None) -> None:
        """Add an expert by what was read of its domain; nothing else is read again.

        Raises:
            ValueError: if the name exists, the share is empty, or its sources have been read already.
        """
        self.fit(self._fitted().with_expert(name, share))
        if model is not None:
            self.models[name] = model

    def remove_expert(self, name: str) -> None:
        """Remove an expert: the router is then the one that never saw it.

        Raises:
            ValueError: if there is no such expert, or no other.
        """
        self.fit(self._fitted().without_expert(name))

    def merge(self, other: "ClosedFormRouter[St]") -> None:
        """Take over the experts of a router with the same settings; experts of equal names add.

        Raises:
            ValueError: if class, settings, tokenizer or table differ, or a source was read by both.
        """
        if type(other) is not type(self) or other.settings() != self.settings():
            raise ValueError(
                f"Expected routers with the same settings to merge, but got a {type(self).__name__} with"
                f" {self.settings()} and a {type(other).__name__} with {other.settings()}. Fit them with one config."
            )
        differing = [key for key, value in self.reads().items() if other.reads().get(key) != value]
        if differing:
            raise ValueError(
                f"Expected routers that read text alike to merge, but they differ in {' and '.join(differing)}."
                " Fit them with one tokenizer and one embedding table."
            )
        merged = self._fitted().merge(other._fitted())
        self.models = other.models | self.models
        self.fit(merged)

    def experts(self) -> dict[str, Any]:
        return {name: share.facts() for name, share in self._fitted().shares.items()}

    def files(self) -> dict[str, bytes]:
        return {**super().files(), STATISTICS: self._fitted().to_bytes()}

    def about(self) -> dict[str, Any]:
        return {"models": self.models, "scored": self.scored_pairs(), "unchecked": self.unchecked}

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> Self:
        cls.check_artifact(artifact)
        config = artifact.config
        router = cls.restored(artifact, TextTokenizer.from_files(artifact.files))
        router.check_reads(artifact)
        statistics = router.read_statistics(artifact.files[STATISTICS], where=str(artifact.folder / STATISTICS))
        statistics.check_basis(router.basis())
        router.models = dict(config["models"])
        router.adopt(statistics, artifact.tensors(ROUTER), config["chosen"], config["scored"])
        return router

    def adopt(self, statistics: St, tensors: dict[str, Tensor], chosen: Choice, scored: list[Any]) -> None:
        """Take over what was solved elsewhere from ``statistics``; ``scored`` has pairs of choice and accuracy."""
        self.statistics, self.expert_names = statistics, statistics.names
        self.scored = [ScoredChoice(choice, accuracy) for choice, accuracy in scored]
        self.put(chosen)
        self.take(tensors)

    @abstractmethod
    def read_statistics(self, content: bytes, *, where: str) -> St:
        """Return the statistics that ``content`` holds."""

    @classmethod
    @abstractmethod
    def restored(cls, artifact: Artifact, tokenizer: TextTokenizer) -> Self:
        """Return an unfitted router with the saved settings."""

    @abstractmethod
    def take(self, tensors: dict[str, Tensor]) -> None:
        """Take over saved tensors, without solving."""

    def scored_pairs(self) -> list[Any]:
        """Return what was open with its accuracy in percent, as plain values."""
        return [[one.choice, round(one.routing_accuracy_mean, 4)] for one in self.scored]

    def get_extra_state(self) -> dict[str, Any]:
        """Return the knowledge as plain values, which a checkpoint loads with ``weights_only=True``."""
        if self.statistics is None:
            return {}
        content = torch.frombuffer(bytearray(self.statistics.to_bytes()), dtype=torch.uint8)
        return {"statistics": content, "chosen": self.chosen(), "scored": self.scored_pairs()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore a checkpoint's statistics and choices, and solve again."""
        if state:
            statistics = self.read_statistics(state["statistics"].numpy().tobytes(), where="the checkpoint")
            statistics.check_basis(self.basis())
            self.adopt(statistics, {}, state["chosen"], state["scored"])
            self.solve(statistics)

    @abstractmethod
    def put(self, chosen: Choice) -> None:
        """Set what is in force of the choices, without solving."""

    def _fitted(self) -> St:
        if self.statistics is None:
            raise ValueError("Expected a fitted router, but this one has no experts. Run `python main.py fit` first.")
        return self.statistics
