"""Documents to sequences of token ids: packed into blocks of one length, or one sequence per document.

Shape suffixes: ``N`` sequences, ``M`` tokens of all documents in a row, ``T`` tokens of a block.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ir3de.pretrained.tokenizer import TextTokenizer

BETWEEN_DOCUMENTS = "\n\n"
_DOCUMENTS_AT_ONCE = 256


@dataclass(frozen=True)
class Encoded:
    """Documents as token ids (int32 each); ``starts`` has the character at which each token begins, int64.

    ``rows`` are the documents' places in their source. ``texts`` and ``starts`` are empty for text that came as ids.
    """

    rows: np.ndarray
    tokens: list[np.ndarray]
    texts: list[str]
    starts: list[np.ndarray]


@dataclass(frozen=True)
class Sequences:
    """Token ids row after row ``(M,)`` int32, where each row begins ``(N + 1,)``, and how much of it is real ``(N,)``.

    ``document`` is the place in the source of the first document of each row; ``texts`` is None without text.
    ``next_N`` int32 is the token that follows each row, where the data tell (labels that are shifted by one).
    """

    ids_M: np.ndarray
    offsets: np.ndarray
    length_N: np.ndarray
    document_N: np.ndarray
    texts: list[str] | None
    next_N: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> "Sequences":
        """Return the given rows, in that order."""
        widths = np.diff(self.offsets)[rows]
        pieces = [self.ids_M[self.offsets[row] : self.offsets[row + 1]] for row in rows]
        return Sequences(
            np.concatenate(pieces) if pieces else self.ids_M[:0],
            np.concatenate([[0], np.cumsum(widths)]).astype(np.int64),
            self.length_N[rows],
            self.document_N[rows],
            None if self.texts is None else [self.texts[row] for row in rows],
            None if self.next_N is None else self.next_N[rows],
        )


def encode_documents(texts: Sequence[str], rows: np.ndarray, tokenizer: TextTokenizer) -> Encoded:
    """Tokenize documents; one that yields no token is passed over."""
    kept: list[int] = []
    tokens: list[np.ndarray] = []
    starts: list[np.ndarray] = []
    for first in range(0, len(texts), _DOCUMENTS_AT_ONCE):
        batch = tokenizer.encode_with_offsets(texts[first : first + _DOCUMENTS_AT_ONCE])
        for i, (ids, spans) in enumerate(batch, start=first):
            if len(ids):
                kept.append(i)
                tokens.append(ids)
                starts.append(np.maximum.accumulate(spans[:, 0]))  # slices must not run backwards
    return Encoded(rows[kept], tokens, [texts[i] for i in kept], starts)


def one_per_document(documents: Encoded) -> Sequences:
    """Return each document as a sequence of its own, ragged."""
    lengths = np.asarray([len(ids) for ids in documents.tokens], dtype=np.int64)
    return Sequences(
        np.concatenate(documents.tokens).astype(np.int32, copy=False) if documents.tokens else np.zeros(0, np.int32),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        lengths,
        documents.rows.astype(np.int64),
        list(documents.texts) if documents.texts else None,
    )


def pack_documents(documents: Encoded, *, block_length: int, separator: int | None) -> Sequences:
    """Cut all documents, one after another, into blocks of ``block_length`` tokens; the last is filled with zeros.

    ``separator`` stands between documents where it is given. The text of a block is the slices of the documents that
    its tokens come from, joined by a blank line: every character is in exactly one block.
    """
    gap = 0 if separator is None else 1
    sizes = np.asarray([len(ids) for ids in documents.tokens], dtype=np.int64)
    begins = np.concatenate([[0], np.cumsum(sizes + gap)[:-1]]) if len(sizes) else sizes
    ends = begins + sizes
    num_tokens = int(ends[-1]) if len(ends) else 0
    num_blocks = -(-num_tokens // block_length)
    ids_M = np.zeros(num_blocks * block_length, dtype=np.int32)
    if separator is not None:
        ids_M[:num_tokens] = separator
    for begin, ids in zip(begins, documents.tokens, strict=True):
        ids_M[begin : begin + len(ids)] = ids
    block_begins = np.arange(num_blocks, dtype=np.int64) * block_length
    texts = _block_texts(documents, begins, ends, block_length, num_blocks) if documents.texts else None
    return Sequences(
        ids_M,
        np.arange(num_blocks + 1, dtype=np.int64) * block_length,
        np.minimum(num_tokens - block_begins, block_length),
        documents.rows[np.searchsorted(ends, block_begins, side="right")].astype(np.int64),
        texts,
    )


def _block_texts(
    documents: Encoded, begins: np.ndarray, ends: np.ndarray, block_length: int, num_blocks: int
) -> list[str]:
    pieces: list[list[str]] = [[] for _ in range(num_blocks)]
    for begin, end, text, starts in zip(begins.tolist(), ends.tolist(), documents.texts, documents.starts, strict=True):
        first, last = begin // block_length, (end - 1) // block_length
        cuts = [0, *(int(starts[block * block_length - begin]) for block in range(first + 1, last + 1)), len(text)]
        for block in range(first, last + 1):
            pieces[block].append(text[cuts[block - first] : cuts[block - first + 1]])
    return [BETWEEN_DOCUMENTS.join(of_block) for of_block in pieces]
