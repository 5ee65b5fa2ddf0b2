"""The domains as a LightningDataModule: the router's view in its loaders, the experts' view in ``expert_blocks``."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

import ir3de.data.installed  # noqa: F401 - lets configs name these sources by their class alone
from ir3de.data.dataset import BlockDataset, ShardedRows, same_batch
from ir3de.data.domain import Splits, sources_of
from ir3de.data.embedded_rows import EmbeddedRows
from ir3de.data.loss_rows import LossRows
from ir3de.data.overlap import check_disjoint
from ir3de.data.preparation import BlockSettings
from ir3de.data.reader import Reader
from ir3de.data.report import DomainReport
from ir3de.data.sample import SampledBlocks, sample_rows
from ir3de.data.shards import CountedShards
from ir3de.data.sources import Source
from ir3de.data.splits import Splitting
from ir3de.data.views import DomainViews, File, check_split
from ir3de.pretrained.features import SequenceFeatures
from ir3de.pretrained.tokenizer import TextTokenizer
from ir3de.statistics.held_out import TokenBags
from ir3de.types import Batch

Split = Literal["train", "validation", "test"]
_DEFAULT_SPLITTING = Splitting()


class DomainDataModule(LightningDataModule):
    """Domains of text, split without near-copies across splits, tokenized once and read from memory-mapped files.

    The loaders give the router's view: training documents as a run of tokens (without separators), and the text of
    each validation and test block. Where the router's tokenizer is the experts', the ids are theirs.

    Args:
        domains: for each domain's name a path, a source, or a source for each of train, validation and test. A path
            is a folder of text files, a text file, or a JSON, JSONL, CSV or Parquet file with a column `text`.
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
        super().__init__()
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
        sources = {name: sources_of(domains[name]) for name in sorted(domains)}
        limits = {"train": None, "validation": max_validation_blocks, "test": max_test_blocks}
        self._views = DomainViews(
            sources,
            tokenizer=tokenizer,
            tokenizer_vocab_size=tokenizer_vocab_size,
            settings=BlockSettings(block_length, pack, limits),
            splitting=splitting,
            cache=Path(cache_dir),
        )
        self.domain_names: tuple[str, ...] = tuple(sources)
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._num_workers = num_workers
        self._shard_tokens = shard_tokens
        self.cache_dir = cache_dir
        self._seed = seed
        self._with_text = with_text
        self.router_tokenizer = router_tokenizer
        self.counts_training = False
        self.training_sequences: int | None = None  # of each domain, for a router that reads sequences
        self.features: SequenceFeatures | None = None  # of a router that reads vectors
        self._embedded: dict[str, EmbeddedRows] = {}
        self.loss_rows: LossRows | None = None  # what a fit on losses reads in the place of the training text

    def read_as(self, router: Reader) -> None:
        """Give text and batches as ``router`` reads them, from now on."""
        self.router_tokenizer = router.tokenizer
        self.training_sequences = router.training_sequences
        self.features = router.features if router.reads_vectors else None
        self._embedded = {}

    @property
    def num_domains(self) -> int:
        """How many domains there are."""
        return len(self.domain_names)

    @property
    def expert_tokenizer(self) -> TextTokenizer:
        """The experts' tokenizer; prepares the data if that has not been done."""
        return self._views.expert_tokenizer

    @property
    def report(self) -> list[DomainReport]:
        """What became of each domain's text; also in ``data.json`` beside the blocks."""
        return self._views.reports

    def prepare_data(self) -> None:
        """Read, split, tokenize and pack whatever is not in the cache.

        Raises:
            FileNotFoundError: if a path leads nowhere.
            ValueError: if a source cannot be read, a split is empty, or ids do not fit the tokenizer.
        """
        self._views.prepare(self.router_tokenizer)

    def setup(self, stage: str) -> None:
        self.prepare_data()  # from the cache, which the first process has filled
        if self.features is not None:
            splits: dict[str, tuple[Split, ...]] = {"fit": ("train", "validation"), "validate": ("validation",)}
            for split in splits.get(stage, ("test",)):
                self.embedded_rows(split)

    def expert_blocks(self, split: Split, *, domain: str | None = None) -> BlockDataset:
        """Return a split in the experts' tokenizer, separators included; of all domains or of one.

        Raises:
            ValueError: if there is no such split or domain.
        """
        check_split(split)
        if domain is not None and domain not in self.domain_names:
            raise ValueError(f"Expected a domain of {list(self.domain_names)}, but got `{domain}`.")
        names = self.domain_names if domain is None else (domain,)
        return self._dataset({name: self._views.blocks(split, name) for name in names})

    def router_rows(self, split: Split) -> BlockDataset:
        """Return a split in the router's tokenizer, as the loaders give it."""
        check_split(split)
        router = self.router_tokenizer
        files = {name: self._views.router_sequences(split, name, router) for name in self.domain_names}
        # The experts' blocks have an end of text between documents, which is no text.
        masked_id = None if self._views.differs(router) else self.expert_tokenizer.end_of_text
        return self._dataset(files, masked_id=masked_id, with_text=self._with_text)

    def texts(self, split: Split) -> list[str]:
        """Return the text of each of a split's sequences."""
        rows = self.router_rows(split)
        return rows.texts(range(len(rows)))

    def training_sample(self, limit: int) -> LossRows:
        """Return at most ``limit`` training blocks of each domain, drawn by the seed, as the experts read them."""
        blocks = self.expert_blocks("train")
        rows = sample_rows(blocks.domains(), limit, seed=self._seed)
        router = self.router_tokenizer if self._views.differs(self.router_tokenizer) else None
        return LossRows(blocks, rows, router=router, masked_id=self.expert_tokenizer.end_of_text)

    def sequences(self, split: Split) -> SampledBlocks:
        """Return a split as the router reads it; ``training_sequences`` bounds the training split."""
        rows = self.router_rows(split)
        limit = self.training_sequences if split == "train" else None
        return SampledBlocks(rows, sample_rows(rows.domains(), limit, seed=self._seed))

    def embedded_rows(self, split: Split) -> EmbeddedRows:
        """Return a split's sequences as vectors, computed if they are not in the cache."""
        assert self.features is not None, "set by the program for a router that reads vectors"
        if split not in self._embedded:
            rows = EmbeddedRows(
                self.sequences(split), self.features, cache=Path(self.cache_dir) / "embeddings", title=split
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

    def counted_shards(self) -> CountedShards:
        """Return the training text as counts, shard by shard; what was counted before is in the journal."""
        router = self.router_tokenizer
        return CountedShards(
            self._views.training_shards(router, shard_tokens=self._shard_tokens),
            vocab_size=(router or self.expert_tokenizer).vocab_size,
            journal=Path(self.cache_dir) / "counts",
        )

    def training_sources(self, name: str) -> np.ndarray:
        """Return what tells a domain's training documents from others, see ``Share.sources``."""
        return self._views.document_hashes("train", name)

    def held_out(self, name: str) -> TokenBags:
        """Return the validation sequences of a domain as bags of the router's tokens."""
        rows, number = self.router_rows("validation"), self.domain_names.index(name)
        mine = np.flatnonzero(rows.domains() == number)
        batches = (rows[mine[first : first + 256].tolist()] for first in range(0, len(mine), 256))
        return TokenBags.from_sequences(
            ids_T[mask_T].numpy()
            for batch in batches
            for ids_T, mask_T in zip(batch["input_ids"], batch["attention_mask"], strict=True)
        )

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
        # batch_size=None: the sampler gives whole batches of rows, and the data set gathers them at once.
        return DataLoader(
            rows,
            sampler=sampler,
            batch_size=None,
            collate_fn=same_batch,
            num_workers=self._num_workers,
            persistent_workers=self._num_workers > 0,
        )

    def _dataset(
        self, files: dict[str, File], *, masked_id: int | None = None, with_text: bool = False
    ) -> BlockDataset:
        return BlockDataset(
            [path for path, _ in files.values()],
            domains=[self.domain_names.index(name) for name in files],
            digests=[digest for _, digest in files.values()],
            names=self.domain_names,
            masked_id=masked_id,
            with_text=with_text,
        )
