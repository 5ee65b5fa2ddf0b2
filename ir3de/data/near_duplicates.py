"""Clusters of documents that are nearly the same: MinHash over runs of words, banded, joined by union-find."""

import hashlib
import re
from collections.abc import Iterable, Sequence

import numpy as np
import rensa

from ir3de.functional.overlap import run_hashes

_WORD = re.compile(r"\w+")
_MINHASH_SEED = 42


class WordHashes:
    """Texts to arrays of 64-bit hashes of their words, lower-cased; remembers the words it has met."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def __call__(self, text: str) -> np.ndarray:
        """Return one hash per word, uint64. It depends on the words alone, in any process."""
        return np.fromiter((self._hash(word) for word in _WORD.findall(text.lower())), dtype=np.uint64)

    def _hash(self, word: str) -> int:
        known = self._known.get(word)
        if known is None:
            digest = hashlib.blake2b(word.encode("utf-8"), digest_size=8).digest()
            known = self._known[word] = int.from_bytes(digest, "little")
        return known


def token_hashes(ids: np.ndarray) -> np.ndarray:
    """Return one hash per token id, uint64, so that ids take the place of words."""
    hashes = (ids.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    return hashes ^ (hashes >> np.uint64(32))


def near_duplicate_clusters(
    words: Sequence[np.ndarray], *, shingle_words: int, num_bands: int, rows_per_band: int
) -> np.ndarray:
    """Return, for each document, the lowest index of the cluster that it is in, ``(N,)`` int64.

    Two documents are joined when all ``rows_per_band`` MinHashes of some band agree: at a Jaccard similarity ``s``
    of their runs of ``shingle_words`` words that has probability ``1 - (1 - s^rows)^bands``. Joins are transitive.
    ``words`` holds the uint64 word hashes of each document; one without words stays alone.
    """
    labels_N = np.arange(len(words))
    with_words = np.asarray([i for i, one in enumerate(words) if len(one)], dtype=np.int64)
    if len(with_words) == 0:
        return labels_N
    shingles = [np.unique(run_hashes(words[i], min(shingle_words, len(words[i])))) for i in with_words.tolist()]
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in shingles])]).astype(np.uint64)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        np.concatenate(shingles), offsets, num_bands * rows_per_band, _MINHASH_SEED
    )
    minhashes = np.asarray(matrix.to_rows(), dtype=np.uint64).reshape(len(with_words), num_bands, rows_per_band)
    edges = np.concatenate([_agreeing(minhashes[:, band]) for band in range(num_bands)])
    return _join(len(words), with_words[np.unique(edges, axis=0)].tolist())


def _agreeing(band_NR: np.ndarray) -> np.ndarray:
    """Return pairs of neighbours ``(P, 2)`` that link all rows of equal values."""
    order_N = np.lexsort(band_NR.T)
    sorted_NR = band_NR[order_N]
    same = np.flatnonzero((sorted_NR[1:] == sorted_NR[:-1]).all(1))
    return np.stack([order_N[same], order_N[same + 1]], axis=1)


def _join(size: int, edges: Iterable[Sequence[int]]) -> np.ndarray:
    parents = list(range(size))

    def root(node: int) -> int:
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    for left, right in edges:
        low, high = sorted((root(left), root(right)))
        parents[high] = low
    return np.asarray([root(node) for node in range(size)], dtype=np.int64)
