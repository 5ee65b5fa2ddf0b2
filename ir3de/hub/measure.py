"""Rates of this machine, measured in a second or two each, through the code that does the work."""

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as arrow_parquet
import torch
from transformers import LlamaConfig, LlamaModel

from ir3de.data.shards import Shard, count
from ir3de.functional.counts import SparseCounts
from ir3de.functional.ridge import ROWS_PER_CHUNK, gram_from_counts, solve_ridge
from ir3de.pretrained.tokenizer import TextTokenizer

SECONDS = 0.5  # of each measurement, at least
_FEATURES_AT_MOST = 1024  # a Gram matrix of more takes too long to try
_SEQUENCES = {"cpu": (1, 512), "cuda": (16, 512)}


def counting_rate(vocabulary: int) -> float:
    """Return the tokens that are read from a Parquet file and counted a second, on one process."""
    ids_M = (np.random.default_rng(0).zipf(1.2, size=1 << 20) % vocabulary).astype(np.int32)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(ids_M), 1024).cast(pa.list_(pa.int32()))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tokens.parquet"
        arrow_parquet.write_table(pa.table({"input_ids": lists}), path, row_group_size=256)
        groups = arrow_parquet.read_metadata(path).num_row_groups
        shard = Shard(0, path, 0, groups, key="", field="input_ids")
        return len(ids_M) / _seconds(lambda: count(shard, vocabulary))


def ridge_seconds(vocabulary: int, hidden: int, experts: int) -> float:
    """Return the seconds of Gram matrix and solve for a table ``(vocabulary, hidden)``, scaled from a part of it."""
    rows, features = min(vocabulary, ROWS_PER_CHUNK), min(hidden, _FEATURES_AT_MOST)
    table_VD = torch.randn(rows, features, generator=torch.Generator().manual_seed(0))
    ids_S = np.arange(rows, dtype=np.int32)
    counts = SparseCounts([ids_S] * experts, [np.ones(rows, dtype=np.int64)] * experts, rows)
    weights_E = torch.ones(experts, dtype=torch.float64)
    sums = gram_from_counts(table_VD, counts, weights_E)
    gram = _seconds(lambda: gram_from_counts(table_VD, counts, weights_E))
    solve = _seconds(lambda: solve_ridge(*sums, 1e-2))
    wider = hidden / features
    return gram * vocabulary / rows * wider**2 + solve * wider**3


def forward_rate(
    hidden: int, dtype: torch.dtype, device: torch.device, *, shape: tuple[int, int] | None = None
) -> float:
    """Return the operations a second of two layers of a Llama, counted as ``2 · parameters · tokens``.

    ``shape`` is that of the ids of a pass, by default of whole sequences; a token of each is as answers are written. A
    model wider than 1,024 features is measured at that width: it reaches as much, or more.
    """
    width = min(hidden, _FEATURES_AT_MOST)
    heads = max(width // 64, 1)
    config = LlamaConfig(
        vocab_size=64, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=2, num_attention_heads=heads,
        num_key_value_heads=heads, head_dim=max(width // heads, 2),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        model: Any = LlamaModel(config).eval()
    model = model.to(device, dtype)
    ids_BT = torch.zeros(shape or _SEQUENCES[device.type], dtype=torch.int64, device=device)
    parameters = sum(parameter.numel() for parameter in model.layers.parameters())

    def run() -> None:
        with torch.inference_mode():
            model(ids_BT)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return 2 * parameters * ids_BT.numel() / _seconds(run)


def tokenizing_rate(tokenizer: TextTokenizer, text: str) -> float:
    """Return the tokens that one call makes a second of ``text``, on all cores."""
    texts = [text[first : first + 2000] for first in range(0, len(text), 2000)]
    return sum(len(ids) for ids in tokenizer.encode(texts)) / _seconds(lambda: tokenizer.encode(texts))


def _seconds(work: Callable[[], object]) -> float:
    """Return the mean seconds of several calls, after one that warms up."""
    work()
    spent, calls = 0.0, 0
    start = time.perf_counter()
    while spent < SECONDS:
        work()
        calls += 1
        spent = time.perf_counter() - start
    return spent / calls
