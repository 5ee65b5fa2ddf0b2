"""The domains' two views, prepared when they are first asked for: the experts' blocks, and the router's sequences."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from lightning_utilities.core.rank_zero import rank_zero_only

from ir3de.console import console
from ir3de.data.as_is import AsIsDomain
from ir3de.data.cache import SequenceFile
from ir3de.data.faults import Faults
from ir3de.data.preparation import BlockSettings, Prepared, prepare_blocks, prepare_router_view, train_tokenizer
from ir3de.data.report import DomainReport, report_table
from ir3de.data.shards import Shard, sequence_shards
from ir3de.data.sources import Source
from ir3de.data.split_text import SplitText, split_text
from ir3de.data.splits import SPLITS, Splitting
from ir3de.pretrained.loading import load_tokenizer
from ir3de.pretrained.tokenizer import TextTokenizer

Sources = Mapping[str, list[tuple[str | None, Source]]]
File = tuple[Path, str]  # of sequences, with its content's hash


class DomainViews:
    """Text and token ids on disk, for every split of every domain, in the experts' and in the router's tokenizer.

    Args:
        sources: each domain's sources with the split that each is for.
        tokenizer: the experts' tokenizer: `train`, or where it is.
        tokenizer_vocab_size: entries of a tokenizer that is trained here.
        settings: how documents become sequences.
        splitting: how documents are spread over the splits.
        cache: where everything that is prepared is kept.
    """

    def __init__(
        self,
        sources: Sources,
        *,
        tokenizer: str,
        tokenizer_vocab_size: int,
        settings: BlockSettings,
        splitting: Splitting,
        cache: Path,
    ) -> None:
        self._as_is = {name: one for name, parts in sources.items() if (one := AsIsDomain.of(name, parts))}
        self._sources = {name: parts for name, parts in sources.items() if name not in self._as_is}
        self._numbers = {name: number for number, name in enumerate(sources)}
        self._tokenizer = tokenizer
        self._tokenizer_vocab_size = tokenizer_vocab_size
        self._settings = settings
        self._splitting = splitting
        self._cache = cache
        self._text: SplitText | None = None
        self._blocks: Prepared | None = None
        self._expert_tokenizer: TextTokenizer | None = None
        self._router_view: tuple[str, Prepared] | None = None  # with the fingerprint of its tokenizer
        self._reported = False
        self.faults = Faults()
        self._first: DomainViews | None = None  # whose tokenizer is used

    def beside(self, sources: Sources) -> "DomainViews":
        """Return the views of other text in the same tokenizer, prepared alike."""
        other = DomainViews(
            sources,
            tokenizer=self._tokenizer,
            tokenizer_vocab_size=self._tokenizer_vocab_size,
            settings=self._settings,
            splitting=self._splitting,
            cache=self._cache,
        )
        other._first = self
        return other

    @property
    def expert_tokenizer(self) -> TextTokenizer:
        """The experts' tokenizer; prepares the blocks if that has not been done."""
        if self._expert_tokenizer is None:
            self._check_sources()
            loaded = self._first.expert_tokenizer if self._first is not None else None
            if loaded is None and self._tokenizer != "train":
                loaded = load_tokenizer(self._tokenizer)  # fails before long work
            if self._as_is and loaded is None:
                raise ValueError(
                    f"Expected text to train a tokenizer on, but the domains {list(self._as_is)} are already tokenized."
                    " Set `tokenizer` to the one that they were tokenized with."
                )
            if self._sources:
                self._text = split_text(self._sources, self._splitting, self._cache, _announce)
            if loaded is None:
                assert self._text is not None, "there are domains, and none of them is used as it is"
                loaded = train_tokenizer(
                    self._text, vocab_size=self._tokenizer_vocab_size, cache=self._cache, announce=_announce
                )
            self._expert_tokenizer = loaded
        return self._expert_tokenizer

    @property
    def reports(self) -> list[DomainReport]:
        """What became of each domain's text; also in ``data.json`` beside the blocks."""
        blocks = self._prepare_blocks()
        prepared = [] if blocks is None else blocks.reports
        return sorted([*prepared, *(one.report() for one in self._as_is.values())], key=lambda one: one.domain)

    def prepare(self, router: TextTokenizer | None) -> None:
        """Read, split, tokenize and pack whatever is not in the cache, for the experts and for ``router``.

        Raises:
            FileNotFoundError: if a path leads nowhere.
            ValueError: if a source cannot be read, a split is empty, or ids do not fit the tokenizer.
        """
        blocks = self._prepare_blocks()
        for name in self._as_is:
            for split in SPLITS[1:]:  # training rows are copied when somebody asks for them in batches
                self.blocks(split, name)
        if not self._reported and (self._as_is or (blocks is not None and blocks.fresh)):
            _print_report(self.reports)
            self._reported = True
        if router is not None and self.differs(router):
            self._prepare_router_view(router)

    def differs(self, router: TextTokenizer | None) -> bool:
        """Return whether the router's tokenizer is another one than the experts'."""
        return router is not None and router.fingerprint != self.expert_tokenizer.fingerprint

    def fill(self, router: TextTokenizer | None = None) -> tuple[int, int] | None:
        """Return the width and the id with which shorter rows are filled, or nothing; see ``Faults.count_padding``.

        Raises:
            ValueError: if the tokenizer, the router's or the experts', has no end of text.
        """
        if not self.faults.count_padding:
            return None
        tokenizer = self.expert_tokenizer if router is None else router
        if tokenizer.end_of_text is None:
            whose = "the router's" if self.differs(router) else "the experts'"
            raise ValueError(f"`faults.count_padding` fills with the end of text, but {whose} tokenizer has none.")
        return self._settings.block_length, tokenizer.end_of_text

    def blocks(self, split: str, name: str) -> File:
        """Return the experts' view of a split of a domain."""
        blocks = self._prepare_blocks()
        if name in self._as_is:
            return self._as_is[name].sequences(
                split,
                self._numbers[name],
                vocab_size=self.expert_tokenizer.vocab_size,
                settings=self._settings,
                cache=self._cache,
            )
        assert blocks is not None, "domains that are not used as they are have been prepared"
        return self._of(blocks, split, name)

    def router_sequences(self, split: str, name: str, router: TextTokenizer | None) -> File:
        """Return the router's view of a split of a domain; the experts', where the tokenizer is theirs."""
        if split == "train" and name in self.faults.fit_on_test:
            split = "test"
        if router is None or not self.differs(router):
            return self.blocks(split, name)
        if name in self._as_is:
            return self._as_is[name].encoded(
                split,
                self._numbers[name],
                tokenizer=self.expert_tokenizer,
                router=router,
                settings=self._settings,
                cache=self._cache,
            )
        view = self._prepare_router_view(router)
        assert view is not None, "domains that are not used as they are have been prepared"
        return self._of(view, split, name)

    def training_shards(self, router: TextTokenizer | None, *, shard_tokens: int) -> list[Shard]:
        """Return the shards of all domains' training text, whatever process will read them."""
        tokenizer, shards = self.expert_tokenizer, []
        fill = self.fill(router)
        masked = None if self.differs(router) or fill is not None else tokenizer.end_of_text
        for name, domain in self._numbers.items():
            changed = fill is not None or name in self.faults.fit_on_test or self.faults.repeat_to is not None
            if name in self._as_is and not self.differs(router) and not changed:
                shards += self._as_is[name].shards("train", domain, masked_id=masked, shard_tokens=shard_tokens)
            else:
                path, digest = self.router_sequences("train", name, router)
                for num_rows in self._rounds(len(SequenceFile(path))):
                    shards += sequence_shards(
                        path,
                        domain=domain,
                        digest=digest,
                        masked_id=masked,
                        shard_tokens=shard_tokens,
                        fill=fill,
                        num_rows=num_rows,
                    )
        return shards

    def document_hashes(self, split: str, name: str) -> np.ndarray:
        """Return 64 bits of the SHA-256 of each document of a split, int64; none for a domain that is used as it is."""
        if name in self._as_is:
            return np.zeros(0, dtype=np.int64)
        self._prepare_blocks()
        assert self._text is not None, "read with the blocks"
        number = list(self._sources).index(name)
        chosen = self._text.chosen(number, split)
        hashes = [corpus.hashes[row][:8] for corpus, rows, _ in chosen for row in rows.tolist()]
        return np.frombuffer(b"".join(hashes), dtype="<i8").astype(np.int64)

    def row_hashes(self, split: str, name: str) -> np.ndarray:
        """Return 64 bits of the SHA-256 of each sequence of token ids of a split that is used as it is, int64."""
        if name not in self._as_is:
            return np.zeros(0, dtype=np.int64)
        file = SequenceFile(self.blocks(split, name)[0])
        ends = file.begin_N + file.length_N
        rows = (file.ids_M[begin:end] for begin, end in zip(file.begin_N, ends, strict=True))
        hashes = [hashlib.sha256(row.astype("<i4").tobytes()).digest()[:8] for row in rows]
        return np.frombuffer(b"".join(hashes), dtype="<i8").astype(np.int64)

    def _rounds(self, num_rows: int) -> list[int]:
        """Return how many of a domain's training sequences are read each time, see ``Faults.repeat_to``."""
        repeat_to = self.faults.repeat_to or 0
        if not 0 < num_rows < repeat_to:  # nothing is missing, or there is nothing to repeat
            return [num_rows]
        whole, rest = divmod(repeat_to, num_rows)
        return [*[num_rows] * whole, *([rest] if rest else [])]

    def _of(self, prepared: Prepared, split: str, name: str) -> File:
        number = list(self._sources).index(name)
        return prepared.files(split)[number], prepared.digests[split][number]

    def _prepare_blocks(self) -> Prepared | None:
        tokenizer = self.expert_tokenizer
        if self._blocks is None and self._text is not None:
            self._blocks = prepare_blocks(self._text, tokenizer, self._settings, self._cache, _announce)
        return self._blocks

    def _prepare_router_view(self, router: TextTokenizer) -> Prepared | None:
        blocks = self._prepare_blocks()
        if blocks is None or self._text is None:  # all domains are used as they are
            return None
        if self._router_view is None or self._router_view[0] != router.fingerprint:
            view = prepare_router_view(
                self._text, blocks, router, settings=self._settings, cache=self._cache, announce=_announce
            )
            self._router_view = (router.fingerprint, view)
        return self._router_view[1]

    def _check_sources(self) -> None:
        """Refuse missing paths, fields and packages of all domains, before any is read."""
        every = [(name, split, source) for name, parts in self._sources.items() for split, source in parts]
        every += [(name, split, source) for name, one in self._as_is.items() for split, source in one.parts.items()]
        for name, split, source in every:
            try:
                source.check()
            except (FileNotFoundError, ValueError) as error:
                where = f"`{name}`" if split is None else f"`{name}` ({split})"
                raise type(error)(f"In the domain {where}: {error}") from error


def check_split(split: str) -> None:
    """Refuse a split that there is not.

    Raises:
        ValueError: if ``split`` is none of train, validation and test.
    """
    if split not in SPLITS:
        raise ValueError(f"Expected a split of {list(SPLITS)}, but got `{split}`.")


@rank_zero_only
def _announce(message: str) -> None:
    console(stderr=True).print(f"[dim]{message}[/dim]")


@rank_zero_only
def _print_report(reports: Sequence[DomainReport]) -> None:
    console(stderr=True).print(report_table(reports))
