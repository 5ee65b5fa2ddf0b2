"""From split text to sequences on disk: tokenizer, experts' view, router's view, each cached by what shaped it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ir3de.data.blocks import Encoded, Sequences, encode_documents, one_per_document, pack_documents
from ir3de.data.bpe import train_bpe
from ir3de.data.cache import SequenceFile, write_sequences
from ir3de.data.corpus import cache_key
from ir3de.data.report import DomainReport
from ir3de.data.split_text import Announce, SplitText
from ir3de.data.splits import SPLITS
from ir3de.files import cache_folder
from ir3de.pretrained.tokenizer import TextTokenizer

# Part of every key: raise it when what the code writes changes.
_VERSION = 1


@dataclass(frozen=True)
class BlockSettings:
    """How documents become sequences."""

    block_length: int
    pack: bool
    max_blocks: Mapping[str, int | None]


@dataclass(frozen=True)
class Prepared:
    """A folder of sequences: ``files[split][domain]`` with the content's ``digests``, and a report per domain.

    ``fresh`` tells that it was made just now rather than found.
    """

    folder: Path
    digests: dict[str, list[str]]
    reports: list[DomainReport]
    fresh: bool

    def files(self, split: str) -> list[Path]:
        """Return the file of every domain."""
        return [self.folder / _file_name(split, domain) for domain in range(len(self.digests[split]))]


def train_tokenizer(text: SplitText, *, vocab_size: int, cache: Path, announce: Announce) -> TextTokenizer:
    """Return a byte-level BPE of the training split alone, from the cache if it is there.

    Raises:
        ValueError: if there is no text to train on.
    """
    tokenized = [name for domain, name in enumerate(text.names) if text.tokenized(domain)]
    if tokenized:
        raise ValueError(
            f"Expected text to train a tokenizer on, but the domains {tokenized} are already tokenized."
            " Set `tokenizer` to the one that they were tokenized with."
        )
    folder = cache / "tokenizers" / cache_key(_VERSION, text.key, vocab_size)
    if not folder.is_dir():
        announce("Training the experts' tokenizer")
        training = (
            document
            for domain in sorted(range(len(text.names)), key=lambda i: text.names[i])
            for corpus, rows, _ in text.chosen(domain, "train")
            for first in range(0, len(rows), 256)
            for document in corpus.texts(rows[first : first + 256])
        )
        tokenizer = train_bpe(training, vocab_size=vocab_size)
        with cache_folder(folder) as temporary:
            tokenizer.save(temporary)
    return TextTokenizer.from_folder(folder)


def prepare_blocks(
    text: SplitText, tokenizer: TextTokenizer, settings: BlockSettings, cache: Path, announce: Announce
) -> Prepared:
    """Return the experts' view: every split of every domain in the experts' tokenizer.

    Raises:
        ValueError: if ids that came with the data are not in the tokenizer's vocabulary.
    """
    shape = [settings.block_length, settings.pack, dict(settings.max_blocks)]
    folder = cache / "blocks" / cache_key(_VERSION, "experts", text.key, tokenizer.fingerprint, shape)
    fresh = not (folder / "data.json").is_file()
    if fresh:
        with cache_folder(folder) as temporary:
            digests: dict[str, list[str]] = {split: [] for split in SPLITS}
            reports = []
            for domain, name in enumerate(text.names):
                announce(f"Tokenizing {name}")
                report = _first_report(text, domain)
                for split in SPLITS:
                    sequences, without_tokens = _sequences(
                        text, domain, split, tokenizer=tokenizer, separate=True, settings=settings
                    )
                    sequences, left_out = sample(sequences, settings.max_blocks.get(split), f"{name}:{split}")
                    path = temporary / _file_name(split, domain)
                    digests[split].append(write_sequences(path, sequences, domain=domain))
                    report = replace(
                        report,
                        blocks=report.blocks | {split: len(sequences.length_N)},
                        tokens=report.tokens | {split: int(sequences.length_N.sum())},
                        blocks_left_out=report.blocks_left_out | {split: left_out},
                        documents_without_tokens=report.documents_without_tokens + without_tokens,
                    )
                reports.append(report)
            _write_json(temporary, digests, reports)
    return _read_json(folder, fresh=fresh)


def prepare_router_view(
    text: SplitText,
    blocks: Prepared,
    router: TextTokenizer,
    *,
    settings: BlockSettings,
    cache: Path,
    announce: Announce,
) -> Prepared:
    """Return the router's view in a tokenizer of its own: training documents as a run, and the text of each block.

    Raises:
        ValueError: if a domain came as token ids.
    """
    tokenized = [name for domain, name in enumerate(text.names) if text.tokenized(domain)]
    if tokenized:
        raise ValueError(
            f"Expected text for the router's tokenizer, but the domains {tokenized} hold token ids of the experts'."
            " Give the router the experts' tokenizer, or give these domains as text."
        )
    folder = cache / "blocks" / cache_key(_VERSION, "router", blocks.folder.name, router.fingerprint)
    fresh = not (folder / "data.json").is_file()
    if fresh:
        with cache_folder(folder) as temporary:
            digests: dict[str, list[str]] = {split: [] for split in SPLITS}
            for domain, name in enumerate(text.names):
                announce(f"Tokenizing {name} for the router")
                training, _ = _sequences(text, domain, "train", tokenizer=router, separate=False, settings=settings)
                views = {"train": training}
                for split in SPLITS[1:]:
                    file = SequenceFile(blocks.files(split)[domain])
                    views[split] = encode_rows(file, router)
                for split, sequences in views.items():
                    path = temporary / _file_name(split, domain)
                    digests[split].append(write_sequences(path, sequences, domain=domain))
            _write_json(temporary, digests, [])
    return _read_json(folder, fresh=fresh)


def _sequences(
    text: SplitText, domain: int, split: str, *, tokenizer: TextTokenizer, separate: bool, settings: BlockSettings
) -> tuple[Sequences, int]:
    """Return the sequences of a split, and how many documents had no token."""
    parts, chosen = [], 0
    for corpus, rows, first in text.chosen(domain, split):
        chosen += len(rows)
        if corpus.tokenized:
            ids = corpus.tokens(rows)
            check_range(ids, tokenizer.vocab_size, f"the {split} split of `{text.names[domain]}`")
            parts.append(Encoded(rows + first, [one.astype(np.int32) for one in ids], [], []))
        else:
            parts.append(encode_documents(corpus.texts(rows), rows + first, tokenizer))
    documents = Encoded(
        np.concatenate([part.rows for part in parts]),
        [ids for part in parts for ids in part.tokens],
        [one for part in parts for one in part.texts],
        [starts for part in parts for starts in part.starts],
    )
    without_tokens = chosen - len(documents.tokens)
    if not settings.pack:
        return one_per_document(documents), without_tokens
    # Rows that came as token ids are taken to be packed already.
    separator = tokenizer.end_of_text if separate and not text.tokenized(domain) else None
    packed = pack_documents(documents, block_length=settings.block_length, separator=separator)
    return packed, without_tokens


def encode_rows(
    file: SequenceFile, router: TextTokenizer, *, decode: Callable[[Sequence[np.ndarray]], list[str]] | None = None
) -> Sequences:
    """Return each row's text in the router's tokenizer; ``decode`` makes the text of rows that came as token ids."""
    rows = np.arange(len(file))
    texts = file.texts(rows) if decode is None else decode(file.rows(rows))
    tokens = [ids for first in range(0, len(texts), 256) for ids in router.encode(texts[first : first + 256])]
    return replace(one_per_document(Encoded(rows, tokens, texts, [])), document_N=np.array(file.document_N))


def check_range(rows: list[np.ndarray], vocab_size: int, where: str) -> None:
    """Refuse token ids that the vocabulary does not have; ``where`` names their place."""
    ids = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < vocab_size:
        wrong = int(ids.min()) if ids.min() < 0 else int(ids.max())
        raise ValueError(
            f"Expected token ids from 0 to {vocab_size - 1} (a vocabulary of {vocab_size}), but {where} has {wrong}."
            " Set `tokenizer` to the one that the data were tokenized with."
        )


def sample(sequences: Sequences, limit: int | None, name: str) -> tuple[Sequences, int]:
    """Return at most ``limit`` sequences, drawn by ``name`` and in their order, and how many are left out."""
    size = len(sequences.length_N)
    if limit is None or size <= limit:
        return sequences, 0
    seed = int.from_bytes(bytes.fromhex(cache_key(name))[:8], "big")
    rows = np.sort(np.random.default_rng(seed).permutation(size)[:limit])
    return sequences.take(rows), size - limit


def _first_report(text: SplitText, domain: int) -> DomainReport:
    counts = asdict(text.counts[domain])
    return DomainReport(domain=text.names[domain], left_out=text.left_out[domain], **counts)


def _file_name(split: str, domain: int) -> str:
    return f"{split}.{domain}.arrow"


def _write_json(folder: Path, digests: dict[str, list[str]], reports: list[DomainReport]) -> None:
    content: dict[str, Any] = {"digests": digests, "reports": [report.as_dict() for report in reports]}
    (folder / "data.json").write_text(json.dumps(content, indent=1, sort_keys=True))


def _read_json(folder: Path, *, fresh: bool) -> Prepared:
    content = json.loads((folder / "data.json").read_text())
    return Prepared(folder, content["digests"], [DomainReport(**report) for report in content["reports"]], fresh)
