"""What to prepare: each domain's raw text, how it is split, and the form of what is written."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ir3de.data.domain import Splits, sources_of
from ir3de.data.hub_files import HubFiles as HubFiles  # noqa: PLC0414 - lets configs name it by its class alone
from ir3de.data.sources import Source, TextSource
from ir3de.data.splits import SPLITS

Separator = Literal["special_tokens", "end_of_text", "none"]


@dataclass(frozen=True)
class Part:
    """A source whose documents go to some of the splits.

    Args:
        source: a path or a source of text.
        splits: which of train, validation and test its documents go to, by turns.
    """

    source: str | Source
    splits: list[str]


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How `prepare` makes token Parquet of raw text.

    Args:
        domains: for each domain's name its raw text: a path or a source that is split here; a source for each of train,
            validation and test; or a list of parts, each a source and the splits that its documents go to.
        separator: what stands between documents: `special_tokens` are those that the tokenizer itself puts around a
            text (Llama 3: a beginning of text before it), as in the published data; `end_of_text` is the tokenizer's
            end of text after it, which a router does not read; or `none`.
        split: for a source that goes to several splits, how many consecutive documents each gets before the next one's
            turn, such as `{train: 21, validation: 4, test: 7}`. Null: as `documents` stand to each other, or 8, 1, 1.
        documents: at most so many documents of each split, by split; null for all.
        max_tokens: at most so many tokens of each split, by split; reading stops there. Null for all.
        processes: processes that tokenize; the files do not depend on it. With 1 it is the main process.
        rows_per_file: rows of a Parquet file; what a run that is killed has written is kept by file.
    """

    domains: dict[str, str | Source | Splits | list[Part]] = field(default_factory=dict)
    separator: Separator = "end_of_text"
    split: dict[str, int] | None = None
    documents: dict[str, int] | None = None
    max_tokens: dict[str, int] | None = None
    processes: int = 1
    rows_per_file: int = 10_000

    def check(self) -> None:
        """Refuse settings that mean nothing.

        Raises:
            ValueError: naming the key.
        """
        for key in ("split", "documents", "max_tokens"):
            given: Mapping[str, int] = getattr(self, key) or {}
            wrong = {name: value for name, value in given.items() if name not in SPLITS or value < 1}
            if wrong:
                raise ValueError(
                    f"Expected `prepare.{key}` to have numbers of at least 1 for some of {list(SPLITS)}, but got"
                    f" {wrong}."
                )
        for key in ("processes", "rows_per_file"):
            if getattr(self, key) < 1:
                raise ValueError(f"Expected `prepare.{key}` to be at least 1, but got {getattr(self, key)}.")


@dataclass(frozen=True)
class Pass:
    """One pass over a source: whose turn it is for how many documents, and how many documents and tokens at most."""

    source: TextSource
    turns: dict[str, int]
    documents: dict[str, int]
    max_tokens: dict[str, int]

    def identity(self) -> dict[str, Any]:
        """Return what tells this pass from another."""
        turns = self.turns if len(self.turns) > 1 else list(self.turns)
        limits = {"documents": self.documents, "max_tokens": self.max_tokens}
        return {"split": turns, **limits, "source": self.source.identity()}


def passes_of(settings: Preparation, domain: str) -> list[Pass]:
    """Return the passes over a domain's sources, which fill each split once.

    Raises:
        ValueError: if a source is no text, or a split has no source or two.
        FileNotFoundError: if a path leads nowhere.
    """
    parts = []
    given = settings.domains[domain]
    for part in given if isinstance(given, list) else [given]:
        splits = part.splits if isinstance(part, Part) else None
        for split, source in sources_of(part.source if isinstance(part, Part) else part):
            parts.append((source, splits or ([split] if split else list(SPLITS))))
    filled = sorted(split for _, splits in parts for split in splits)
    if filled != sorted(SPLITS):
        raise ValueError(
            f"Expected `prepare.domains.{domain}` to fill each of {list(SPLITS)} once, but it fills {filled}."
        )
    passes = []
    for source, splits in parts:
        if not isinstance(source, TextSource):
            raise ValueError(
                f"Expected text in `prepare.domains.{domain}`, but {type(source).__name__} gives token ids, which need"
                " no preparation."
            )
        limits = [_of(given, splits) for given in (settings.documents, settings.max_tokens)]
        passes.append(Pass(source, _turns(settings, splits), *limits))
    return passes


def _of(given: Mapping[str, int] | None, splits: list[str]) -> dict[str, int]:
    return {split: given[split] for split in splits if given and split in given}


def _turns(settings: Preparation, splits: list[str]) -> dict[str, int]:
    documents = _of(settings.documents, splits)
    if settings.split is not None:
        turns = _of(settings.split, splits)
    elif len(documents) == len(splits):
        turns = {split: count // math.gcd(*documents.values()) for split, count in documents.items()}
    else:
        turns = {split: 8 if split == "train" else 1 for split in splits}
    if len(turns) < len(splits):
        raise ValueError(f"Expected `prepare.split` to name all of {splits}, which a source is for, but got {turns}.")
    return turns
