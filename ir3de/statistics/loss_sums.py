"""Sums for a router that learns from the experts' losses, where no sequence has a label (DESIGN.md 3.1).

Every token of a sequence has the targets ``−loss_e``, in nats per token, so ``b_e = Σ_n −loss_ne Σ_t ẽ_t``: floating
point sums, outside the promise of integer counts. All experts are summed over the same text.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor

from ir3de.functional.counts import SparseCounts, check_token_ids
from ir3de.functional.ridge import ROWS_PER_CHUNK, Balance, gram_from_counts, with_bias
from ir3de.statistics.statistics import Statistics
from ir3de.statistics.token_counts import METADATA, NO_SOURCES, read_metadata
from ir3de.types import LossBatch


@dataclass(frozen=True)
class LossShare:
    """One expert's ``targets_V`` ``(V,)`` float64 over text with the token counts ``counts_V`` ``(V,)`` int64."""

    counts_V: np.ndarray
    targets_V: np.ndarray

    @property
    def sources(self) -> np.ndarray:
        """Experts share their text, so that nothing can be read twice."""
        return NO_SOURCES

    @property
    def tokens(self) -> int:
        """Training tokens."""
        return int(self.counts_V.sum())

    @property
    def empty(self) -> bool:
        return self.tokens == 0

    def __add__(self, other: Self) -> Self:
        return type(self)(self.counts_V + other.counts_V, self.targets_V + other.targets_V)

    def facts(self) -> dict[str, Any]:
        """Return what identifies this share; the sums' hash holds for these very sums only."""
        return {
            "tokens": self.tokens,
            "counts": hashlib.sha256(self.counts_V.astype("<i8").tobytes()).hexdigest(),
            "targets": hashlib.sha256(self.targets_V.astype("<f8").tobytes()).hexdigest(),
        }


@dataclass(frozen=True)
class LossSums(Statistics[LossShare]):
    """The sums of every expert over one text; ``basis`` as for counts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        texts = {share.counts_V.tobytes() for share in self.shares.values()}
        if len(texts) > 1:
            raise ValueError("Expected the losses of all experts on the same text, but their token counts differ.")

    @property
    def vocab_size(self) -> int:
        """Entries of the vocabulary."""
        return int(self.basis["vocab_size"])

    def check_domain(self, name: str) -> None:
        raise ValueError(
            f"A router with `targets: loss` takes `{name}` only with its losses on the text that the others were fitted"
            " on. Fit it again with all experts, or use one with `targets: domain`."
        )

    def with_expert(self, name: str, share: Any) -> Self:
        """Return the sums with one expert more, whose share must be of the same text.

        Raises:
            ValueError: if it is of anything else.
        """
        if not isinstance(share, LossShare):
            self.check_domain(name)
        return super().with_expert(name, share)

    def system(self, table_VD: Tensor, balance: Balance) -> tuple[Tensor, Tensor]:
        """Return ``A`` and ``b`` ``(D + 1, E)``, whose targets are centred over the experts; see ``TokenCounts``.

        Centring changes no difference between two experts; there is no domain that could be balanced.
        """
        shares = list(self.shares.values())
        counts_V = shares[0].counts_V
        targets_VE = np.stack([share.targets_V for share in shares], axis=1)
        targets_VE -= targets_VE.mean(axis=1, keepdims=True)
        seen_S = np.flatnonzero(counts_V).astype(np.int32)
        sparse = SparseCounts([seen_S], [counts_V[seen_S]], len(counts_V))
        xx_DD, _ = gram_from_counts(table_VD, sparse, torch.ones(1, dtype=torch.float64))
        xy_DE = torch.zeros(len(xx_DD), len(shares), dtype=torch.float64)
        for ids_S in np.split(seen_S, range(ROWS_PER_CHUNK, len(seen_S), ROWS_PER_CHUNK)):
            xy_DE += with_bias(table_VD[torch.from_numpy(ids_S)]).T @ torch.from_numpy(targets_VE[ids_S])
        return xx_DD, xy_DE

    def to_bytes(self) -> bytes:
        shares = list(self.shares.values())
        tensors = {"counts": shares[0].counts_V, "targets": np.stack([share.targets_V for share in shares])}
        return save(tensors, {METADATA: json.dumps({"names": self.names, "basis": self.basis}, sort_keys=True)})

    @classmethod
    def from_bytes(cls, content: bytes, *, where: str) -> Self:
        try:
            tensors, about = load(content), read_metadata(content)
            shares = {
                name: LossShare(tensors["counts"], tensors["targets"][i]) for i, name in enumerate(about["names"])
            }
            return cls(shares, about["basis"])
        except (SafetensorError, KeyError, TypeError, ValueError, IndexError) as error:
            raise ValueError(f"`{where}` holds no whole sums of losses ({error}). Fit the router again.") from error


class LossAccumulator:
    """Adds up batches of sequences with losses on this process; ``total`` adds up the processes.

    Args:
        names: the experts, in the order of the losses' columns.
        basis: see ``Statistics.basis``.
    """

    def __init__(self, names: Sequence[str], basis: dict[str, Any]) -> None:
        self._names = names
        self._basis = basis
        self._counts_V = np.zeros(int(basis["vocab_size"]), dtype=np.int64)
        self._targets_EV = np.zeros((len(names), len(self._counts_V)), dtype=np.float64)

    def add(self, batch: LossBatch) -> None:
        """Add the tokens of a batch, each with the targets of its sequence."""
        ids_M, losses_BE = batch["ids"].cpu(), batch["losses"].cpu()
        check_token_ids(ids_M, len(self._counts_V))
        loss_ME = losses_BE.repeat_interleave(batch["lengths"].cpu(), dim=0).numpy()
        self._counts_V += np.bincount(ids_M, minlength=len(self._counts_V))
        for expert in range(len(self._names)):
            of_losses_V = np.bincount(ids_M, weights=loss_ME[:, expert], minlength=len(self._counts_V))
            self._targets_EV[expert] -= of_losses_V

    def total(self, reduce: Callable[[Tensor], Tensor], *, world_size: int) -> LossSums:
        """Return the sums of all ``world_size`` processes; ``reduce`` adds a tensor over them."""
        counts_V = reduce(torch.from_numpy(self._counts_V)).numpy()
        targets_EV = reduce(torch.from_numpy(self._targets_EV)).numpy()
        return LossSums({n: LossShare(counts_V, targets_EV[i]) for i, n in enumerate(self._names)}, self._basis)
