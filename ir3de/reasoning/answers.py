"""Answers of experts on disk, by what was asked: written in shards, so that a killed run goes on."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from ir3de.files import replace_file

_VERSION = 1  # raise it when the same request would get another answer
_PACKAGES = ("lm_eval", "transformers", "torch")


@dataclass(frozen=True, slots=True)
class Answer:
    """What an expert answered: text, a log likelihood with whether it is the likeliest, or a log likelihood alone.

    ``cut`` tells that the prompt did not fit into the expert's window, and lost its beginning.
    """

    value: Any
    cut: bool


class AnswerCache:
    """The answers of one expert by the key of the request.

    Args:
        folder: Where they are kept; in memory only where it is ``None``.

    Raises:
        ValueError: if a file is damaged.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._answers: dict[str, Answer] = {}
        for file in sorted(folder.glob("*.json")) if folder is not None else []:
            try:
                rows = json.loads(file.read_text())
                self._answers |= {key: Answer(_as_given(value), bool(cut)) for key, value, cut in rows}
            except (ValueError, TypeError) as error:
                raise ValueError(f"`{file}` is damaged ({error}). Delete it; it will be answered again.") from error

    def __contains__(self, key: str) -> bool:
        return key in self._answers

    def __getitem__(self, key: str) -> Answer:
        return self._answers[key]

    def add(self, answers: Mapping[str, Answer]) -> None:
        """Keep the answers of a shard, but for those that are there already: what a run has used does not change."""
        new = {key: one for key, one in answers.items() if key not in self._answers}
        self._answers |= new
        if self._folder is not None and new:
            rows = [[key, one.value, one.cut] for key, one in new.items()]
            name = hashlib.sha256("".join(new).encode()).hexdigest()[:24]
            replace_file(self._folder / f"{name}.json", json.dumps(rows).encode())


def answers_folder(
    cache_dir: Path, *, fingerprint: str, dtype: str, tokenizer: PreTrainedTokenizerBase, seed: int
) -> Path:
    """Return the folder of an expert's answers: another one for other weights, precision, tokenizer, seed or versions.

    What is asked (prompt, examples, generation settings) is in the key of each answer.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    reads = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    content = [_VERSION, fingerprint, dtype, reads, tokenizer.eos_token, seed, [version(name) for name in _PACKAGES]]
    return cache_dir / "answers" / hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]


def request_keys(kind: str, requests: Sequence[tuple[Any, ...]]) -> list[str]:
    """Return a key for each request, from its kind and arguments; equal ones that are sampled are told apart."""
    met: Counter[str] = Counter()
    keys = []
    for arguments in requests:
        digest = hashlib.sha256(json.dumps([kind, arguments], sort_keys=True).encode()).hexdigest()[:32]
        sampled = kind == "generate_until" and arguments[1].get("do_sample", False)
        keys.append(f"{digest}.{met[digest]}" if sampled else digest)
        met[digest] += 1
    return keys


def _as_given(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
