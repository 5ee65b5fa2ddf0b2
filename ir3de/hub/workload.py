"""How many tokens a config's commands read: from the prepared files' footers, or from what the paper's setting says."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jsonargparse import Namespace

from ir3de.data.as_is import AsIsDomain
from ir3de.data.domain import path_in, sources_of
from ir3de.data.sources import TextFiles
from ir3de.data.splits import SPLITS
from ir3de.data.tables import TableFiles

_BYTES_PER_TOKEN = 4  # of English text in a vocabulary of 32 to 128 thousand pieces, roughly
_PREPARED_BYTES = 8  # of a token: `input_ids` and `label`, int32


@dataclass(frozen=True)
class SplitSizes:
    """Tokens and sequences of one domain by split; ``basis`` says where the numbers are from."""

    tokens: Mapping[str, int]
    sequences: Mapping[str, int]
    basis: str


def _paper(train_sequences: int) -> SplitSizes:
    """Return a domain of the paper's: sequences of 1,024 tokens at most, 256 of them for validation and for test."""
    sequences = {"train": train_sequences, "validation": 256, "test": 256}
    return SplitSizes({split: 1024 * number for split, number in sequences.items()}, sequences, "the paper's sizes")


PAPER: Mapping[str, SplitSizes] = {"m2d2": _paper(1000 * 16), "clm2": _paper(7000)}


def prepared_bytes(setting: str | None, domains: int) -> int | None:
    """Return about how many bytes the prepared data of a setting take, before compression; None if unknown."""
    paper = PAPER.get(setting or "")
    return None if paper is None else domains * sum(paper.tokens.values()) * _PREPARED_BYTES


def domain_sizes(config: Namespace, name: str) -> SplitSizes | None:
    """Return the sizes of one domain, or None where nothing tells them before the text is read."""
    domain = config.data.domains[name]
    if not isinstance(domain, str):
        return None
    if not path_in(config.data.root, domain).exists():
        return PAPER.get(config.setting) if config.data.root is not None else None
    parts = sources_of(domain, root=config.data.root)
    as_is = AsIsDomain.of(name, parts)
    if as_is is not None:
        report = as_is.report()
        return SplitSizes(report.tokens, report.blocks, "the files' footers")
    if not all(isinstance(source, TextFiles | TableFiles) for _, source in parts):
        return None
    files: dict[str | None, list[Path]] = {split: source.files() for split, source in parts}  # type: ignore[attr-defined]
    splitting = config.data.splitting
    shares = {"validation": splitting.validation_fraction, "test": splitting.test_fraction}
    shares["train"] = 1 - sum(shares.values())
    tokens, sequences = {}, {}
    for split in SPLITS:
        own, share = (files[split], 1.0) if split in files else (files[None], shares[split])
        tokens[split] = round(share * sum(file.stat().st_size for file in own) / _BYTES_PER_TOKEN)
        rows = -(-tokens[split] // config.data.block_length) if config.data.pack else share * sum(map(_rows, own))
        sequences[split] = math.ceil(rows)
    return SplitSizes(tokens, sequences, f"the files' sizes, {_BYTES_PER_TOKEN} bytes a token")


def _rows(file: Path) -> int:
    """Return how many documents a file has: a line each in a table of lines, otherwise one."""
    if not file.name.endswith((".jsonl", ".csv")):
        return 1
    with file.open("rb") as lines:
        return sum(1 for _ in lines)


def evaluated(config: Namespace, sizes: SplitSizes, split: str) -> tuple[int, int]:
    """Return tokens and sequences of a split that are evaluated, after ``max_test_blocks`` and the like."""
    tokens, sequences = sizes.tokens[split], sizes.sequences[split]
    limit = config.data.max_test_blocks if split == "test" else config.data.max_validation_blocks
    if limit is None or limit >= sequences:
        return tokens, sequences
    return round(tokens * limit / sequences), limit
