"""How fast training rows are read and counted, beside Arrow merely reading the same file.

    python benchmarks/loader.py [--tokens 20000000]

Two domains of random ids, tokenized already, 1,024 to a row; one process. "Arrow to int64" maps the cached file and
converts all of its ids at once, which is the least that any loader of int64 batches does.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.console import Console
from rich.table import Table

from ir3de.data.datamodule import DomainDataModule
from ir3de.data.domain import Splits
from ir3de.data.tables import TokenizedParquet
from ir3de.functional.counts import add_token_counts_
from ir3de.pretrained.tokenizer import TextTokenizer

LENGTH, VOCAB = 1024, 32_000


def write_domain(folder: Path, num_tokens: int, seed: int) -> Splits:
    """Write Parquet files of random ids for each split, and return them as a domain."""
    generator = np.random.default_rng(seed)
    sizes = {"train": num_tokens, "validation": 8 * LENGTH, "test": 8 * LENGTH}
    for split, size in sizes.items():
        ids = generator.zipf(1.2, size=size).clip(max=VOCAB - 1).astype(np.int32)
        rows = pa.FixedSizeListArray.from_arrays(pa.array(ids[: size // LENGTH * LENGTH]), LENGTH)
        (folder / split).mkdir(parents=True)
        pq.write_table(pa.table({"input_ids": rows}), folder / split / "0.parquet")
    return Splits(*(TokenizedParquet(str(folder / split)) for split in sizes))


def save_tokenizer(folder: Path) -> None:
    """Save a tokenizer of as many entries as the ids need."""
    from tokenizers import Tokenizer, models  # noqa: PLC0415 - only this script makes one by hand

    vocabulary = {f"w{i}": i for i in range(VOCAB)}
    TextTokenizer(Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))).save(folder)


def rate(num_tokens: int, run: Callable[[], object], repeats: int = 5) -> float:
    """Return millions of tokens per second, the best of some repeats."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return num_tokens / best / 1e6


def main() -> None:
    """Prepare the data, measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=20_000_000, help="training tokens of each domain")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        domains = {name: write_domain(folder / name, arguments.tokens, i) for i, name in enumerate(("a", "b"))}
        save_tokenizer(folder / "tokenizer")
        table = Table(title=f"{2 * arguments.tokens:,} training tokens, one process, million tokens per second")
        for column in ("batch", "Arrow to int64", "loader", "loader + counting", "share of Arrow"):
            table.add_column(column, justify="right")
        for batch_size in (16, 64, 512):
            data = DomainDataModule(
                domains=dict(domains),
                tokenizer=str(folder / "tokenizer"),
                block_length=LENGTH,
                batch_size=batch_size,
                shuffle=False,
                cache_dir=str(folder / "cache"),
            )
            data.prepare_data()
            rows = data.router_rows("train")
            num_tokens = len(rows) * LENGTH
            files = [file.path for file in rows._files]

            def read(files: list[Path] = files) -> None:
                for path in files:
                    column = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0).column("input_ids")
                    column.values.to_numpy(zero_copy_only=True).astype(np.int64)

            def load(data: DomainDataModule = data) -> None:
                for _ in data.train_dataloader():
                    pass

            def count(data: DomainDataModule = data) -> None:
                counts_EV = torch.zeros(2, VOCAB, dtype=torch.int64)
                for batch in data.train_dataloader():
                    add_token_counts_(counts_EV, batch["input_ids"], batch["attention_mask"], batch["domain"])

            arrow, loader, counting = (rate(num_tokens, run) for run in (read, load, count))
            table.add_row(str(batch_size), *(f"{r:.0f}" for r in (arrow, loader, counting)), f"{counting / arrow:.0%}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
