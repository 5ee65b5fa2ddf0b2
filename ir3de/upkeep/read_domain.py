"""Reads one domain for a router that exists: nothing but the new domain's data is read."""

from pathlib import Path
from typing import Any

import torch

from ir3de.data.datamodule import DomainDataModule
from ir3de.data.domain import Splits
from ir3de.data.sources import Source
from ir3de.data.splits import Splitting
from ir3de.routers import ClosedFormRouter


def read_domain(
    name: str,
    data: str | Source | Splits,
    router: ClosedFormRouter[Any],
    *,
    tokenizer: str,
    block_length: int,
    pack: bool,
    splitting: Splitting,
    cache_dir: Path,
) -> Any:
    """Return what the router learns of a domain, its share of the statistics (see ``ClosedFormRouter.add_expert``).

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
    )
    domain.counts_training = router.counts_training
    domain.read_as(router)
    domain.setup("fit")
    read = router.accumulator(domain)
    for batch in domain.train_dataloader():
        read.add(batch)
    return read.total(torch.clone, world_size=1).shares[name]
