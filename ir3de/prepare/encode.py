"""Documents to token ids in several processes, in the order in which they came."""

import os
import pickle
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias

import numpy as np

from ir3de.prepare.documents import Document
from ir3de.prepare.settings import Separator
from ir3de.pretrained.tokenizer import TextTokenizer

_DOCUMENTS_AT_ONCE = 512
_CHARACTERS_AT_ONCE = 1 << 20
_PACKAGE = Path(__file__).parents[1]
_BATCHES_AHEAD = 3  # of each process: enough that none waits, and a bound on memory

_Answer: TypeAlias = tuple[np.ndarray, list[int]]  # the token ids of all texts in a row, and where each ends


@dataclass(frozen=True)
class Around:
    """The token ids before and after each document."""

    before: list[int]
    after: list[int]

    @classmethod
    def of(cls, separator: Separator, tokenizer: TextTokenizer, name: str) -> "Around":
        """Return what ``separator`` means with a tokenizer.

        Raises:
            ValueError: if the tokenizer has no such token.
        """
        if separator == "none":
            return cls([], [])
        if separator == "end_of_text":
            if tokenizer.end_of_text is None:
                raise ValueError(
                    f"Expected an end of text in the tokenizer `{name}`, but it has none. Set `prepare.separator` to"
                    " `special_tokens` or `none`."
                )
            return cls([], [tokenizer.end_of_text])
        encoding = tokenizer.backend.encode("a", add_special_tokens=True)
        special = [bool(one) for one in encoding.special_tokens_mask]
        first, last = special.index(False), len(special) - special[::-1].index(False)
        around = cls(encoding.ids[:first], encoding.ids[last:])
        if not around.before and not around.after:
            raise ValueError(
                f"Expected special tokens that the tokenizer `{name}` puts around a text, but it puts none. Set"
                " `prepare.separator` to `end_of_text` or `none`."
            )
        return around

    def put(self, ids: np.ndarray) -> np.ndarray:
        """Return a document's ids with those around it, int32."""
        return np.concatenate([self.before, ids, self.after]).astype(np.int32)


def encoded(
    documents: Iterable[Document], tokenizer: TextTokenizer, *, processes: int
) -> Iterator[tuple[Document, np.ndarray]]:
    """Yield each document with its token ids, in order.

    Raises:
        ValueError: if a process ends before its time.
    """
    if processes == 1:
        for batch in _batches(documents):
            yield from zip(batch, tokenizer.encode([one.text for one in batch]), strict=True)
        return
    waiting: deque[tuple[list[Document], Future[_Answer]]] = deque()
    with _Workers(tokenizer, processes) as workers:
        for batch in _batches(documents):
            waiting.append((batch, workers.submit([one.text for one in batch])))
            if len(waiting) == processes * _BATCHES_AHEAD:
                yield from _finished(*waiting.popleft())
        while waiting:
            yield from _finished(*waiting.popleft())


class _Workers:
    """Processes that tokenize, each with a thread that waits for it."""

    def __init__(self, tokenizer: TextTokenizer, processes: int) -> None:
        self._files = tokenizer.files()
        self._threads = ThreadPoolExecutor(processes, initializer=self._start)
        self._of_thread = threading.local()
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._started:
            process.kill()  # it holds nothing that could be lost
            process.communicate()
        self._threads.shutdown()

    def submit(self, texts: list[str]) -> Future[_Answer]:
        return self._threads.submit(self._encode, texts)

    def _start(self) -> None:
        path = os.pathsep.join(filter(None, [str(_PACKAGE.parent), os.environ.get("PYTHONPATH")]))
        process = subprocess.Popen(
            [sys.executable, "-m", "ir3de.prepare.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": path},
        )
        self._of_thread.process = process
        self._started.append(process)
        self._of_thread.begun = False

    def _encode(self, texts: list[str]) -> _Answer:
        process = self._of_thread.process
        try:
            if not self._of_thread.begun:
                pickle.dump(self._files, process.stdin)
                self._of_thread.begun = True
            pickle.dump(texts, process.stdin)
            process.stdin.flush()
            answer: _Answer = pickle.load(process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise ValueError(
                "A process that tokenizes ended before its time; perhaps memory was short. Run again with a smaller"
                " `prepare.processes`: files that are written already are kept."
            ) from error
        return answer


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if len(batch) == _DOCUMENTS_AT_ONCE or characters >= _CHARACTERS_AT_ONCE:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _finished(batch: list[Document], future: Future[_Answer]) -> Iterator[tuple[Document, np.ndarray]]:
    ids, ends = future.result()
    yield from zip(batch, np.split(ids, ends[:-1]), strict=True)
