"""A prompt's token ids to one expert, with NumPy alone: a gather from a table and a tally (DESIGN.md 3.2).

Every table has two guards: entry ``v`` is at place ``v + 1``, and the first and the last place are no entry's. Ids are
clipped to the table, so an id out of range reads a guard, which shows in the tally: the check costs next to nothing.

Shape suffixes as in ``ir3de.types``; ``G`` is the guarded vocabulary, ``V + 2`` places, and ``R`` are ranks. A decision
is the highest score; ties go to the lower expert. Scores are bit for bit those of the router that the table was
compiled from, except where ``EmbeddingMeanTable`` says otherwise.
"""

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Any

import numpy as np

Array = np.ndarray
_ONE = np.ones((), dtype=np.int64)
_UNSIGNED, _SIGNED = frozenset("BHI"), frozenset("bhilq")
_TALLIED = 1 << 16  # token scores that one weighted tally sums; beyond, rows are added up one after the other
_FEW = 64  # experts up to which a weighted tally is faster than a sum of rows

_bincount, _add, _add_up = np.bincount, np.add, np.add.reduce


class Table(ABC):
    """Scores and decisions from a vocabulary of ``vocab_size`` entries; ``num_experts`` can be chosen."""

    def __init__(self, *, vocab_size: int, num_experts: int) -> None:
        self.vocab_size = vocab_size
        self.num_experts = num_experts

    @abstractmethod
    def decide(self, ids_T: Array) -> int:
        """Return the expert of one prompt.

        Raises:
            ValueError: if there is no token, or an id is out of range.
        """

    @abstractmethod
    def scores(self, ids_T: Array) -> Array:
        """Return the scores ``(E,)`` float64 of one prompt; see ``decide``."""

    def deciding(self, num_tokens: int) -> int:
        """Return how many of a prompt's tokens decide."""
        return num_tokens

    @abstractmethod
    def contributions(self, ids_T: Array) -> tuple[Array, int]:
        """Return what each token gives to each expert ``(T, E)`` float64, and what their sum is divided by.

        Added up from the first token to the last and divided, they are ``scores``.
        """

    def decide_many(self, ids_M: Array, offsets: Array) -> Array:
        """Return the expert of each prompt ``(N,)`` int64; ``offsets`` ``(N + 1,)`` is where each begins."""
        return np.array([self.decide(ids_M[a:b]) for a, b in pairwise(offsets.tolist())], dtype=np.int64)

    def gather(self, table_G: Array, ids_T: Array) -> Array:
        """Return the entries of ``ids_T``, guards where an id is out of range."""
        try:
            code = ids_T.dtype.char
        except AttributeError:  # a list
            return self.gather(table_G, as_ids(ids_T))
        if code in _UNSIGNED:
            return table_G[1:].take(ids_T, 0, None, "clip")
        if code in _SIGNED:
            return table_G.take(_add(ids_T, _ONE), 0, None, "clip")  # below zero is the first place's
        return self.gather(table_G, as_ids(ids_T))

    def refuse(self, ids_T: Any) -> ValueError:
        """Return the error for ids that are none, or that the vocabulary does not have."""
        ids = as_ids(ids_T)
        if not len(ids):
            return ValueError("Expected at least one token, but the prompt is empty: there is nothing to route on.")
        bad = ids[(ids < 0) | (ids >= self.vocab_size)]
        return ValueError(
            f"Expected token ids from 0 to {self.vocab_size - 1}, but got {bad[0]}. Encode prompts with the router's"
            " own tokenizer."
        )


