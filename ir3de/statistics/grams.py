"""Gram matrices per domain: what a router keeps whose features depend on context (DESIGN.md 3.4).

Sums of floating point numbers: experts are added, removed and merged on the shares exactly as they are, but the sums
themselves depend, in their last bits, on the order of batches and the number of processes.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor

from ir3de.statistics.statistics import Statistics
from ir3de.statistics.token_counts import METADATA, NO_SOURCES, read_metadata


@dataclass(frozen=True)
class DomainGram:
    """``Σ x̃ x̃ᵀ`` ``(D + 1, D + 1)`` float64 over the feature rows of one domain, with a bias column, the last.

    Its last column is ``Σ x̃``, the domain's right side, and its last entry the number of rows.
    """

    xx_DD: np.ndarray
    sources: np.ndarray = field(default_factory=lambda: NO_SOURCES)

    @property
    def tokens(self) -> int:
        """Feature rows: tokens, or sequences where the features are of whole sequences."""
        return int(self.xx_DD[-1, -1])

    @property
    def empty(self) -> bool:
        return self.tokens == 0

    def __add__(self, other: Self) -> Self:
        sources = np.unique(np.concatenate([self.sources, other.sources]))
        return type(self)(self.xx_DD + other.xx_DD, sources)

    def facts(self) -> dict[str, Any]:
        """Return what identifies this share; the Gram matrix's hash holds for these very sums only."""
        return {
            "tokens": self.tokens,
            "gram": hashlib.sha256(self.xx_DD.astype("<f8").tobytes()).hexdigest(),
            "sources": hashlib.sha256(self.sources.astype("<i8").tobytes()).hexdigest(),
        }


@dataclass(frozen=True)
class Grams(Statistics[DomainGram]):
    """The Gram matrix of every expert's domain; ``basis`` says what made the features."""

    def system(self, weights_E: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``A = Σ w_k A_k`` ``(D + 1, D + 1)`` and ``b`` ``(D + 1, E)``, added up in the order of the names."""
        shares = [torch.from_numpy(share.xx_DD) for share in self.shares.values()]
        xx_DD = torch.zeros_like(shares[0])
        for share_DD, weight in zip(shares, weights_E.tolist(), strict=True):
            xx_DD += weight * share_DD
        return xx_DD, torch.stack([share_DD[:, -1] for share_DD in shares], dim=1) * weights_E

    def to_bytes(self) -> bytes:
        tensors = {
            "xx": np.stack([share.xx_DD for share in self.shares.values()]),
            "source_hashes": np.concatenate([share.sources for share in self.shares.values()]),
            "sources": np.array([len(share.sources) for share in self.shares.values()], dtype=np.int64),
        }
        return save(tensors, {METADATA: json.dumps({"names": self.names, "basis": self.basis}, sort_keys=True)})

    @classmethod
    def from_bytes(cls, content: bytes, *, where: str) -> Self:
        try:
            tensors, about = load(content), read_metadata(content)
            sources = np.split(tensors["source_hashes"], np.cumsum(tensors["sources"])[:-1])
            shares = {n: DomainGram(tensors["xx"][i], sources[i]) for i, n in enumerate(about["names"])}
            return cls(shares, about["basis"])
        except (SafetensorError, KeyError, TypeError, ValueError, IndexError) as error:
            raise ValueError(f"`{where}` holds no whole Gram matrices ({error}). Fit the router again.") from error


class GramAccumulator:
    """Adds up the feature rows of the batches that this process reads; ``total`` adds up the processes.

    Args:
        features: gives features ``(B, T, D)`` and their mask ``(B, T)`` for token ids and their mask, both ``(B, T)``.
        names: the domains, in the order of their numbers.
        basis: see ``Statistics.basis``.
        num_features: D.
        documents: gives the hashes of a domain's training documents.
    """

    def __init__(
        self,
        features: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        *,
        names: Sequence[str],
        basis: dict[str, Any],
        num_features: int,
        documents: Callable[[str], np.ndarray],
    ) -> None:
        self._features = features
        self._names = names
        self._basis = basis
        self._documents = documents
        self._xx_EDD = torch.zeros(len(names), num_features + 1, num_features + 1, dtype=torch.float64)

    def add(self, batch: Any) -> None:
        """Add the rows of a ``Batch``; fully masked rows add nothing."""
        real_B = batch["attention_mask"].any(dim=1)
        if not real_B.any():
            return
        features_BTD, mask_BT = self._features(batch["input_ids"][real_B], batch["attention_mask"][real_B])
        domain_BT = batch["domain"][real_B][:, None].expand(-1, mask_BT.shape[1])
        x_MD, domain_M = features_BTD[mask_BT].double().cpu(), domain_BT[mask_BT].cpu()
        x_MD = torch.cat([x_MD, torch.ones(len(x_MD), 1, dtype=torch.float64)], dim=1)
        for domain in domain_M.unique().tolist():
            rows_MD = x_MD[domain_M == domain]
            self._xx_EDD[domain] += rows_MD.T @ rows_MD

    def total(self, reduce: Callable[[Tensor], Tensor], *, world_size: int) -> Grams:
        """Return the Gram matrices of all ``world_size`` processes; ``reduce`` adds a float64 tensor over them."""
        xx_EDD = reduce(self._xx_EDD).numpy()
        shares = {name: DomainGram(xx_EDD[i], np.unique(self._documents(name))) for i, name in enumerate(self._names)}
        return Grams(shares, self._basis)
