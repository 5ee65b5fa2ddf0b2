"""The real data module over made-up token sequences, for tests of modules and callbacks."""

import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ir3de.data.datamodule import DomainDataModule
from ir3de.data.domain import Splits
from ir3de.data.tables import TokenizedParquet
from tests.helpers.text import word_tokenizer

SPLITS = ("train", "validation", "test")


class MadeUpDomains(DomainDataModule):
    """Three domains whose tokens differ in frequency; sequences of 1 to 12 tokens over 20 words.

    ``splits`` has, for each split, the rows in the order of the data set and their domains. ``folder`` keeps the files
    and the cache; without one they are forgotten with the object.
    """

    def __init__(self, *, folder=None, seed=0, train=30, names=("code", "law", "maths"), **settings):
        self._temporary = None if folder else tempfile.TemporaryDirectory()
        folder = Path(folder or self._temporary.name)
        self.splits = self._write(folder, seed, train)
        word_tokenizer().save(folder / "tokenizer")
        super().__init__(
            domains={
                name: Splits(
                    *(TokenizedParquet(str(folder / f"{name}.{split}.parquet"), as_is=True) for split in SPLITS)
                )
                for name in names
            },
            tokenizer=str(folder / "tokenizer"),
            cache_dir=str(folder / "cache"),
            **{"batch_size": 4, "shard_tokens": 20} | settings,
        )

    @staticmethod
    def _source(folder, name, split):
        return TokenizedParquet(str(folder / f"{name}.{split}.parquet"), as_is=True)

    @staticmethod
    def _write(folder, seed, train):
        generator = torch.Generator().manual_seed(seed)
        p_EV = torch.rand(3, 20, generator=generator) ** 3 + 0.01
        splits = {}
        for split, size in (("train", train), ("validation", 21), ("test", 24)):
            rows, domains = [], []
            for domain, name in enumerate(("code", "law", "maths")):
                lengths = torch.randint(1, 13, (size // 3,), generator=generator).tolist()
                drawn = [
                    torch.multinomial(p_EV[domain], n, replacement=True, generator=generator).tolist() for n in lengths
                ]
                path = folder / f"{name}.{split}.parquet"
                if not path.exists():  # another process of the same test may be reading it
                    pq.write_table(
                        pa.table({"input_ids": pa.array(drawn, pa.list_(pa.int32()))}), path, row_group_size=2
                    )
                rows += drawn
                domains += [domain] * len(drawn)
            splits[split] = (rows, domains)
        return splits

    def counts(self):
        """Return the training split's counts, counted plainly."""
        counts_EV = torch.zeros(3, 20, dtype=torch.int64)
        for row, domain in zip(*self.splits["train"], strict=True):
            for token in row:
                counts_EV[domain, token] += 1
        return counts_EV