class MajorityTable(Table):
    """Every token votes for its winner ``winner_G``, whose guards vote for expert ``E``, which is none."""

    def __init__(self, winner_G: Array, *, num_experts: int) -> None:
        super().__init__(vocab_size=len(winner_G) - 2, num_experts=num_experts)
        self._winner_G = winner_G.astype(np.intp)  # what a tally counts without a copy
        self._winner_V, self._winner_up = self._winner_G[1:-1], self._winner_G[1:]
        self._bits = 63 // num_experts  # for each expert's votes, where one integer holds all of them
        self._most = (1 << self._bits) - 1
        self._shift_E = np.arange(num_experts) * self._bits
        packed_G = np.left_shift(1, self._winner_G * self._bits, dtype=np.int64) if self._bits > 1 else None
        if packed_G is not None:
            packed_G[[0, -1]] = 0  # a guard's vote is missing in the sum
        self._packed_G = packed_G

    def decide(self, ids_T: Array) -> int:
        try:
            if ids_T.dtype.char == "I":  # as tiktoken gives them: none is below zero
                winner_T = self._winner_up.take(ids_T, 0, None, "clip")
            else:  # int64 is an index as it is: a look for the lowest id costs less than places of their own
                fits = ids_T.item(ids_T.argmin()) >= 0 and ids_T.dtype.char == "l"
                winner_T = self._winner_V[ids_T] if fits else self.gather(self._winner_G, ids_T)
        except (AttributeError, IndexError, ValueError):  # a list, an id that is too high, no token
            winner_T = self.gather(self._winner_G, ids_T)
        votes_E = _bincount(winner_T, None, self.num_experts)
        if len(votes_E) > self.num_experts or not len(winner_T):
            raise self.refuse(ids_T)
        return int(votes_E.argmax())

    def decide_many(self, ids_M: Array, offsets: Array) -> Array:
        begin_N, length_N = offsets[:-1] - offsets[0], offsets[1:] - offsets[:-1]
        if self._packed_G is None or not len(length_N) or not 0 < length_N.min() <= length_N.max() <= self._most:
            return super().decide_many(ids_M, offsets)
        read_M = ids_M[offsets[0] : offsets[-1]]
        try:  # as in ``decide``
            fits = read_M.item(read_M.argmin()) >= 0 and read_M.dtype.char == "l"
            packed_M = self._packed_G[1:-1].take(read_M) if fits else self.gather(self._packed_G, read_M)
        except IndexError:  # an id that is too high
            packed_M = self.gather(self._packed_G, read_M)
        votes_NE = _add.reduceat(packed_M, begin_N)[:, None] >> self._shift_E & self._most
        if votes_NE.sum() != len(read_M):  # no prompt has more votes than tokens
            raise self.refuse(read_M)
        return votes_NE.argmax(axis=1)

    def scores(self, ids_T: Array) -> Array:
        return self._tally(ids_T) / len(ids_T)

    def contributions(self, ids_T: Array) -> tuple[Array, int]:
        self._tally(ids_T)  # refuses
        return _one_hot(self.gather(self._winner_G, ids_T), self.num_experts), len(ids_T)

    def _tally(self, ids_T: Array) -> Array:
        votes_E = _bincount(self.gather(self._winner_G, ids_T), None, self.num_experts)
        if len(votes_E) > self.num_experts or not len(ids_T):
            raise self.refuse(ids_T)
        return votes_E


class EntropyTopKTable(Table):
    """The ``min(k, T)`` tokens of lowest rank vote; rank 0 is the guards', so that no guard goes unseen.

    ``rank_G`` are the places by (entropy, id), from 1, and ``winner_R`` the winner of each rank.
    """

    def __init__(self, rank_G: Array, winner_R: Array, *, k: int, num_experts: int) -> None:
        super().__init__(vocab_size=len(rank_G) - 2, num_experts=num_experts)
        self.k = k
        self._rank_G = rank_G
        self._winner_R = winner_R.astype(np.intp)

    def decide(self, ids_T: Array) -> int:
        return int(self._tally(ids_T).argmax())

    def scores(self, ids_T: Array) -> Array:
        return self._tally(ids_T) / self.deciding(len(ids_T))

    def deciding(self, num_tokens: int) -> int:
        return min(self.k, num_tokens)

    def contributions(self, ids_T: Array) -> tuple[Array, int]:
        self._tally(ids_T)  # refuses
        rank_T = self.gather(self._rank_G, ids_T)
        kept_K = rank_T.argsort(kind="stable")[: self.k]  # of one entry's tokens, the first ones
        votes_TE = np.zeros((len(ids_T), self.num_experts))
        votes_TE[kept_K, self._winner_R[rank_T[kept_K]]] = 1
        return votes_TE, len(kept_K)

    def _tally(self, ids_T: Array) -> Array:
        rank_K = self.gather(self._rank_G, ids_T)
        if len(rank_K) > self.k:
            rank_K.partition(self.k - 1)
            rank_K = rank_K[: self.k]
        votes_E = _bincount(self._winner_R.take(rank_K), None, self.num_experts)
        if len(votes_E) > self.num_experts or not len(rank_K):
            raise self.refuse(ids_T)
        return votes_E


