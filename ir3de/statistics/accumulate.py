"""Counts of shards, summed on each process and then over all of them."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ir3de.statistics.held_out import TokenBags
from ir3de.statistics.token_counts import DomainCounts, TokenCounts
from ir3de.types import ShardCounts

_LARGEST = np.iinfo(np.int64).max


class CountAccumulator:
    """Adds up the shards that this process reads; ``total`` adds up the processes.

    Args:
        shard_domains: the number of each shard's domain, for all shards of all processes.
        num_domains: how many domains there are.
        vocab_size: entries of the tokenizer's vocabulary.
    """

    def __init__(self, shard_domains: Sequence[int], *, num_domains: int, vocab_size: int) -> None:
        self._shard_domains = np.asarray(shard_domains, dtype=np.int64)
        self._sources = np.zeros(len(shard_domains), dtype=np.int64)
        self._counts: list[np.ndarray | None] = [None] * num_domains
        self._vocab_size = vocab_size

    def add(self, batch: ShardCounts) -> None:
        """Add the counts of one shard; one that is not there adds nothing."""
        index, domain = int(batch["index"]), int(batch["domain"])
        if index < 0:
            return
        counts_V = self._counts[domain]
        if counts_V is None:
            counts_V = self._counts[domain] = np.zeros(self._vocab_size, dtype=np.int64)
        counts_V[batch["ids"].cpu().numpy()] += batch["counts"].cpu().numpy()
        self._sources[index] = int(batch["source"])

    def total(
        self,
        names: Sequence[str],
        *,
        tokenizer: str,
        held_out: Callable[[str], TokenBags],
        documents: Callable[[str], np.ndarray],
        reduce: Callable[[Tensor], Tensor],
        world_size: int,
    ) -> TokenCounts:
        """Return the counts of all processes.

        ``reduce`` adds an int64 tensor over the processes; ``held_out`` and ``documents`` give a domain's validation
        sequences and the hashes of its training documents, alike on every process.

        Raises:
            ValueError: if a sum could be more than an int64 holds.
        """
        sources = reduce(torch.from_numpy(self._sources)).numpy()
        shares = {}
        for domain, name in enumerate(names):  # one domain at a time: many domains do not fit at once
            mine_V = self._counts[domain]
            if mine_V is None:
                mine_V = np.zeros(self._vocab_size, dtype=np.int64)
            if sum(mine_V.tolist()) > _LARGEST // world_size:
                raise ValueError(
                    f"Expected at most {_LARGEST // world_size} tokens of `{name}` on each of {world_size} processes,"
                    f" but got {sum(mine_V.tolist())}: their sum may be more than an int64 holds. Split the domain."
                )
            counts_V = reduce(torch.from_numpy(mine_V)).numpy()
            of_shards = sources[(self._shard_domains == domain) & (sources != 0)]
            read = np.concatenate([documents(name), of_shards])
            shares[name] = DomainCounts.from_dense(counts_V, validation=held_out(name), sources=read)
        return TokenCounts.of(shares, vocab_size=self._vocab_size, tokenizer=tokenizer)
