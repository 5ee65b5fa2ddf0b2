"""Decisions of a compiled router in a process that has nothing else: prints microseconds and MiB as JSON.

    python benchmarks/compiled_alone.py FOLDER VOCAB_SIZE TOKENS

Started by ``many_experts.py``, whose own process has torch in memory. The MiB are what the process has more than before
it loaded the router; pages of memory-mapped tables that were read are in it.
"""

import json
import statistics
import sys
import time

import numpy as np
import psutil

from ir3de.serving import CompiledRouter

PROMPTS, ROUNDS = 300, 5


def main() -> None:
    """Load, decide and print."""
    folder, vocab_size, tokens = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    process = psutil.Process()
    before = process.memory_info().rss
    router = CompiledRouter.load(folder)
    prompts = np.random.default_rng(0).integers(vocab_size, size=(PROMPTS, tokens))
    taken = []
    for _ in range(ROUNDS):
        for ids_T in prompts:
            start = time.perf_counter()
            router.decide(ids_T)
            taken.append(time.perf_counter() - start)
    print(json.dumps({"µs": 1e6 * statistics.median(taken), "MiB": (process.memory_info().rss - before) / 2**20}))


if __name__ == "__main__":
    main()
