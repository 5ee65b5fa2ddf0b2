"""What every rival does when it is asked, and vectors that are encoded once for all of them."""

import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

Texts = dict[str, list[str]]


class Kept:
    """Vectors of lists of texts in a folder, and the seconds that encoding took; ``seconds`` are those not spent here.

    They are MiniLM's, of length 1, which is how sentence-transformers gives them, whoever asks.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.seconds = 0.0

    def vectors(self, encode: Callable[[Sequence[str]], Any], texts: Sequence[str]) -> np.ndarray:
        """Return the vectors of these texts: read, or encoded and written."""
        path = self._folder / f"{hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()}.npz"
        if path.is_file():
            with np.load(path) as kept:
                found: np.ndarray = kept["vectors"]
                self.seconds += float(kept["seconds"])
            return found
        start = time.perf_counter_ns()
        found = np.asarray(encode(texts), dtype=np.float32)
        np.savez(path, vectors=found, seconds=(time.perf_counter_ns() - start) / 1e9)
        return found

    def spent(self) -> float:
        """Return the seconds that another spent on encoding since this was last asked."""
        spent, self.seconds = self.seconds, 0.0
        return spent


class Rival(ABC):
    """Routes text; ``package`` is what it is installed as. ``kept`` has the vectors of what was learned before."""

    package: str
    kept: Kept | None = None

    def answer(self, what: str, value: Any) -> Any:
        """Do what is asked for."""
        does: dict[str, Callable[[Any], Any]] = {
            "train": lambda texts: (
                f"{self.package} {version(self.package)}",
                self.learning(self.train, texts),
                self.settings(),
            ),
            "route": lambda texts: [self.route(text) for text in texts],
            "time": lambda texts: [seconds(self.route, text) for text in texts],
            "batch": lambda texts: seconds(self.route_many, texts),
            "stages": self.stages_of,
            "add": lambda two: self.learning(lambda two: self.add(*two), two),
            "remove": lambda name: seconds(self.remove, name),
        }
        return does[what](value)

    def learning(self, learn: Callable[[Any], object], value: Any) -> float:
        """Return the seconds of learning, with those of encoding that another spent."""
        taken = seconds(learn, value)
        return taken if self.kept is None else taken + self.kept.spent()

    def settings(self) -> dict[str, Any]:
        """Return what was chosen from the training texts."""
        return {}

    def stages_of(self, texts: list[str]) -> dict[str, list[float]]:
        """Return the seconds of each stage of each text's decision."""
        found: dict[str, list[float]] = {}
        for text in texts:
            for stage, taken in self.stages(text):
                found.setdefault(stage, []).append(taken)
        return found

    def train(self, texts: Texts) -> None:
        """Learn every domain."""
        for name, some in texts.items():
            self.add(name, some)

    @abstractmethod
    def add(self, name: str, texts: list[str]) -> None:
        """Learn one domain more."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Forget a domain."""

    @abstractmethod
    def route(self, text: str) -> str:
        """Return the domain of a text."""

    def route_many(self, texts: list[str]) -> list[str]:
        """Return the domain of each text, by a call for many where there is one."""
        return [self.route(text) for text in texts]

    @abstractmethod
    def stages(self, text: str) -> Iterator[tuple[str, float]]:
        """Yield the stages of a decision with their seconds."""


def seconds(function: Callable[[Any], object], value: Any) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter_ns()
    function(value)
    return (time.perf_counter_ns() - start) / 1e9
