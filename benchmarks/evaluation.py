"""How fast and how lean an expert's losses are computed, beside the plain evaluation that the published code makes.

    python benchmarks/evaluation.py [--preset 15e6] [--sequences 32]

The plain one: eager attention, logits of the whole batch, cross entropy in float32. Both run the same random Llama on
the same blocks of 1,024 tokens with 49,152 entries, each in a process of its own, in turns; the best of three rounds
counts. Peak memory is what the process needed above the loaded model. Ragged sequences (64 to 1,024 tokens) are padded
to 1,024 by the plain one, as published, and grouped by length by ours.
"""

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from lightning import Trainer
from rich.console import Console
from rich.table import Table
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, PreTrainedModel

from ir3de.experts.presets import llama_config
from ir3de.modules.expert_losses import ExpertLosses
from ir3de.modules.loss_shards import LossShards, shards_of
from ir3de.types import Batch

LENGTH, VOCAB, BATCH, ROUNDS = 1024, 49_152, 4, 3
ROOT = Path(__file__).resolve().parents[1]


class Blocks:
    """Random sequences in memory."""

    fingerprint = "random"

    def __init__(self, num_rows: int, *, ragged: bool) -> None:
        generator = np.random.default_rng(0)
        lengths = generator.integers(64, LENGTH + 1, num_rows) if ragged else np.full(num_rows, LENGTH)
        self.ids = torch.from_numpy(generator.integers(0, VOCAB, (num_rows, LENGTH)))
        self.mask = torch.arange(LENGTH) < torch.from_numpy(lengths)[:, None]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitems__(self, indices: list[int]) -> Batch:
        index = torch.tensor(indices)
        domain = torch.zeros_like(index)
        return {"input_ids": self.ids[index], "attention_mask": self.mask[index], "domain": domain, "index": index}


def plain(model: PreTrainedModel, blocks: Blocks) -> tuple[float, int]:
    """Sum the losses as the published code does, padding left out of them."""
    nll, tokens = 0.0, 0
    with torch.no_grad():
        for first in range(0, len(blocks), BATCH):
            batch = blocks.__getitems__(list(range(first, min(first + BATCH, len(blocks)))))
            ids, mask = batch["input_ids"].to(model.device), batch["attention_mask"].to(model.device)
            logits = model(input_ids=ids, attention_mask=mask.long(), use_cache=False).logits[:, :-1].float()
            loss = cross_entropy(logits.reshape(-1, VOCAB), ids[:, 1:].reshape(-1), reduction="none")
            real = mask[:, 1:].reshape(-1)
            nll += float(loss[real].double().sum())
            tokens += int(real.sum())
    return nll, tokens


def ours(model: PreTrainedModel, blocks: Blocks) -> tuple[float, int]:
    """Sum the losses as the loss table does."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shards = LossShards(Path(folder))
        batches = shards_of(blocks, batch_size=BATCH)
        module = ExpertLosses(model=model, name="expert", dataset=blocks, batches=batches, shards=shards)
        trainer = Trainer(
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            use_distributed_sampler=False,
        )
        trainer.predict(module, return_predictions=False)
        parts = shards.read()
    return sum(float(part.nll_N.sum()) for part in parts), sum(int(part.tokens_N.sum()) for part in parts)


def measure(how: str, preset: str, num_rows: int, dtype: str, ragged: bool) -> None:
    """Run one evaluation in this process and print seconds, peak memory and perplexity as JSON."""
    torch.manual_seed(0)
    config = llama_config(preset, vocab_size=VOCAB, context_length=LENGTH)
    attention = "eager" if how == "plain" else "sdpa"
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=getattr(torch, dtype)).eval()
    cuda = torch.cuda.is_available()
    if cuda:
        model = model.cuda()
    run = plain if how == "plain" else ours
    run(model, Blocks(BATCH, ragged=ragged))  # warm: kernels are chosen, threads are there
    blocks = Blocks(num_rows, ragged=ragged)
    before = reset_peak(cuda)
    start = time.perf_counter()
    nll, tokens = run(model, blocks)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "mib": (peak(cuda) - before) / 2**20, "perplexity": math.exp(nll / tokens),
                      "tokens": tokens}))  # fmt: skip


def reset_peak(cuda: bool) -> int:
    """Forget the peak so far, and return what is in use."""
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    return peak(False)


def peak(cuda: bool) -> int:
    """Return the most bytes that were in use since the last reset."""
    if cuda:
        return torch.cuda.max_memory_allocated()
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def main() -> None:
    """Measure in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="15e6")
    parser.add_argument("--sequences", type=int, default=32)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        how, dtype, ragged = given.one
        measure(how, given.preset, given.sequences, dtype, ragged == "ragged")
        return
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    table = Table(title=f"{given.preset}, {given.sequences} x {LENGTH} tokens, V = {VOCAB:,}, {device}")
    for name in ("sequences", "precision", "tokens/s plain", "ours", "ratio", "peak MiB plain", "ours", "share",
                 "perplexity, relative difference"):  # fmt: skip
        table.add_column(name, justify="right")
    for ragged in ("full", "ragged"):
        for dtype in ("float32", "bfloat16"):
            best: dict[str, dict[str, float]] = {}
            for _ in range(ROUNDS):
                for how in ("plain", "ours"):
                    command = [sys.executable, __file__, "--preset", given.preset, "--sequences", str(given.sequences)]
                    done = subprocess.run([*command, "--one", how, dtype, ragged], check=True, cwd=ROOT,
                                          capture_output=True, text=True)  # fmt: skip
                    found = json.loads(done.stdout.splitlines()[-1])
                    if how not in best or found["seconds"] < best[how]["seconds"]:
                        best[how] = found
            a, b = best["plain"], best["ours"]
            rates = [one["tokens"] / one["seconds"] for one in (a, b)]
            difference = abs(a["perplexity"] / b["perplexity"] - 1)
            table.add_row(ragged, dtype, f"{rates[0]:,.0f}", f"{rates[1]:,.0f}", f"{rates[1] / rates[0]:.2f}x",
                          f"{a['mib']:,.0f}", f"{b['mib']:,.0f}", f"{b['mib'] / a['mib']:.2f}",
                          f"{difference:.1e}")  # fmt: skip
    Console(width=170).print(table)


if __name__ == "__main__":
    main()
