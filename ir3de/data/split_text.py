"""First stage of preparation: read every source, and give every document to a split."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ir3de.data.corpus import Corpus, cache_key, read_corpus
from ir3de.data.near_duplicates import WordHashes, token_hashes
from ir3de.data.sources import Source
from ir3de.data.splits import SPLITS, Part, SplitCounts, Splitting, assign_splits
from ir3de.files import cache_folder

# Part of every key: raise it when what the code writes changes.
_VERSION = 2
Announce = Callable[[str], None]


@dataclass(frozen=True)
class SplitText:
    """Documents with their splits: for each domain its corpora, and for each corpus the split of each document."""

    names: list[str]
    corpora: list[tuple[int, Corpus]]
    splits: list[np.ndarray]
    left_out: list[dict[str, int]]
    counts: list[SplitCounts]
    key: str

    def chosen(self, domain: int, split: str) -> list[tuple[Corpus, np.ndarray, int]]:
        """Return, for each corpus of a domain, the documents of a split and the number of its first document."""
        found, first = [], 0
        for (of, corpus), splits in zip(self.corpora, self.splits, strict=True):
            if of == domain:
                found.append((corpus, np.flatnonzero(splits == SPLITS.index(split)), first))
                first += len(corpus)
        return found

    def tokenized(self, domain: int) -> bool:
        """Return whether a domain came as token ids."""
        return any(corpus.tokenized for of, corpus in self.corpora if of == domain)


def split_text(
    domains: Mapping[str, list[tuple[str | None, Source]]], settings: Splitting, cache: Path, announce: Announce
) -> SplitText:
    """Read every source and give every document to a split.

    Raises:
        ValueError: if a domain has no usable text, or nothing in one of the splits.
    """
    names = list(domains)
    corpora, parts_of = [], []
    for number, (name, parts) in enumerate(domains.items()):
        for split, source in parts:
            corpora.append((number, read_corpus(source, domain=name, cache=cache, announce=announce)))
            parts_of.append((name, split))
    identity = [[name, split, c.digest] for (name, split), (_, c) in zip(parts_of, corpora, strict=True)]
    key = cache_key(_VERSION, "splits", identity, asdict(settings))
    folder = cache / "splits" / key
    if not (folder / "counts.json").is_file():
        announce("Looking for copies and near-copies")
        words = WordHashes()
        assignment = assign_splits(
            [Part(*of, c.hashes, _words(c, words)) for of, (_, c) in zip(parts_of, corpora, strict=True)], settings
        )
        with cache_folder(folder) as temporary:
            for i, of_corpus in enumerate(assignment.splits):
                np.save(temporary / f"split.{i}.npy", of_corpus)
                np.save(temporary / f"cluster.{i}.npy", assignment.clusters[i])
            counts = {name: asdict(count) for name, count in assignment.counts.items()}
            (temporary / "counts.json").write_text(json.dumps(counts, sort_keys=True))
    stored = json.loads((folder / "counts.json").read_text())
    left_out: list[dict[str, int]] = [{} for _ in names]
    for number, corpus in corpora:
        for reason, count in corpus.left_out.items():
            left_out[number][reason] = left_out[number].get(reason, 0) + count
    splits = [np.load(folder / f"split.{i}.npy") for i in range(len(corpora))]
    text = SplitText(names, corpora, splits, left_out, [SplitCounts(**stored[name]) for name in names], key)
    _check_splits(text)
    return text


def _words(corpus: Corpus, hashes: WordHashes) -> list[np.ndarray]:
    rows = np.arange(len(corpus))
    if corpus.tokenized:
        return [token_hashes(ids) for ids in corpus.tokens(rows)]
    return [hashes(text) for first in range(0, len(rows), 1024) for text in corpus.texts(rows[first : first + 1024])]


def _check_splits(text: SplitText) -> None:
    for name, count in zip(text.names, text.counts, strict=True):
        lost = count.exact_duplicates + count.shared_with_other_domains + count.leaked_dropped
        for split, documents in count.documents.items():
            if documents == 0:
                raise ValueError(
                    f"Expected documents in the {split} split of the domain `{name}`, but none is left of"
                    f" {count.documents_read} ({lost} dropped: {count.exact_duplicates} copies,"
                    f" {count.shared_with_other_domains} also in another domain, {count.leaked_dropped} leaked;"
                    f" {count.near_duplicate_documents} near-copies in {count.near_duplicate_clusters} clusters)."
                    " Give it more text, another `splitting.seed`, or splits of its own."
                )
