"""How many tokens a config's commands read: from the files where they are, otherwise from what will be written."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jsonargparse import Namespace

from ir3de.data.as_is import AsIsDomain
from ir3de.data.domain import path_in, sources_of
from ir3de.data.sources import TextFiles
from ir3de.data.splits import SPLITS
from ir3de.data.tables import TableFiles
from ir3de.hub.facts import size_text
from ir3de.hub.tasks import Task, known_task

_BYTES_PER_TOKEN = 4  # of English text in a vocabulary of 32 to 128 thousand pieces, roughly
_PREPARED_BYTES = 8  # of a token: `input_ids` and `label`, int32
BENCHMARKS = "public sizes of the benchmarks, their lengths roughly"
Bound = Literal["about", "at most", "at least"]


@dataclass(frozen=True)
class SplitSizes:
    """Tokens and sequences of one domain by split; ``basis`` says where the numbers are from.

    ``bound`` says how sure they are, and ``token_bytes`` how much a token takes on disk.
    """

    tokens: Mapping[str, int]
    sequences: Mapping[str, int]
    basis: str
    bound: Bound = "about"
    token_bytes: int = _PREPARED_BYTES


# Sequences of a domain that the paper reads, of 1,024 tokens.
_PAPER: Mapping[str, Mapping[str, int]] = {
    "m2d2": {"train": 1000 * 16, "validation": 256, "test": 256},
    "clm2": {"train": 7000, "validation": 256, "test": 256},
}
_PAPER_LENGTH = 1024


def planned_sizes(config: Namespace, name: str) -> SplitSizes | None:
    """Return the sizes of what ``prepare`` or ``scores`` will write for a domain, or None where nothing tells them."""
    if config.reasoning.tasks.get(name):
        return _of_benchmark(config, name)
    tokens, sequences, bases = {}, {}, []
    bound: Bound = "about" if config.data.pack else "at most"  # a document that is shorter than a row stays so
    for split in SPLITS:
        limited = _limited(config, name, split)
        if limited is not None:
            tokens[split], sequences[split], basis = limited
        elif split in _PAPER.get(config.setting or "", {}):
            sequences[split], basis = _PAPER[config.setting][split], "the paper's sizes"
            tokens[split] = _PAPER_LENGTH * sequences[split]
            if name in config.prepare.domains:  # which then writes all that there is
                bound = "at least"
        else:
            return None
        bases.append(basis)
    return SplitSizes(tokens, sequences, ", ".join(dict.fromkeys(bases)), bound)


def _limited(config: Namespace, name: str, split: str) -> tuple[int, int, str] | None:
    """Return tokens and sequences of a split that ``prepare`` is told to stop at, and by which key."""
    length, found = config.data.block_length, []
    documents = (config.prepare.documents or {}).get(split)
    tokens = (config.prepare.max_tokens or {}).get(split)
    if documents is not None and not config.data.pack:
        found.append((documents * length, documents, "prepare.documents"))
    if tokens is not None:
        found.append((tokens, -(-tokens // length), "prepare.max_tokens"))
    return min(found, default=None) if name in config.prepare.domains else None


def _of_benchmark(config: Namespace, name: str) -> SplitSizes | None:
    tasks = known_tasks(config, name)
    if tasks is None:
        return None
    test = sum(number for _, number in tasks)
    sequences = {"train": config.reasoning.prompts, "validation": config.reasoning.validation_prompts, "test": test}
    length = sum(task.question * number for task, number in tasks) / test
    tokens = {split: round(length * number) for split, number in sequences.items()}
    return SplitSizes(tokens, sequences, BENCHMARKS, token_bytes=_BYTES_PER_TOKEN)


def known_tasks(config: Namespace, name: str) -> list[tuple[Task, int]] | None:
    """Return a domain's tasks with how many questions of each are asked, or None if one of them is not known here."""
    tasks = [known_task(task) for task in config.reasoning.tasks[name]]
    limit = config.reasoning.limit
    known = [(task, min(task.questions, limit or task.questions)) for task in tasks if task is not None]
    return known if len(known) == len(tasks) else None


def prepared_text(config: Namespace, names: Sequence[str]) -> str:
    """Return how much what is written for some domains takes, before compression, as people read it."""
    sizes = [planned_sizes(config, name) for name in names]
    known = [one for one in sizes if one is not None]
    if len(known) < len(sizes):
        return "size unknown"
    bounds = {one.bound for one in known}
    total = sum(sum(one.tokens.values()) * one.token_bytes for one in known)
    return f"{bounds.pop() if len(bounds) == 1 else 'about'} {size_text(total)}"


def domain_sizes(config: Namespace, name: str) -> SplitSizes | None:
    """Return the sizes of one domain, or None where nothing tells them before the text is read."""
    domain = config.data.domains[name]
    if not isinstance(domain, str):
        return None
    if not path_in(config.data.root, domain).exists():
        return planned_sizes(config, name) if config.data.root is not None else None
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
