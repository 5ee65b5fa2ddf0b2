"""Counts of shards, summed on each process and then over all of them."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ir3de.statistics.held_out import TokenBags
from ir3de.statistics.token_counts import DomainCounts, TokenCounts
from ir3de.types import ShardCounts

_LARGEST = np.iinfo(np.int64).max


class TrainingText(Protocol):
    """What a closed-form fit asks of a data module, see ``DomainDataModule``."""

    @property
    def domain_names(self) -> tuple[str, ...]: ...

    def counted_shards(self) -> Any: ...

    def held_out(self, name: str) -> TokenBags: ...

    def training_sources(self, name: str) -> np.ndarray: ...


class CountAccumulator:
    """Adds up the shards that this process reads; ``total`` adds up the processes.

    Args:
        shard_domains: the number of each shard's domain, for all shards of all processes.
        data: the domains, with their validation sequences and the hashes of their training documents, alike on every
            process.
        vocab_size: entries of the tokenizer's vocabulary.
        tokenizer: the tokenizer's fingerprint.
    """

    def __init__(self, shard_domains: Sequence[int], data: TrainingText, *, vocab_size: int, tokenizer: str) -> None:
        self._shard_domains = np.asarray(shard_domains, dtype=np.int64)
        self._sources = np.zeros(len(shard_domains), dtype=np.int64)
        self._data = data
        self._counts: dict[int, np.ndarray] = {}
        self._vocab_size = vocab_size
        self._tokenizer = tokenizer

    def add(self, batch: ShardCounts) -> None:
        """Add the counts of one shard; one that is not there adds nothing."""
        index, domain = int(batch["index"]), int(batch["domain"])
        if index < 0:
            return
        counts_V = self._counts.setdefault(domain, np.zeros(self._vocab_size, dtype=np.int64))
        counts_V[batch["ids"].cpu().numpy()] += batch["counts"].cpu().numpy()
        self._sources[index] = int(batch["source"])

    def total(self, reduce: Callable[[Tensor], Tensor], *, world_size: int) -> TokenCounts:
        """Return the counts of all processes; ``reduce`` adds an int64 tensor over them.

        Raises:
            ValueError: if a sum could be more than an int64 holds.
        """
        sources = reduce(torch.from_numpy(self._sources)).numpy()
        shares = {}
        for domain, name in enumerate(self._data.domain_names):  # one at a time: many domains do not fit at once
            mine_V = self._counts.get(domain, np.zeros(self._vocab_size, dtype=np.int64))
            tokens = sum(mine_V.tolist())
            if tokens > _LARGEST // world_size:
                raise ValueError(
                    f"Expected at most {_LARGEST // world_size} tokens of `{name}` on each of {world_size} processes,"
                    f" but got {tokens}: their sum may be more than an int64 holds. Split the domain."
                )
            counts_V = reduce(torch.from_numpy(mine_V)).numpy()
            of_shards = sources[(self._shard_domains == domain) & (sources != 0)]
            read = np.concatenate([self._data.training_sources(name), of_shards])
            shares[name] = DomainCounts.from_dense(counts_V, validation=self._data.held_out(name), sources=read)
        return TokenCounts.of(shares, vocab_size=self._vocab_size, tokenizer=self._tokenizer)
