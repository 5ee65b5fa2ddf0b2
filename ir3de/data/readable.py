"""The domains as rows to read: the experts' blocks, the router's sequences, and training text as counts."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ir3de.data.dataset import BlockDataset
from ir3de.data.domain import sources_of
from ir3de.data.faults import Faults, RoutedLimit
from ir3de.data.loss_rows import LossRows
from ir3de.data.reader import Reader
from ir3de.data.report import DomainReport
from ir3de.data.sample import SampledBlocks, sample_rows
from ir3de.data.shards import CountedShards
from ir3de.data.views import DomainViews, File, check_split
from ir3de.pretrained.features import SequenceFeatures
from ir3de.pretrained.tokenizer import TextTokenizer
from ir3de.statistics.held_out import TokenBags

Split = Literal["train", "validation", "test"]


class ReadableDomains:
    """Gives every split as a router, or the experts, read it; a part of ``DomainDataModule``.

    Args:
        views: the text and token ids on disk.
        names: the domains' names, in order.
        given_order: the same names, in the order in which the config has them.
        root: where relative paths are.
        cache_dir: where counts are kept.
        seed: draws samples.
        with_text: whether batches carry their text.
        shard_tokens: tokens of a shard of training text.
        router_tokenizer: the router's tokenizer; the experts' where it is null.
    """

    def __init__(
        self,
        *,
        views: DomainViews,
        names: tuple[str, ...],
        given_order: tuple[str, ...],
        root: str | None,
        cache_dir: str,
        seed: int,
        with_text: bool,
        shard_tokens: int,
        router_tokenizer: TextTokenizer | None,
    ) -> None:
        super().__init__()
        self.domain_names = names
        self.cache_dir = cache_dir
        self.router_tokenizer = router_tokenizer
        self.training_sequences: int | None = None  # of each domain, for a router that reads sequences
        self.features: SequenceFeatures | None = None  # of a router that reads vectors
        self.faults = Faults()
        self._views = views
        self._other_views: DomainViews | None = None  # of `faults.trained_on`
        self._by_gradient = False
        self._root = root
        self._given_order = given_order
        self._seed = seed
        self._with_text = with_text
        self._shard_tokens = shard_tokens

    def read_with(self, faults: Faults) -> None:
        """Read as the published code does, where ``faults`` says so.

        Raises:
            ValueError: if a fault names a domain that there is not, or does not name one that it must.
        """
        unknown = sorted({*faults.fit_on_test} - {*self.domain_names})
        if unknown:
            raise ValueError(
                f"Expected `faults.fit_on_test` to name domains of {list(self.domain_names)}, but got {unknown}."
            )
        self.faults = self._views.faults = faults
        if faults.trained_on is not None:
            if {*faults.trained_on} != {*self.domain_names}:
                raise ValueError(
                    f"Expected `faults.trained_on` to have a source for each of {list(self.domain_names)}, but got"
                    f" {sorted(faults.trained_on)}."
                )
            sources = {name: sources_of(faults.trained_on[name], root=self._root) for name in self.domain_names}
            self._other_views = self._views.beside(sources)

    def read_as(self, router: Reader) -> None:
        """Give text and batches as ``router`` reads them, from now on."""
        self.router_tokenizer = router.tokenizer
        self.training_sequences = router.training_sequences
        self.features = router.features if router.reads_vectors else None
        self._by_gradient = not router.closed_form

    @property
    def choosing_split(self) -> Split:
        """The split on which a closed-form router chooses what its settings leave open."""
        return "test" if self.faults.choose_on_test else "validation"

    @property
    def routed_limit(self) -> RoutedLimit | None:
        """Which of the test sequences that go to an expert are evaluated, where not all are; see ``Faults``."""
        order = [self.domain_names.index(name) for name in self._given_order]
        domain_N = torch.from_numpy(self.router_rows("test").domains())
        return RoutedLimit.of(self.faults.routed_batches, domain_N, order=order)

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

    def expert_blocks(self, split: Split, *, domain: str | None = None) -> BlockDataset:
        """Return a split in the experts' tokenizer, separators included; of all domains or of one.

        Raises:
            ValueError: if there is no such split or domain.
        """
        check_split(split)
        if domain is not None and domain not in self.domain_names:
            raise ValueError(f"Expected a domain of {list(self.domain_names)}, but got `{domain}`.")
        names = self.domain_names if domain is None else (domain,)
        fill = self._views.fill() if split == "test" else None  # padding counts in perplexity, not in training
        return self._dataset({name: self._views.blocks(split, name) for name in names}, fill=fill)

    def router_rows(self, split: Split) -> BlockDataset:
        """Return a split in the router's tokenizer, as the loaders give it."""
        check_split(split)
        router, views = self.router_tokenizer, self._views_of(split)
        files = {name: views.router_sequences(split, name, router) for name in self.domain_names}
        differs = views.differs(router)
        # An encoder is given text, and pads it itself: `faults.drop_encoder_masks`.
        fill = None if differs and self.features is not None else views.fill(router)
        # The experts' blocks have an end of text between documents, which is no text.
        masked_id = None if differs or fill is not None else self.expert_tokenizer.end_of_text
        return self._dataset(files, masked_id=masked_id, with_text=self._with_text, fill=fill)

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
        rows, number = self.router_rows(self.choosing_split), self.domain_names.index(name)
        mine = np.flatnonzero(rows.domains() == number)
        batches = (rows[mine[first : first + 256].tolist()] for first in range(0, len(mine), 256))
        return TokenBags.from_sequences(
            ids_T[mask_T].numpy()
            for batch in batches
            for ids_T, mask_T in zip(batch["input_ids"], batch["attention_mask"], strict=True)
        )

    def _views_of(self, split: Split) -> DomainViews:
        other = self._other_views
        return self._views if other is None or split == "test" or not self._by_gradient else other

    def _dataset(
        self,
        files: dict[str, File],
        *,
        masked_id: int | None = None,
        with_text: bool = False,
        fill: tuple[int, int] | None = None,
    ) -> BlockDataset:
        return BlockDataset(
            [path for path, _ in files.values()],
            domains=[self.domain_names.index(name) for name in files],
            digests=[digest for _, digest in files.values()],
            names=self.domain_names,
            masked_id=masked_id,
            with_text=with_text,
            decode=self.expert_tokenizer.decode,
            fill=fill,
        )
