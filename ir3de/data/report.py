"""What became of every domain's text: read, left out, split, and how much of the test text training has seen."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table


@dataclass(frozen=True)
class DomainReport:
    """One domain. ``seen_in_training`` has, for validation and test, the share of runs of 13 words (token ids for
    text that came tokenized) that the training text of any domain has too; counts of ``documents``, ``blocks`` and
    ``tokens`` (separators included) are by split.
    """

    domain: str
    documents_read: int
    left_out: dict[str, int]
    exact_duplicates: int
    shared_with_other_domains: int
    near_duplicate_clusters: int
    near_duplicate_documents: int
    leaked: int
    leaked_dropped: int
    documents: dict[str, int]
    seen_in_training: dict[str, float]
    blocks: dict[str, int] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    blocks_left_out: dict[str, int] = field(default_factory=dict)
    documents_without_tokens: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return dataclasses.asdict(self)


def report_table(reports: Sequence[DomainReport]) -> Table:
    """Return the reports as a table for a terminal."""
    table = Table(title="Data", caption="seen: share of the test text's 13-word runs that training text has too")
    table.add_column("domain")
    for name in ("documents", "copies", "near-copies", "train tokens", "train", "validation", "test blocks", "seen"):
        table.add_column(name, justify="right")
    for one in reports:
        seen = one.seen_in_training["test"]
        table.add_row(
            one.domain,
            f"{one.documents_read:,}",
            f"{one.exact_duplicates + one.shared_with_other_domains:,}",
            f"{one.near_duplicate_documents:,}",
            f"{one.tokens['train']:,}",
            *(f"{one.blocks[split]:,}" for split in ("train", "validation", "test")),
            "-" if math.isnan(seen) else f"{seen:.1%}",  # NaN: no text of 13 words
        )
    return table
