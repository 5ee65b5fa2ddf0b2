"""Time, memory and size of a router against the number of its experts, up to 10,000 over a 128k vocabulary.

    python benchmarks/many_experts.py [--experts 5 100 1000 10000]

Each expert has 20,000 tokens, Zipf over the vocabulary in an order of its own, and no validation data. Each number of
experts is measured in a process of its own: fit (counting not included), save, load, and one decision on a prompt of
256 tokens, in the median of 300, by the router and by its compiled form, which is in a process without anything else. A
decision's ratio is to the first number of experts.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, models

from ir3de.compiling.router import compile_router
from ir3de.pretrained.tokenizer import TextTokenizer
from ir3de.routers import Embeddings, RidgeRouter, load_router
from ir3de.statistics.token_counts import DomainCounts, TokenCounts

VOCAB, TOKENS, LENGTH = 128_256, 20_000, 256
SELECTORS = ("majority", "entropy_top_k", "mean")


def make_counts(num_experts: int, tokenizer: str) -> TokenCounts:
    """Return the counts of experts whose tokens are Zipf over the vocabulary, each in an order of its own."""
    p_V = 1 / (np.arange(VOCAB) + 2.7)
    edges_V = np.cumsum(p_V / p_V.sum())
    shares = {}
    for expert in range(num_experts):
        generator = np.random.default_rng(expert)
        order_V = generator.permutation(VOCAB)
        ids = order_V[np.searchsorted(edges_V, generator.random(TOKENS)).clip(max=VOCAB - 1)]
        shares[f"expert {expert:05}"] = DomainCounts.from_dense(np.bincount(ids, minlength=VOCAB))
    return TokenCounts.of(shares, vocab_size=VOCAB, tokenizer=tokenizer)


def put_selector(router: RidgeRouter, selector: str) -> None:
    """Let the router select so."""
    router.put(router.chosen() | {"selector": selector, "k": 50 if selector == "entropy_top_k" else None})


def decision_us(decide: Callable[[torch.Tensor], object], repeats: int = 300) -> float:
    """Return the median microseconds of one decision on one prompt of token ids."""
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(VOCAB, (1, LENGTH), generator=generator) for _ in range(repeats)]
    times = []
    for ids_BT in prompts:
        start = time.perf_counter()
        decide(ids_BT)
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times)


def compiled_alone(router: RidgeRouter, selector: str, folder: Path) -> dict[str, float]:
    """Return the median microseconds of a decision by the compiled router, and the MiB that it takes."""
    put_selector(router, selector)
    router.save_pretrained(folder)
    command = [sys.executable, str(Path(__file__).with_name("compiled_alone.py")), str(compile_router(str(folder)))]
    done = subprocess.run([*command, str(VOCAB), str(LENGTH)], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return {f"compiled {selector} {unit}": value for unit, value in found.items()}


def measure(num_experts: int, dim: int) -> dict[str, float]:
    """Fit, save, load and route with so many experts."""
    torch.set_num_threads(1)
    tokenizer = TextTokenizer(Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCAB)}, unk_token="w0")))
    table_VD = 0.1 * torch.randn(VOCAB, dim, generator=torch.Generator().manual_seed(1))
    counts = make_counts(num_experts, tokenizer.fingerprint)
    router = RidgeRouter(embeddings=Embeddings("random", tokenizer, table_VD), selector="majority")
    result: dict[str, float] = {}

    start = time.perf_counter()
    router.fit(counts)
    result["fit s"] = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        router.save_pretrained(folder)
        result["save s"] = time.perf_counter() - start
        sizes = {path.name.split("-")[0]: path.stat().st_size / 2**20 for path in Path(folder).iterdir()}
        result |= {"statistics MiB": sizes["statistics"], "router MiB": sizes["router"]}
        del router, counts
        start = time.perf_counter()
        loaded = load_router(folder)
        result["load s"] = time.perf_counter() - start
    assert isinstance(loaded, RidgeRouter)
    mask_BT = torch.ones(1, LENGTH, dtype=torch.bool)
    for name in SELECTORS:
        put_selector(loaded, name)
        result[f"{name} µs"] = decision_us(lambda ids_BT: loaded.decide(ids_BT, mask_BT))
        with tempfile.TemporaryDirectory() as folder:
            result |= compiled_alone(loaded, name, Path(folder))
    result["peak GiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return result


def of_compiled(name: str) -> bool:
    """Return whether a figure is the compiled router's."""
    return name.startswith("compiled ")


def show(title: str, result: dict[str, dict[str, float]]) -> None:
    """Print one table; a decision's ratio is to the first row."""
    first = next(iter(result.values()))
    table = Table(title=title)
    for name in ("experts", *first):
        table.add_column(name.removeprefix("compiled "), justify="right")
    for experts, row in result.items():
        cells = [f"{v:.4g} ({v / first[n]:.2f}x)" if n.endswith("µs") else f"{v:.3g}" for n, v in row.items()]
        table.add_row(f"{int(experts):,}", *cells)
    Console(width=150).print(table)


def main() -> None:
    """Measure every number of experts, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", type=int, nargs="+", default=[5, 100, 1_000, 10_000])
    parser.add_argument("--dim", type=int, default=256, help="features of the embedding table")
    parser.add_argument("--one", action="store_true", help="measure in this process, and print JSON")
    parser.add_argument("--json", type=Path, help="write every number here")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.experts[0], arguments.dim)))
        return
    result: dict[str, dict[str, float]] = {}
    for experts in arguments.experts:
        command = [sys.executable, __file__, "--one", "--experts", str(experts), "--dim", str(arguments.dim)]
        result[str(experts)] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    facts = f"V = {VOCAB:,}, d = {arguments.dim}, {TOKENS:,} tokens an expert, one thread"
    show(f"the router: {facts}", {k: {n: v for n, v in row.items() if not of_compiled(n)} for k, row in result.items()})
    show("the compiled router", {k: {n: v for n, v in row.items() if of_compiled(n)} for k, row in result.items()})
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