class MeanTable(Table):
    """The mean of the token scores ``scores_GE`` float64, whose guards are NaN; added up from the first to the last."""

    def __init__(self, scores_GE: Array) -> None:
        super().__init__(vocab_size=len(scores_GE) - 2, num_experts=scores_GE.shape[1])
        self._scores_GE = scores_GE
        few = self.num_experts <= _FEW
        self._expert_M = np.tile(np.arange(self.num_experts), _TALLIED // self.num_experts if few else 0)

    def decide(self, ids_T: Array) -> int:
        return int(self.scores(ids_T).argmax())

    def scores(self, ids_T: Array) -> Array:
        scores_TE = self.gather(self._scores_GE, ids_T)
        expert_M = self._expert_M[: scores_TE.size]
        if len(expert_M) == scores_TE.size:  # a tally adds in order, as the sum of rows does, in half its time
            total_E = _bincount(expert_M, scores_TE.ravel(), self.num_experts)
        else:
            total_E = _add_up(scores_TE, 0)
        if total_E[0] != total_E[0] or scores_TE.ndim != 2 or not len(ids_T):  # NaN: a guard
            raise self.refuse(ids_T)
        return total_E / len(ids_T)

    def contributions(self, ids_T: Array) -> tuple[Array, int]:
        self.scores(ids_T)  # refuses
        return self.gather(self._scores_GE, ids_T), len(ids_T)


class EmbeddingMeanTable(Table):
    """The mean of embeddings, then the ridge's weights once: for more experts than embedding features.

    ``embeddings_GD`` float32 has NaN guards, ``weight_DE`` float64 the bias in its last row. The product is another
    library's than the router's: scores are equal to rounding, and decisions wherever the two highest differ by more.
    """

    def __init__(self, embeddings_GD: Array, weight_DE: Array) -> None:
        super().__init__(vocab_size=len(embeddings_GD) - 2, num_experts=weight_DE.shape[1])
        self._embeddings_GD = embeddings_GD
        self._weight_DE = weight_DE

    def decide(self, ids_T: Array) -> int:
        return int(self.scores(ids_T).argmax())

    def scores(self, ids_T: Array) -> Array:
        mean_D = _add_up(self.gather(self._embeddings_GD, ids_T), 0, np.float64) / max(1, len(ids_T))
        if mean_D.ndim != 1 or mean_D[0] != mean_D[0] or not len(ids_T):
            raise self.refuse(ids_T)
        return mean_D @ self._weight_DE[:-1] + self._weight_DE[-1]

    def contributions(self, ids_T: Array) -> tuple[Array, int]:
        self.scores(ids_T)  # refuses
        return self.gather(self._embeddings_GD, ids_T) @ self._weight_DE[:-1] + self._weight_DE[-1], len(ids_T)


def as_ids(ids: Any) -> Array:
    """Return token ids as a one-dimensional array of integers.

    Raises:
        ValueError: if they are no row of integers.
    """
    array = np.asarray(ids)
    if array.size == 0:
        return np.zeros(0, dtype=np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"Expected one row of token ids, but got {array.dtype} of shape {array.shape}.")
    if array.dtype.char not in _UNSIGNED | _SIGNED:  # 64 bits without a sign: beyond the range stays beyond it
        array = np.minimum(array, np.iinfo(np.int64).max)
    return array.astype(np.int64)


def _one_hot(expert_T: Array, num_experts: int) -> Array:
    return (expert_T[:, None] == np.arange(num_experts)).astype(np.float64)
