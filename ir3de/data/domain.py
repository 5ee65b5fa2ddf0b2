"""A domain as a config gives it: one source that is to be split, or a source for each split."""

from dataclasses import dataclass

from ir3de.data.sources import Source
from ir3de.data.splits import SPLITS
from ir3de.data.tables import source_from_path


@dataclass(frozen=True)
class Splits:
    """A domain that comes with splits of its own.

    Args:
        train: a path or a source.
        validation: a path or a source.
        test: a path or a source.
    """

    train: str | Source
    validation: str | Source
    test: str | Source


def sources_of(domain: str | Source | Splits) -> list[tuple[str | None, Source]]:
    """Return a domain's sources with the split that each is for, or ``None`` for one that is to be split."""
    if isinstance(domain, Splits):
        return [(split, _source(getattr(domain, split))) for split in SPLITS]
    return [(None, _source(domain))]


def _source(given: str | Source) -> Source:
    return source_from_path(given) if isinstance(given, str) else given
