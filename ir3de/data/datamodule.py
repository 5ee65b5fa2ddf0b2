"""The domains as a LightningDataModule: the router's view in its loaders, the experts' view in ``expert_blocks``."""

from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

import ir3de.data.installed  # noqa: F401 - lets configs name these sources by their class alone
from ir3de.data.dataset import ShardedRows, loader
from ir3de.data.domain import Splits, sources_of
from ir3de.data.embedded_rows import EmbeddedRows
from ir3de.data.loss_rows import LossRows
from ir3de.data.overlap import check_disjoint
from ir3de.data.preparation import BlockSettings
from ir3de.data.readable import ReadableDomains, Split
from ir3de.data.reader import Reader
from ir3de.data.sources import Source
from ir3de.data.splits import Splitting
from ir3de.data.views import DomainViews
from ir3de.pretrained.tokenizer import TextTokenizer
from ir3de.types import Batch

_DEFAULT_SPLITTING = Splitting()


class DomainDataModule(ReadableDomains, LightningDataModule):
    """Domains of text, split without near-copies across splits, tokenized once and read from memory-mapped files.

    The loaders give the router's view: training documents as a run of tokens (without separators), and the text of
    each validation and test block. Where the router's tokenizer is the experts', the ids are theirs.

    Args:
        domains: for each domain's name a path, a source, or a source for each of train, validation and test. A path
            is a folder of text files, a text file, a JSON, JSONL, CSV or Parquet file with a column `text`, or a folder
            with train, validation and test, each of which is one of these or a folder of tokenized Parquet.
        root: the folder in which relative paths of `domains` are; the working directory where it is null.
        tokenizer: the experts' tokenizer: `train` trains a byte-level BPE on the training split; anything else is
            loaded (a hub id, a folder, a GGUF file, or `package:NAME`).
        tokenizer_vocab_size: entries of a tokenizer that is trained here.
        block_length: tokens of a block.
        pack: whether documents follow each other in blocks of `block_length`; otherwise each document is a sequence
            of its own, of any length (prompts).
        splitting: how documents are spread over the splits.
        max_validation_blocks: at most so many validation blocks per domain, drawn at random.
        max_test_blocks: at most so many test blocks per domain, drawn at random.
        batch_size: rows of a batch, on each process; a closed-form fit counts whole shards instead.
        shuffle: whether training rows come in a random order, another one each epoch; counting needs none.
        num_workers: processes that read batches; with 0 the main one reads, which memory-mapped files make fast.
        cache_dir: where everything that is prepared is kept.
        seed: orders the training rows.
        with_text: whether batches carry their text, for routers that read text.
        shard_tokens: tokens of a shard, the unit in which a closed-form fit reads the training text. What a run that is
            killed has counted is kept by shard, under `cache_dir`, and not counted again.
        router_tokenizer: set by the program to the router's own tokenizer; the experts' where it is null.
    """

    def __init__(
        self,
        *,
        domains: dict[str, str | Source | Splits],
        root: str | None = None,
        tokenizer: str = "train",
        tokenizer_vocab_size: int = 8192,
        block_length: int = 256,
        pack: bool = True,
        splitting: Splitting = _DEFAULT_SPLITTING,
        max_validation_blocks: int | None = None,
        max_test_blocks: int | None = None,
        batch_size: int = 64,
        shuffle: bool = True,
        num_workers: int = 0,
        cache_dir: str = "cache",
        seed: int = 0,
        with_text: bool = False,
        shard_tokens: int = 1 << 24,
        router_tokenizer: TextTokenizer | None = None,
    ) -> None:
        splitting.check()
        if not domains:
            raise ValueError("Expected at least one domain, but `domains` is empty.")
        least = {"block_length": 2, "batch_size": 1, "max_validation_blocks": 1, "max_test_blocks": 1, "num_workers": 0}
        least["shard_tokens"] = 1
        given = {"block_length": block_length, "batch_size": batch_size, "num_workers": num_workers}
        given["shard_tokens"] = shard_tokens
        given |= {"max_validation_blocks": max_validation_blocks or 1, "max_test_blocks": max_test_blocks or 1}
        for name, value in given.items():
            if value < least[name]:
                raise ValueError(f"Expected `{name}` to be at least {least[name]}, but got {value}.")
        sources = {name: sources_of(domains[name], root=root) for name in sorted(domains)}
        limits = {"train": None, "validation": max_validation_blocks, "test": max_test_blocks}
        views = DomainViews(
            sources,
            tokenizer=tokenizer,
            tokenizer_vocab_size=tokenizer_vocab_size,
            settings=BlockSettings(block_length, pack, limits),
            splitting=splitting,
            cache=Path(cache_dir),
        )
        super().__init__(
            views=views,
            names=tuple(sources),
            given_order=tuple(domains),
            root=root,
            cache_dir=cache_dir,
            seed=seed,
            with_text=with_text,
            shard_tokens=shard_tokens,
            router_tokenizer=router_tokenizer,
        )
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._num_workers = num_workers
        self.counts_training = False
        self._embedded: dict[str, EmbeddedRows] = {}
        self.loss_rows: LossRows | None = None  # what a fit on losses reads in the place of the training text

    def read_as(self, router: Reader) -> None:
        """Give text and batches as ``router`` reads them, from now on."""
        super().read_as(router)
        self._embedded = {}

    def prepare_data(self) -> None:
        """Read, split, tokenize and pack whatever is not in the cache.

        Raises:
            FileNotFoundError: if a path leads nowhere.
            ValueError: if a source cannot be read, a split is empty, or ids do not fit the tokenizer.
        """
        self._views.prepare(self.router_tokenizer)
        if self._views_of("train") is not self._views:
            self._views_of("train").prepare(self.router_tokenizer)

    def setup(self, stage: str) -> None:
        self.prepare_data()  # from the cache, which the first process has filled
        if self.features is not None:
            fitting: tuple[Split, ...] = ("train", "validation", self.choosing_split)
            splits: dict[str, tuple[Split, ...]] = {"fit": fitting, "validate": ("validation",)}
            for split in splits.get(stage, ("test",)):
                self.embedded_rows(split)

    def embedded_rows(self, split: Split) -> EmbeddedRows:
        """Return a split's sequences as vectors, computed if they are not in the cache."""
        assert self.features is not None, "set by the program for a router that reads vectors"
        if split not in self._embedded:
            inference = split == "test" or not self._by_gradient
            rows = EmbeddedRows(
                self.sequences(split),
                self.features,
                cache=Path(self.cache_dir) / "embeddings",
                title=split,
                masked=not (self.faults.drop_encoder_masks and inference),
            )
            strategy = self.trainer.strategy if self.trainer else None
            rows.compute(
                rank=self.trainer.global_rank if self.trainer else 0,
                world_size=self.trainer.world_size if self.trainer else 1,
                device=strategy.root_device if strategy else torch.device("cpu"),
                barrier=strategy.barrier if strategy else lambda: None,
            )
            self._embedded[split] = rows
        return self._embedded[split]

    def check_disjoint(self) -> int:
        """Return how many test documents were looked for among the others; see ``overlap.check_disjoint``."""
        self.prepare_data()
        return check_disjoint(self._views, self.domain_names)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the training text, each row or shard on one process only: counts for a fit that counts."""
        if self.loss_rows is not None:
            return self._loader(self.loss_rows, self._sharded(len(self.loss_rows), self._batch_size))
        if self.counts_training:
            shards = self.counted_shards()
            return self._loader(shards, self._sharded(len(shards), 1))
        rows = self._rows("train")
        return self._loader(rows, self._sharded(len(rows), self._batch_size, shuffle=self._shuffle))

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation blocks, in order, each on one process."""
        rows = self._rows("validation")
        return self._loader(rows, self._sharded(len(rows), self._batch_size))

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the test blocks, in order, each on one process."""
        rows = self._rows("test")
        return self._loader(rows, self._sharded(len(rows), self._batch_size))

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return the test blocks, in order, each on one process."""
        return self.test_dataloader()

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Leave out the rows that only even out the processes: outside of training nothing needs them."""
        if self.trainer is None or self.trainer.training or int(batch["index"].min()) >= 0:
            return batch
        real = (batch["index"] >= 0).nonzero().squeeze(1)
        return {
            key: [value[i] for i in real.tolist()] if isinstance(value, list) else value[real]
            for key, value in batch.items()
        }

    def _rows(self, split: Split) -> Any:
        if self.features is not None:
            return self.embedded_rows(split)
        sampled = split == "train" and self.training_sequences is not None
        return self.sequences(split) if sampled else self.router_rows(split)

    def _sharded(self, num_rows: int, batch_size: int, *, shuffle: bool = False) -> ShardedRows:
        trainer = self.trainer
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        return ShardedRows(num_rows, batch_size, shuffle=shuffle, seed=self._seed, rank=rank, world_size=world_size)

    def _loader(self, rows: Dataset[Any], sampler: ShardedRows) -> DataLoader[Any]:
        return loader(rows, sampler, num_workers=self._num_workers)
