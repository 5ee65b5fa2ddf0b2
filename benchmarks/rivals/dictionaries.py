"""kolmo: a dictionary of zstd for each domain."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from rivals.base import Rival, Texts, seconds

SIZES = (4_000, 8_000, 16_000, 32_000, 64_000, 112_640)  # bytes of a dictionary; the last is kolmo's default
PASSAGE, PASSAGES = 400, 200  # characters of a passage that a size is tried on, and passages of a domain


class Kolmo(Rival):
    """A dictionary of zstd for each domain; it has no removal, but a domain that is added again takes its place."""

    package = "kolmo"

    def __init__(self) -> None:
        from kolmo import KolmoRouter  # noqa: PLC0415 - each rival loads its own
        from loguru import logger  # noqa: PLC0415

        logger.remove()
        self._new: Callable[..., Any] = KolmoRouter
        self._router = self._new()

    def add(self, name: str, texts: list[str]) -> None:
        self._router.add_domain(name, samples=texts, target_model=name)

    def remove(self, name: str) -> None:
        raise ValueError("kolmo removes nothing")

    def route(self, text: str) -> str:
        return str(self._router.route(text).winner)

    def route_many(self, texts: list[str]) -> list[str]:
        return [str(one.winner) for one in self._router.route_many(texts).results]

    def stages(self, text: str) -> Iterator[tuple[str, float]]:
        whole, scoring = seconds(self.route, text), seconds(self._router._score_prompt, text.encode())
        yield from (("scoring", scoring), ("deciding", max(0.0, whole - scoring)))


class KolmoOneSize(Kolmo):
    """kolmo with dictionaries of one size, that with which the most held-out training texts go to their domain.

    kolmo adds the size of a compressed dictionary to a domain's score. With its default, where a domain has less text
    than the dictionary may be large, sizes differ, and the domain with the largest one hardly ever wins.
    """

    def train(self, texts: Texts) -> None:
        draw = np.random.default_rng(0)
        kept: Texts = {}
        held: Texts = {}
        for name, documents in texts.items():
            order = draw.permutation(len(documents))
            cut = max(1, len(documents) // 5)
            parts = [one[i : i + PASSAGE] for one in (documents[j] for j in order[:cut])
                     for i in range(0, len(one), PASSAGE)]  # fmt: skip
            parts = [one for one in parts if one.strip()]
            held[name] = [parts[i] for i in np.unique(np.linspace(0, len(parts) - 1, PASSAGES).astype(int))]
            kept[name] = [documents[j] for j in order[cut:]]
        self._size = max(SIZES, key=lambda size: self._right(size, kept, held))
        self._teach(self._size, texts)

    def settings(self) -> dict[str, Any]:
        return {"dictionary_bytes": self._size}

    def _teach(self, size: int, texts: Texts) -> None:
        self._router = self._new(dict_size=size)
        super().train(texts)

    def _right(self, size: int, kept: Texts, held: Texts) -> float:
        self._teach(size, kept)
        return float(np.mean([np.mean([self.route(one) == name for one in some]) for name, some in held.items()]))
