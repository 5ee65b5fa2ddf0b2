"""Vectors of sequences, domain by domain: what a router keeps that looks at its training sequences themselves."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor

from ir3de.statistics.statistics import Statistics
from ir3de.statistics.token_counts import METADATA, NO_SOURCES, read_metadata


@dataclass(frozen=True)
class DomainRows:
    """One domain's training vectors ``(N, D)`` and validation vectors ``(M, D)``, float32."""

    training_ND: np.ndarray
    validation_MD: np.ndarray
    sources: np.ndarray = field(default_factory=lambda: NO_SOURCES)

    @property
    def tokens(self) -> int:
        """Training vectors."""
        return len(self.training_ND)

    @property
    def empty(self) -> bool:
        return len(self.training_ND) == 0

    def __add__(self, other: Self) -> Self:
        return type(self)(
            np.concatenate([self.training_ND, other.training_ND]),
            np.concatenate([self.validation_MD, other.validation_MD]),
            np.unique(np.concatenate([self.sources, other.sources])),
        )

    def facts(self) -> dict[str, Any]:
        """Return what identifies this share; the hash holds for these very vectors only."""
        digest = hashlib.sha256(self.training_ND.astype("<f4").tobytes())
        digest.update(self.validation_MD.astype("<f4").tobytes())
        return {
            "tokens": self.tokens,
            "validation_sequences": len(self.validation_MD),
            "rows": digest.hexdigest(),
            "sources": hashlib.sha256(self.sources.astype("<i8").tobytes()).hexdigest(),
        }


@dataclass(frozen=True)
class FeatureRows(Statistics[DomainRows]):
    """The vectors of every expert's domain; ``basis`` says what made them."""

    def training(self) -> tuple[Tensor, Tensor]:
        """Return all training vectors ``(N, D)`` float32, domain after domain, and their domains ``(N,)`` int64."""
        return _stacked([share.training_ND for share in self.shares.values()])

    def validation(self) -> tuple[Tensor, Tensor]:
        """Return all validation vectors ``(M, D)`` float32, domain after domain, and their domains ``(M,)`` int64."""
        return _stacked([share.validation_MD for share in self.shares.values()])

    def to_bytes(self) -> bytes:
        shares = self.shares.values()
        tensors = {
            "training": np.concatenate([share.training_ND for share in shares]),
            "training_rows": np.array([len(share.training_ND) for share in shares], dtype=np.int64),
            "validation": np.concatenate([share.validation_MD for share in shares]),
            "validation_rows": np.array([len(share.validation_MD) for share in shares], dtype=np.int64),
            "source_hashes": np.concatenate([share.sources for share in shares]),
            "sources": np.array([len(share.sources) for share in shares], dtype=np.int64),
        }
        return save(tensors, {METADATA: json.dumps({"names": self.names, "basis": self.basis}, sort_keys=True)})

    @classmethod
    def from_bytes(cls, content: bytes, *, where: str) -> Self:
        try:
            tensors, about = load(content), read_metadata(content)
            parts = [
                np.split(tensors[values], np.cumsum(tensors[rows])[:-1])
                for values, rows in (
                    ("training", "training_rows"),
                    ("validation", "validation_rows"),
                    ("source_hashes", "sources"),
                )
            ]
            shares = {name: DomainRows(*of) for name, *of in zip(about["names"], *parts, strict=True)}
            return cls(shares, about["basis"])
        except (SafetensorError, KeyError, TypeError, ValueError, IndexError) as error:
            raise ValueError(f"`{where}` holds no whole vectors ({error}). Fit the router again.") from error


class EmbeddedText(Protocol):
    """What a fit on vectors asks of a data module, see ``DomainDataModule``."""

    @property
    def domain_names(self) -> tuple[str, ...]: ...

    @property
    def choosing_split(self) -> Any: ...

    def embedded_rows(self, split: Any) -> Any: ...

    def training_sources(self, name: str) -> np.ndarray: ...


class RowAccumulator:
    """Puts the training vectors that this process reads into their places; ``total`` adds up the processes.

    Args:
        data: The domains, with the vectors of their validation sequences, alike on every process.
        basis: See ``Statistics.basis``.
        num_features: D.
    """

    def __init__(self, data: EmbeddedText, *, basis: dict[str, Any], num_features: int) -> None:
        self._data = data
        self._basis = basis
        self._domain_N = data.embedded_rows("train").domains()
        self._rows_ND = torch.zeros(len(self._domain_N), num_features)

    def add(self, batch: Any) -> None:
        """Add the vectors of a batch; rows that are not there add nothing."""
        real_B = batch["index"] >= 0
        self._rows_ND[batch["index"][real_B].cpu()] = batch["features"][real_B].cpu()

    def total(self, reduce: Callable[[Tensor], Tensor], *, world_size: int) -> FeatureRows:
        """Return the vectors of all ``world_size`` processes: zeros elsewhere, so the sum is exact."""
        held_out = self._data.embedded_rows(self._data.choosing_split)
        training_ND = reduce(self._rows_ND).numpy()
        validation_MD = held_out.vectors_ND.numpy()
        domain_M = held_out.domains()
        shares = {
            name: DomainRows(
                training_ND[self._domain_N == i],
                validation_MD[domain_M == i],
                np.unique(self._data.training_sources(name)),
            )
            for i, name in enumerate(self._data.domain_names)
        }
        return FeatureRows(shares, self._basis)


def _stacked(parts: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    domain_N = torch.repeat_interleave(torch.tensor([len(part) for part in parts]))
    return torch.from_numpy(np.concatenate(parts)), domain_N
