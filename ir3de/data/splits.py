"""Which document is trained on and which is tested on, so that no near-copy is on both sides."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ir3de.data.near_duplicates import near_duplicate_clusters
from ir3de.functional.overlap import run_hashes, seen_share

SPLITS = ("train", "validation", "test")
DROPPED = -1
OVERLAP_WORDS = 13  # the run of words by which contamination is usually measured (GPT-3, appendix C)


@dataclass(frozen=True)
class Splitting:
    """How documents are spread over training, validation and test.

    Documents of one near-duplicate cluster stay together; a hash of the cluster's content and the seed decides where.
    The defaults join documents from a Jaccard similarity of about 0.13 of their runs of eight words: documentation and
    licences repeat whole passages in documents that differ otherwise.

    Args:
        validation_fraction: share of the clusters that become validation data.
        test_fraction: share of the clusters that become test data.
        seed: draws another split.
        near_duplicates: whether to look for near-duplicates at all. Without it only equal texts are found.
        shingle_words: words in a run, of which two documents are compared.
        num_bands: more bands join documents that are less alike.
        rows_per_band: more rows of a band join only documents that are more alike.
        drop_leaked: for domains that come with splits of their own: whether a training document of which validation or
            test has a near-copy (or a validation document of which test has one) is dropped. Test data stay as
            they are.
    """

    validation_fraction: float = 0.08
    test_fraction: float = 0.12
    seed: int = 0
    near_duplicates: bool = True
    shingle_words: int = 8
    num_bands: int = 64
    rows_per_band: int = 2
    drop_leaked: bool = True

    def check(self) -> None:
        """Refuse values that make no split.

        Raises:
            ValueError: if a fraction or a size is out of range.
        """
        for name in ("validation_fraction", "test_fraction"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"Expected `splitting.{name}` between 0 and 1, but got {getattr(self, name)}.")
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError(
                "Expected `splitting.validation_fraction` and `splitting.test_fraction` to leave something to train on,"
                f" but they add up to {self.validation_fraction + self.test_fraction:g}. Lower them."
            )
        for name in ("shingle_words", "num_bands", "rows_per_band"):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected `splitting.{name}` to be at least 1, but got {getattr(self, name)}.")


@dataclass(frozen=True)
class Part:
    """Documents of one source: their domain, the split they come with (or None), content hashes and word hashes."""

    domain: str
    split: str | None
    hashes: Sequence[bytes]
    words: Sequence[np.ndarray]


@dataclass
class SplitCounts:
    """What happened to the documents of one domain."""

    documents_read: int = 0
    exact_duplicates: int = 0
    shared_with_other_domains: int = 0
    near_duplicate_clusters: int = 0
    near_duplicate_documents: int = 0
    leaked: int = 0
    leaked_dropped: int = 0
    documents: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    seen_in_training: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Assignment:
    """For each part: the split of each document (an index into ``SPLITS``, or ``DROPPED``), and its cluster."""

    splits: list[np.ndarray]
    clusters: list[np.ndarray]
    counts: dict[str, SplitCounts]


def assign_splits(parts: Sequence[Part], settings: Splitting) -> Assignment:
    """Drop copies, cluster near-copies over all domains together, and give each cluster to one split.

    A text that occurs again in its own domain is kept once. A text that occurs in two domains is kept in neither: no
    router can be right about it, and the outcome must not hang on the order of the domains. A document that comes with
    a split keeps it, and takes the documents without one along that are in its cluster (test before validation
    before training).
    """
    counts = {part.domain: SplitCounts() for part in parts}
    kept = _without_copies(parts, counts)
    places = [(p, int(i)) for p, rows in enumerate(kept) for i in np.flatnonzero(rows)]
    labels = np.arange(len(places))
    if settings.near_duplicates:
        labels = near_duplicate_clusters(
            [parts[p].words[i] for p, i in places],
            shingle_words=settings.shingle_words,
            num_bands=settings.num_bands,
            rows_per_band=settings.rows_per_band,
        )
    labels = _join_equal_texts(parts, places, labels)
    members: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for place, label in zip(places, labels.tolist(), strict=True):
        members[label].append(place)

    splits = [np.full(len(part.hashes), DROPPED, dtype=np.int8) for part in parts]
    clusters = [np.full(len(part.hashes), -1, dtype=np.int64) for part in parts]
    targets = _targets(parts, members, settings)
    for label, cluster in members.items():
        for p, i in cluster:
            own = parts[p].split
            splits[p][i] = _side(own, targets[label], counts[parts[p].domain], drop_leaked=settings.drop_leaked)
            clusters[p][i] = label
        if len(cluster) > 1:
            for domain, size in Counter(parts[p].domain for p, _ in cluster).items():
                counts[domain].near_duplicate_clusters += 1
                counts[domain].near_duplicate_documents += size
    _measure_overlap(parts, splits, counts)
    return Assignment(splits, clusters, counts)


def _without_copies(parts: Sequence[Part], counts: dict[str, SplitCounts]) -> list[np.ndarray]:
    domains: dict[bytes, set[str]] = defaultdict(set)
    for part in parts:
        for hashed in part.hashes:
            domains[hashed].add(part.domain)
    kept = []
    met: set[tuple[str, str | None, bytes]] = set()
    for part in parts:
        rows = np.ones(len(part.hashes), dtype=bool)
        counts[part.domain].documents_read += len(rows)
        for i, hashed in enumerate(part.hashes):
            if len(domains[hashed]) > 1:
                rows[i] = False
                counts[part.domain].shared_with_other_domains += 1
            elif (part.domain, part.split, hashed) in met:
                rows[i] = False
                counts[part.domain].exact_duplicates += 1
            met.add((part.domain, part.split, hashed))
        kept.append(rows)
    return kept


def _join_equal_texts(parts: Sequence[Part], places: list[tuple[int, int]], labels: np.ndarray) -> np.ndarray:
    """Give equal texts in different splits of one domain one label; without near-duplicates nothing else does."""
    first: dict[bytes, int] = {}
    for (p, i), label in zip(places, labels.tolist(), strict=True):
        low = first.setdefault(parts[p].hashes[i], label)
        if low != label:
            labels = np.where(labels == max(low, label), min(low, label), labels)
            first[parts[p].hashes[i]] = min(low, label)
    return labels


def _targets(parts: Sequence[Part], members: dict[int, list[tuple[int, int]]], settings: Splitting) -> dict[int, int]:
    """Return the split of each cluster: its documents' own, or one drawn by the hash of its lowest document.

    Of a domain with few clusters a split may draw none; then it takes one that is this domain's alone, by the order of
    the draws, from a split that has another.
    """
    targets: dict[int, int] = {}
    drawn: dict[str, list[tuple[float, int]]] = defaultdict(list)  # by domain, clusters that are its alone
    train, validation, test = (SPLITS.index(split) for split in ("train", "validation", "test"))
    for label, cluster in members.items():
        own = [SPLITS.index(split) for p, _ in cluster if (split := parts[p].split) is not None]
        if own:
            targets[label] = max(own)
            continue
        uniform = _draw(min(parts[p].hashes[i] for p, i in cluster), settings.seed)
        held_out = settings.test_fraction + settings.validation_fraction
        targets[label] = train if uniform >= held_out else validation if uniform >= settings.test_fraction else test
        domains = {parts[p].domain for p, _ in cluster}
        if len(domains) == 1:
            drawn[domains.pop()].append((uniform, label))
    present = {(parts[p].domain, targets[label]) for label, cluster in members.items() for p, _ in cluster}
    for domain, clusters in drawn.items():
        for side in (test, validation, train):
            sizes = Counter(targets[label] for _, label in clusters)
            spare = [label for _, label in sorted(clusters) if sizes[targets[label]] > 1]
            if (domain, side) not in present and spare:
                targets[spare[0] if side != train else spare[-1]] = side
    return targets


def _draw(key: bytes, seed: int) -> float:
    digest = hashlib.sha256(f"{seed}:{key.hex()}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _side(own: str | None, target: int, counts: SplitCounts, *, drop_leaked: bool) -> int:
    """Return the split of one document of a cluster that belongs in ``target``, and count it."""
    side = target if own is None else SPLITS.index(own)
    if side < target:
        counts.leaked += 1
        if drop_leaked:
            counts.leaked_dropped += 1
            return DROPPED
    counts.documents[SPLITS[side]] += 1
    return side


def _measure_overlap(parts: Sequence[Part], splits: list[np.ndarray], counts: dict[str, SplitCounts]) -> None:
    def runs(split: str, domain: str | None = None) -> np.ndarray:
        chosen = [
            run_hashes(part.words[i], OVERLAP_WORDS)
            for part, of in zip(parts, splits, strict=True)
            if domain in (None, part.domain)
            for i in np.flatnonzero(of == SPLITS.index(split)).tolist()
        ]
        return np.concatenate(chosen) if chosen else np.zeros(0, dtype=np.uint64)

    training = np.unique(runs("train"))
    for domain, count in counts.items():
        count.seen_in_training = {split: seen_share(runs(split, domain), training) for split in SPLITS[1:]}
