"""Token counts per domain: the whole knowledge of a closed-form token router, in integers (DESIGN.md 3.2)."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor

from ir3de.functional.counts import SparseCounts
from ir3de.functional.ridge import Balance, domain_weights, gram_from_counts
from ir3de.statistics.held_out import NO_BAGS, TokenBags
from ir3de.statistics.statistics import Statistics

METADATA = "ir3de"
NO_SOURCES = np.zeros(0, dtype=np.int64)
_LARGEST = np.iinfo(np.int64).max


@dataclass(frozen=True)
class DomainCounts:
    """How often each vocabulary entry occurs in one domain's training text, and its held-out sequences.

    ``ids_S`` int32, ascending, are the entries that occur at all, and ``counts_S`` int64 how often: a small domain
    takes little room. See ``Share`` for ``sources``.
    """

    ids_S: np.ndarray
    counts_S: np.ndarray
    validation: TokenBags = NO_BAGS
    sources: np.ndarray = field(default_factory=lambda: NO_SOURCES)

    @classmethod
    def from_dense(
        cls, counts_V: np.ndarray, *, validation: TokenBags = NO_BAGS, sources: np.ndarray = NO_SOURCES
    ) -> Self:
        """Return the counts ``(V,)`` of a whole vocabulary without their zeros."""
        ids_S = np.flatnonzero(counts_V)
        return cls(ids_S.astype(np.int32), counts_V[ids_S].astype(np.int64), validation, np.unique(sources))

    @property
    def tokens(self) -> int:
        """Training tokens."""
        return sum(self.counts_S.tolist())  # Python's integers do not overflow

    @property
    def empty(self) -> bool:
        return len(self.ids_S) == 0

    def __add__(self, other: Self) -> Self:
        """Return the counts of both texts.

        Raises:
            ValueError: if the tokens of both are more than an int64 holds.
        """
        if self.tokens + other.tokens > _LARGEST:
            raise ValueError(
                f"Expected at most {_LARGEST} tokens in a domain, but {self.tokens} and {other.tokens} are more."
            )
        ids_S, places = np.unique(np.concatenate([self.ids_S, other.ids_S]), return_inverse=True)
        counts_S = np.zeros(len(ids_S), dtype=np.int64)
        np.add.at(counts_S, places, np.concatenate([self.counts_S, other.counts_S]))
        sources = np.unique(np.concatenate([self.sources, other.sources]))
        return type(self)(ids_S, counts_S, self.validation + other.validation, sources)

    def dense(self, vocab_size: int) -> np.ndarray:
        """Return the counts of the whole vocabulary ``(V,)`` int64."""
        counts_V = np.zeros(vocab_size, dtype=np.int64)
        counts_V[self.ids_S] = self.counts_S
        return counts_V

    def facts(self) -> dict[str, Any]:
        """Return what identifies this share: numbers, and SHA-256 of counts, held-out sequences and sources."""
        counts = hashlib.sha256(self.ids_S.astype("<i4").tobytes())
        counts.update(self.counts_S.astype("<i8").tobytes())
        return {
            "tokens": self.tokens,
            "counts": counts.hexdigest(),
            "validation_sequences": len(self.validation),
            "validation": self.validation.digest(),
            "sources": hashlib.sha256(self.sources.astype("<i8").tobytes()).hexdigest(),
        }


@dataclass(frozen=True)
class TokenCounts(Statistics[DomainCounts]):
    """The counts of every expert's domain; ``basis`` has the tokenizer's fingerprint and its vocabulary's size."""

    @classmethod
    def of(cls, shares: Mapping[str, DomainCounts], *, vocab_size: int, tokenizer: str) -> Self:
        """Return the counts of ``shares``, whose ids the tokenizer with the fingerprint ``tokenizer`` made."""
        return cls(dict(shares), {"tokenizer": tokenizer, "vocab_size": vocab_size})

    @property
    def vocab_size(self) -> int:
        """Entries of the vocabulary."""
        return int(self.basis["vocab_size"])

    @property
    def tokenizer(self) -> str:
        """The fingerprint of the tokenizer that made the ids."""
        return str(self.basis["tokenizer"])

    @property
    def tokens_E(self) -> Tensor:
        """Training tokens of each domain, ``(E,)`` int64."""
        return torch.tensor([share.tokens for share in self.shares.values()], dtype=torch.int64)

    @property
    def counts_EV(self) -> Tensor:
        """All counts ``(E, V)`` int64, zeros included: for few experts."""
        return torch.from_numpy(np.stack([share.dense(self.vocab_size) for share in self.shares.values()]))

    def system(self, table_VD: Tensor, balance: Balance) -> tuple[Tensor, Tensor]:
        """Return the Gram matrix ``A`` ``(D + 1, D + 1)`` and the right side ``b`` ``(D + 1, E)``, float64."""
        return gram_from_counts(table_VD, self.sparse(), domain_weights(self.tokens_E, balance))

    def sparse(self) -> SparseCounts:
        """Return the counts of all domains without their zeros, for the solve."""
        return SparseCounts([share.ids_S for share in self.shares.values()],
                            [share.counts_S for share in self.shares.values()], self.vocab_size)  # fmt: skip

    def to_bytes(self) -> bytes:
        shares = list(self.shares.values())
        counts_M = _join([share.counts_S for share in shares], np.int64)
        small = not len(counts_M) or int(counts_M.max()) <= np.iinfo(np.int32).max
        tensors = {
            "ids": _join([share.ids_S for share in shares], np.int32),
            "counts": counts_M.astype(np.int32) if small else counts_M,
            "entries": _sizes([share.ids_S for share in shares]),
            "validation_ids": _join([share.validation.ids_M for share in shares], np.int32),
            "validation_lengths": _join([np.diff(share.validation.offsets) for share in shares], np.int64),
            "validation_sequences": np.array([len(share.validation) for share in shares], dtype=np.int64),
            "source_hashes": _join([share.sources for share in shares], np.int64),
            "sources": _sizes([share.sources for share in shares]),
        }
        # One metadata key only: safetensors writes several in no fixed order.
        return save(tensors, {METADATA: json.dumps({"names": self.names, "basis": self.basis}, sort_keys=True)})

    @classmethod
    def from_bytes(cls, content: bytes, *, where: str) -> Self:
        try:
            tensors = load(content)
            about = read_metadata(content)
            ids, counts = (_split(tensors[name], tensors["entries"]) for name in ("ids", "counts"))
            sources = _split(tensors["source_hashes"], tensors["sources"])
            lengths = _split(tensors["validation_lengths"], tensors["validation_sequences"])
            bags = _split(tensors["validation_ids"], np.array([int(of.sum()) for of in lengths], dtype=np.int64))
            shares = {}
            for i, name in enumerate(about["names"]):
                held_out = TokenBags(bags[i], _offsets(lengths[i]))
                shares[name] = DomainCounts(ids[i], counts[i].astype(np.int64), held_out, sources[i])
            return cls(shares, about["basis"])
        except (SafetensorError, KeyError, TypeError, ValueError, IndexError) as error:
            raise ValueError(f"`{where}` holds no whole token counts ({error}). Fit the router again.") from error


def read_metadata(content: bytes) -> dict[str, Any]:
    """Return what ``to_bytes`` wrote beside the tensors of a safetensors file."""
    size = int.from_bytes(content[:8], "little")
    about: dict[str, Any] = json.loads(json.loads(content[8 : 8 + size])["__metadata__"][METADATA])
    return about


def _join(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts).astype(dtype, copy=False) if parts else np.zeros(0, dtype=dtype)


def _sizes(parts: list[np.ndarray]) -> np.ndarray:
    return np.array([len(part) for part in parts], dtype=np.int64)


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _split(values: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    if int(sizes.sum()) != len(values):
        raise ValueError(f"{len(values)} values where {int(sizes.sum())} were announced")
    return np.split(values, np.cumsum(sizes)[:-1]) if len(sizes) else []
