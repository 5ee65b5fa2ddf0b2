"""The domains as a LightningDataModule: the router's view in its loaders, the experts' view in ``expert_blocks``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lightning import LightningDataModule
from lightning_utilities.core.rank_zero import rank_zero_only
from torch.utils.data import DataLoader, Sampler

import ir3de.data.installed  # noqa: F401 - lets configs name these sources by their class alone
from ir3de.console import console
from ir3de.data.dataset import BlockDataset, RowsInOrder, ShardedRows, same_batch
from ir3de.data.domain import Splits, sources_of
from ir3de.data.preparation import (
    BlockSettings,
    Prepared,
    prepare_blocks,
    prepare_router_view,
    train_tokenizer,
)
from ir3de.data.report import DomainReport, report_table
from ir3de.data.sources import Source
from ir3de.data.split_text import SplitText, split_text
from ir3de.data.splits import SPLITS, Splitting
from ir3de.pretrained.loading import load_tokenizer
from ir3de.pretrained.tokenizer import TextTokenizer
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
        batch_size: rows of a batch, on each process.
        shuffle: whether training rows come in a random order, another one each epoch. Counting needs none and reads
            fastest without.
        num_workers: processes that read batches; with 0 the main one reads, which memory-mapped files make fast.
        cache_dir: where everything that is prepared is kept.
        seed: orders the training rows.
        with_text: whether batches carry their text, for routers that read text.
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
        router_tokenizer: TextTokenizer | None = None,
    ) -> None:
        super().__init__()
        splitting.check()
        if len(domains) < 2:
            raise ValueError(f"Expected at least two domains to route between, but got {sorted(domains)}.")
        least = {"block_length": 2, "batch_size": 1, "max_validation_blocks": 1, "max_test_blocks": 1, "num_workers": 0}
        given = {"block_length": block_length, "batch_size": batch_size, "num_workers": num_workers}
        given |= {"max_validation_blocks": max_validation_blocks or 1, "max_test_blocks": max_test_blocks or 1}
        for name, value in given.items():
            if value < least[name]:
                raise ValueError(f"Expected `{name}` to be at least {least[name]}, but got {value}.")
        self._domains = {name: sources_of(domain) for name, domain in domains.items()}
        self._tokenizer = tokenizer
        self._tokenizer_vocab_size = tokenizer_vocab_size
        limits = {"train": None, "validation": max_validation_blocks, "test": max_test_blocks}
        self._settings = BlockSettings(block_length, pack, limits)
        self._splitting = splitting
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._num_workers = num_workers
        self.cache_dir = cache_dir
        self._seed = seed
        self._with_text = with_text
        self.router_tokenizer = router_tokenizer
        self._text: SplitText | None = None
        self._expert_tokenizer: TextTokenizer | None = None
        self._blocks: Prepared | None = None
        self._router_view: tuple[str, Prepared] | None = None  # with the fingerprint of its tokenizer

    @property
    def domain_names(self) -> tuple[str, ...]:
        """The domains in the order of the config, which is that of their numbers."""
        return tuple(self._domains)

    @property
    def num_domains(self) -> int:
        """How many domains there are."""
        return len(self._domains)

    @property
    def expert_tokenizer(self) -> TextTokenizer:
        """The experts' tokenizer; prepares the data if that has not been done."""
        self._prepare_blocks()
        assert self._expert_tokenizer is not None, "made with the blocks"
        return self._expert_tokenizer

    @property
    def report(self) -> list[DomainReport]:
        """What became of each domain's text; also in ``data.json`` beside the blocks."""
        return self._prepare_blocks().reports

    def prepare_data(self) -> None:
        """Read, split, tokenize and pack whatever is not in the cache.

        Raises:
            FileNotFoundError: if a path leads nowhere.
            ValueError: if a source cannot be read, a split is empty, or ids do not fit the tokenizer.
        """
        self._prepare_blocks()
        self._prepare_router_view()

    def setup(self, stage: str) -> None:
        self.prepare_data()  # from the cache, which the first process has filled

    def fingerprint(self, split: Split) -> str:
        """Return the content hash of a split's expert blocks and their domains."""
        return self.expert_blocks(split).fingerprint

    def expert_blocks(self, split: Split, *, domain: str | None = None) -> BlockDataset:
        """Return a split in the experts' tokenizer, separators included; of all domains or of one.

        Raises:
            ValueError: if there is no such split or domain.
        """
        return self._dataset(self._prepare_blocks(), split, domain=domain)

    def router_rows(self, split: Split) -> BlockDataset:
        """Return a split in the router's tokenizer, as the loaders give it."""
        if not self._router_differs():
            end = self.expert_tokenizer.end_of_text  # stands between documents, and counts have none
            return self._dataset(self._prepare_blocks(), split, masked_id=end, with_text=self._with_text)
        return self._dataset(self._prepare_router_view(), split, with_text=self._with_text)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the training rows; over several processes each row is read by one of them."""
        rows = self.router_rows("train")
        trainer = self.trainer
        sampler = ShardedRows(
            len(rows),
            self._batch_size,
            shuffle=self._shuffle,
            seed=self._seed,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )
        return self._loader(rows, sampler)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return all validation blocks, in order."""
        rows = self.router_rows("validation")
        return self._loader(rows, RowsInOrder(len(rows), self._batch_size))

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return all test blocks, in order."""
        rows = self.router_rows("test")
        return self._loader(rows, RowsInOrder(len(rows), self._batch_size))

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return all test blocks, in order."""
        return self.test_dataloader()

    def _loader(self, rows: BlockDataset, sampler: Sampler[list[int]]) -> DataLoader[Batch]:
        # batch_size=None: the sampler gives whole batches of rows, and the data set gathers them at once.
        return DataLoader(
            rows,
            sampler=sampler,
            batch_size=None,
            collate_fn=same_batch,
            num_workers=self._num_workers,
            persistent_workers=self._num_workers > 0,
        )

    def _prepare_blocks(self) -> Prepared:
        if self._blocks is None:
            cache = Path(self.cache_dir)
            self._check_sources()
            loaded = None if self._tokenizer == "train" else load_tokenizer(self._tokenizer)  # fails before long work
            self._text = split_text(self._domains, self._splitting, cache, _announce)
            self._expert_tokenizer = loaded or train_tokenizer(
                self._text, vocab_size=self._tokenizer_vocab_size, cache=cache, announce=_announce
            )
            self._blocks = prepare_blocks(self._text, self._expert_tokenizer, self._settings, cache, _announce)
            if self._blocks.fresh:
                _print_report(self._blocks.reports)
        return self._blocks

    def _prepare_router_view(self) -> Prepared:
        blocks, router = self._prepare_blocks(), self.router_tokenizer
        if router is None or not self._router_differs():
            return blocks
        if self._router_view is None or self._router_view[0] != router.fingerprint:
            assert self._text is not None, "read with the blocks"
            view = prepare_router_view(
                self._text,
                blocks,
                router,
                settings=self._settings,
                cache=Path(self.cache_dir),
                announce=_announce,
            )
            self._router_view = (router.fingerprint, view)
        return self._router_view[1]

    def _router_differs(self) -> bool:
        router = self.router_tokenizer
        return router is not None and router.fingerprint != self.expert_tokenizer.fingerprint

    def _check_sources(self) -> None:
        """Refuse missing paths, fields and packages of all domains, before any is read."""
        for name, parts in self._domains.items():
            for split, source in parts:
                try:
                    source.check()
                except (FileNotFoundError, ValueError) as error:
                    where = f"`{name}`" if split is None else f"`{name}` ({split})"
                    raise type(error)(f"In the domain {where}: {error}") from error

    def _dataset(
        self,
        prepared: Prepared,
        split: str,
        *,
        domain: str | None = None,
        masked_id: int | None = None,
        with_text: bool = False,
    ) -> BlockDataset:
        if split not in SPLITS:
            raise ValueError(f"Expected a split of {list(SPLITS)}, but got `{split}`.")
        if domain is not None and domain not in self.domain_names:
            raise ValueError(f"Expected a domain of {list(self.domain_names)}, but got `{domain}`.")
        chosen = [i for i, name in enumerate(self.domain_names) if domain in (None, name)]
        return BlockDataset(
            [prepared.files(split)[i] for i in chosen],
            domains=chosen,
            digests=[prepared.digests[split][i] for i in chosen],
            names=self.domain_names,
            masked_id=masked_id,
            with_text=with_text,
        )


@rank_zero_only
def _announce(message: str) -> None:
    console(stderr=True).print(f"[dim]{message}[/dim]")


@rank_zero_only
def _print_report(reports: Sequence[DomainReport]) -> None:
    console(stderr=True).print(report_table(reports))
