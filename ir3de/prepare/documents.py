"""One pass over a source: its documents by turns to the splits, with all that is passed over counted."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ir3de.prepare.settings import Pass


@dataclass(frozen=True, slots=True)
class Document:
    """A document on its way to a split; ``number`` counts the documents of the pass that are not empty.

    ``left_out`` is what was passed over up to here.
    """

    number: int
    split: str
    text: str
    left_out: Mapping[str, int]


class DocumentPass:
    """The documents of one pass; ``left_out`` is what was passed over when it came to its end."""

    def __init__(self, settings: Pass) -> None:
        self._settings = settings
        self._passed_over: Counter[str] = Counter()
        self.left_out: Mapping[str, int] = {}

    def __iter__(self) -> Iterator[Document]:
        source, limits = self._settings.source, self._settings.documents
        given: Counter[str] = Counter()
        turn = self._turns()
        self._passed_over.clear()
        number = 0
        for text in source.documents():
            if not text.strip():
                self._passed_over["empty documents"] += 1
                continue
            if not _is_unicode(text):
                self._passed_over["documents with half a character (a lone surrogate)"] += 1
                continue
            split = next(turn)
            if given[split] == limits.get(split, -1):
                self._passed_over["documents beyond `documents`"] += 1
                continue
            given[split] += 1
            self._note()
            yield Document(number, split, text, self.left_out)
            number += 1
            if limits and all(given[name] == limits.get(name, -1) for name in self._settings.turns):
                break  # before the source goes on
        self._note()

    def _turns(self) -> Iterator[str]:
        while True:
            for split, times in self._settings.turns.items():
                for _ in range(times):
                    yield split

    def _note(self) -> None:
        total = Counter(self._settings.source.left_out) + self._passed_over
        if total != self.left_out:
            self.left_out = dict(sorted(total.items()))


def _is_unicode(text: str) -> bool:
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False
