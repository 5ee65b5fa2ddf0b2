"""The router's prompts: the questions' own texts as test data, and other text to train and validate on."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ir3de.data.corpus import text_hash
from ir3de.data.sources import Source, TextSource
from ir3de.data.splits import SPLITS
from ir3de.data.tables import source_from_path
from ir3de.files import replace_file
from ir3de.reasoning.benchmarks import Benchmark
from ir3de.reasoning.score_rows import distinct
from ir3de.reasoning.settings import KEY, Reasoning
from ir3de.reasoning.task_scores import questions


@dataclass(frozen=True)
class DomainPrompts:
    """A domain's prompts by split, and what is to be known of them.

    ``questions`` are asked; ``merged`` of them have the text of another one, ``respaced`` of these but for white space.
    ``left_out`` counts the texts that were not taken to fit on, by reason.
    """

    domain: str
    prompts: dict[str, list[str]]
    questions: int
    merged: int
    respaced: int
    left_out: Mapping[str, int]


def make_prompts(benchmarks: Mapping[str, Benchmark], settings: Reasoning) -> list[DomainPrompts]:
    """Return every domain's prompts.

    Raises:
        ValueError: if a domain has nothing to train on, or a source cannot be read.
    """
    asked = {
        name: [one.prompt(task, doc) for task, docs in questions(one, settings).items() for doc in docs]
        for name, one in benchmarks.items()
    }
    tests = {name: distinct(prompts, domain=name) for name, prompts in asked.items()}
    tested = {text_hash(prompt) for texts in tests.values() for prompt in texts.prompts}
    found = []
    for number, (name, benchmark) in enumerate(benchmarks.items()):
        train, validation, left_out = _to_fit(
            benchmark, settings, tested, np.random.default_rng([settings.seed, number])
        )
        texts = tests[name]
        found.append(
            DomainPrompts(
                name,
                {"train": train, "validation": validation, "test": texts.prompts},
                questions=len(texts.row_Q),
                merged=len(texts.row_Q) - len(texts.prompts),
                respaced=texts.respaced,
                left_out=left_out,
            )
        )
    return found


def _to_fit(
    benchmark: Benchmark, settings: Reasoning, tested: set[bytes], generator: np.random.Generator
) -> tuple[list[str], list[str], Mapping[str, int]]:
    """Return training and validation prompts of a domain, and how many texts were left out, by reason."""
    name, source = benchmark.domain, settings.training.get(benchmark.domain)
    left_out: Counter[str] = Counter()
    training = _training_splits(benchmark) if source is None else [_texts(source, left_out)]
    held_out = _validation_splits(benchmark) if source is None else []
    size = sum(len(part) for part in [*training, *held_out])
    seen: set[bytes] = set()
    training, held_out = ([_fresh(part, tested, seen, left_out) for part in parts] for parts in (training, held_out))
    if held_out:
        validation = _drawn(held_out, settings.validation_prompts, generator)
        train = _drawn(training, settings.prompts, generator)
    else:  # some of the training prompts, a fifth where there are few
        drawn = _drawn(training, settings.prompts + settings.validation_prompts, generator)
        first = min(settings.validation_prompts, len(drawn) // 5)
        validation, train = drawn[:first], drawn[first : first + settings.prompts]
    if not train or not validation:
        raise ValueError(
            f"Expected text to fit a router on for the domain `{name}`, but {len(train)} texts are left to train on and"
            f" {len(validation)} to validate on: of {size:,} texts, {reasons(left_out)} were left out."
            f" Set `{KEY}.training.{name}` to a larger source."
        )
    return train, validation, left_out


def reasons(left_out: Mapping[str, int]) -> str:
    """Return what was left out, in words."""
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(left_out.items())) or "none"


def write_prompts(folders: Mapping[str, Path], prompts: Sequence[DomainPrompts]) -> None:
    """Write ``{train,validation,test}.jsonl`` into each domain's folder, a row with its ``text`` for each prompt."""
    for one in prompts:
        for split in SPLITS:
            lines = "".join(json.dumps({"text": text}) + "\n" for text in one.prompts[split])
            replace_file(folders[one.domain] / f"{split}.jsonl", lines.encode())


def in_two_domains(prompts: Sequence[DomainPrompts]) -> dict[str, int]:
    """Count the test questions of each domain whose text is a question of another domain too."""
    texts = {one.domain: {text_hash(text) for text in one.prompts["test"]} for one in prompts}
    counts = {
        name: len(own & set().union(*(other for also, other in texts.items() if also != name)))
        for name, own in texts.items()
    }
    return {name: count for name, count in counts.items() if count}


def check_sources(settings: Reasoning) -> None:
    """Refuse sources that could not be read later, before anything long begins.

    Raises:
        FileNotFoundError: if a path leads nowhere.
        ValueError: if a source has no such field, or is no text.
    """
    for domain, given in settings.training.items():
        source = source_from_path(given) if isinstance(given, str) else given
        if not isinstance(source, TextSource):
            raise ValueError(
                f"Expected a source of text in `{KEY}.training.{domain}`, but got {type(source).__name__}."
            )
        try:
            source.check()
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"In `{KEY}.training.{domain}`: {error}") from error


def _texts(given: str | Source, left_out: Counter[str]) -> list[str]:
    """Return a source's texts, and count what it passed over itself."""
    source = source_from_path(given) if isinstance(given, str) else given
    assert isinstance(source, TextSource), "sources are checked before anything is read"
    texts = list(source.documents())
    left_out.update(source.left_out)
    return texts


def _training_splits(benchmark: Benchmark) -> list[list[str]]:
    parts = []
    for name, task in benchmark.tasks.items():
        if not task.has_training_docs():
            raise ValueError(
                f"The task `{name}` has no training questions, and a router must not be fitted on the ones that it is"
                f" tested on. Set `{KEY}.training.{benchmark.domain}` to a source of prompts of that kind."
            )
        parts.append([benchmark.prompt(name, doc) for doc in task.training_docs()])
    return parts


def _validation_splits(benchmark: Benchmark) -> list[list[str]]:
    """Return the validation questions of tasks that have them beside test questions."""
    parts = []
    for name, task in benchmark.tasks.items():
        if task.has_validation_docs() and task.has_test_docs():
            parts.append([benchmark.prompt(name, doc) for doc in task.validation_docs()])
    return parts


def _fresh(texts: Iterable[str], tested: set[bytes], seen: set[bytes], left_out: Counter[str]) -> list[str]:
    """Return the texts that are no test questions and were not seen, each once; count the others."""
    found = []
    for text in texts:
        key = text_hash(text)
        if not text.strip():
            left_out["empty texts"] += 1
        elif key in tested:
            left_out["test questions"] += 1
        elif key in seen:
            left_out["copies"] += 1
        else:
            seen.add(key)
            found.append(text)
    return found


def _drawn(parts: Sequence[Sequence[str]], limit: int, generator: np.random.Generator) -> list[str]:
    """Return at most ``limit`` texts, as many of each part as there are, in a random order."""
    orders = [generator.permutation(len(part)).tolist() for part in parts]
    rounds = max((len(part) for part in parts), default=0)
    in_turn = [
        part[order[i]] for i in range(rounds) for part, order in zip(parts, orders, strict=True) if i < len(part)
    ]
    chosen = in_turn[:limit]
    return [chosen[i] for i in generator.permutation(len(chosen)).tolist()]
