"""Reads one domain for a router that exists: nothing but the new domain's data is read."""

from pathlib import Path

import torch

from ir3de.data.datamodule import DomainDataModule
from ir3de.data.domain import Splits
from ir3de.data.sources import Source
from ir3de.data.splits import Splitting
from ir3de.routers import ClosedFormRouter
from ir3de.statistics.accumulate import CountAccumulator
from ir3de.statistics.token_counts import DomainCounts, TokenCounts


def read_domain(
    name: str,
    data: str | Source | Splits,
    router: ClosedFormRouter[TokenCounts],
    *,
    tokenizer: str,
    block_length: int,
    pack: bool,
    splitting: Splitting,
    cache_dir: Path,
) -> DomainCounts:
    """Return what the router learns of a domain: the counts of its training text, and its validation sequences.

    ``tokenizer`` is where the router's tokenizer is; see ``DomainDataModule`` for the rest.

    Raises:
        FileNotFoundError: if a path leads nowhere.
        ValueError: if the data cannot be read, or a split is empty.
    """
    domain = DomainDataModule(
        domains={name: data},
        tokenizer=tokenizer,
        block_length=block_length,
        pack=pack,
        splitting=splitting,
        cache_dir=str(cache_dir),
        router_tokenizer=router.tokenizer,
    )
    domain.prepare_data()
    shards = domain.counted_shards()
    counts = CountAccumulator([0] * len(shards), num_domains=1, vocab_size=router.tokenizer.vocab_size)
    for index in range(len(shards)):
        counts.add(shards[[index]])
    total = counts.total(
        [name],
        tokenizer=router.tokenizer.fingerprint,
        held_out=domain.held_out,
        documents=domain.training_sources,
        reduce=torch.clone,
        world_size=1,
    )
    return total.shares[name]
