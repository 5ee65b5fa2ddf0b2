"""How fast a fit reads and counts tokenized Parquet, beside pyarrow merely reading the same files.

    python benchmarks/loader.py [--tokens 50000000]

Three domains of Zipf ids with the columns `input_ids` and `label`, 1,024 tokens to a row. The first line is pyarrow's
`read_table` of the training files' `input_ids`; the others the training epoch of the whole `fit` command: Lightning's
loop over the data module's loader, counting, the content's hash, and the journal. Process start and solve stand apart.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml  # type: ignore[import-untyped]
from rich.console import Console
from rich.table import Table
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models

from ir3de.pretrained.tokenizer import TextTokenizer

LENGTH, VOCAB, DIM, DOMAINS = 1024, 128_256, 64, ("a", "b", "c")
ROOT = Path(__file__).resolve().parents[1]
MEASURED = """
import sys, time
import callbacks
from callbacks import FitRouter
from ir3de.cli import main
start, fit = FitRouter.on_train_epoch_start, FitRouter._fit
def begin(*arguments):
    global began
    start(*arguments)
    began = time.perf_counter()
def end(self, *arguments):
    if self._pending is not None:
        print("epoch", time.perf_counter() - began)
        before = time.perf_counter()
        fit(self, *arguments)
        print("solve", time.perf_counter() - before)
FitRouter.on_train_epoch_start, FitRouter._fit = begin, end
main(sys.argv[1:])
"""


def write_data(folder: Path, num_tokens: int) -> None:
    """Write the domains' Parquet files, a tokenizer with an embedding table, and a config."""
    generator = np.random.default_rng(0)
    edges_V = np.cumsum(1 / (np.arange(VOCAB) + 2.7))
    domains = {}
    for name in DOMAINS:
        order_V = generator.permutation(VOCAB).astype(np.int32)
        for split, rows in (("train", num_tokens // LENGTH // len(DOMAINS)), ("validation", 8), ("test", 8)):
            drawn = np.searchsorted(edges_V, edges_V[-1] * generator.random(rows * LENGTH)).clip(max=VOCAB - 1)
            lists = pa.ListArray.from_arrays(
                pa.array(np.arange(0, rows * LENGTH + 1, LENGTH, dtype=np.int32)), order_V[drawn]
            )
            (folder / name / split).mkdir(parents=True)
            columns = {"input_ids": lists, "label": lists}
            pq.write_table(pa.table(columns), folder / name / split / "0.parquet", row_group_size=4096)
        parts = ("train", "validation", "test")
        source = {"class_path": "ir3de.data.tables.TokenizedParquet"}
        domains[name] = {
            part: source | {"init_args": {"path": str(folder / name / part), "as_is": True}} for part in parts
        }
    words = {f"w{i}": i for i in range(VOCAB)}
    TextTokenizer(Tokenizer(models.WordLevel(words, unk_token="w0"))).save(folder / "model")
    table = generator.standard_normal((VOCAB, DIM), dtype=np.float32)
    save_file({"model.embed_tokens.weight": table}, folder / "model" / "model.safetensors")
    router = {"class_path": "RidgeRouter", "init_args": {"embeddings": str(folder / "model"), "selector": "mean"}}
    config = {
        "name": "speed",
        "seed_everything": 0,
        "data": {"domains": domains, "tokenizer": str(folder / "model")},
        "model": {"router": router},
        "trainer": str(ROOT / "configs/trainer/router.yaml"),
    }
    (folder / "speed.yaml").write_text(yaml.safe_dump(config))


def read_seconds(folder: Path) -> float:
    """Return the seconds that pyarrow takes to read the token ids of all training files, with all its threads."""
    start = time.perf_counter()
    for name in DOMAINS:
        pq.read_table(folder / name / "train" / "0.parquet", columns=["input_ids"])
    return time.perf_counter() - start


def fit_seconds(folder: Path, number: int, workers: int) -> tuple[float, float, float]:
    """Return the seconds of the training epoch, of the solve, and of everything else of one ``fit`` command."""
    config, cache = str(folder / "speed.yaml"), str(folder / f"cache{number}")
    given = ["--config", config, "--data.cache_dir", cache, "--data.num_workers", str(workers)]
    start = time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-c", MEASURED, "fit", *given, "--trainer.accelerator", "cpu"],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=folder, check=True, capture_output=True, text=True,
    )  # fmt: skip
    whole = time.perf_counter() - start
    found = {
        line.split()[0]: float(line.split()[1]) for line in run.stdout.splitlines() if line[:5] in ("epoch", "solve")
    }
    return found["epoch"], found["solve"], whole - found["epoch"] - found["solve"]


def main() -> None:
    """Write the data, measure both sides in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=50_000_000, help="training tokens of all domains")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_data(folder, arguments.tokens)
        table = Table(title=f"{arguments.tokens:,} tokens; medians of {arguments.repeats}")
        for column in ("", "seconds", "M tokens/s", "times pyarrow", "solve s", "start and the rest s"):
            table.add_column(column, justify="left" if not column else "right")
        read_seconds(folder)  # the files are in the page cache for both sides
        rows: dict[str, list[tuple[float, float, float]]] = {}
        for number in range(arguments.repeats):
            rows.setdefault("pyarrow reads", []).append((read_seconds(folder), 0.0, 0.0))
            for workers in (0, 2):
                measured = fit_seconds(folder, 10 * number + workers, workers)
                rows.setdefault(f"fit, {workers} workers", []).append(measured)
        reading = statistics.median(row[0] for row in rows["pyarrow reads"])
        for name, repeats in rows.items():
            epoch, solve, rest = (statistics.median(column) for column in zip(*repeats, strict=True))
            cells = [f"{epoch:.2f}", f"{arguments.tokens / epoch / 1e6:.0f}", f"{epoch / reading:.2f}"]
            table.add_row(name, *cells, f"{solve:.2f}", f"{rest:.1f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
