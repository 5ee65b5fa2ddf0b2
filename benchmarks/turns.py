"""Timing in turns, round after round: other programs of the machine slow down all that is compared in the same way."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Seconds = Callable[[Sequence[Any]], list[float]]


@dataclass(frozen=True)
class Run:
    """What is timed: ``seconds`` gives the seconds of each item; slow ones are run in one round of ``every``."""

    seconds: Seconds
    items: Sequence[Any]
    every: int = 1


def timed(function: Callable[[Any], object]) -> Seconds:
    """Return what gives the seconds of each call."""

    def run(items: Sequence[Any]) -> list[float]:
        clock, taken = time.perf_counter_ns, []
        for item in items:
            start = clock()
            function(item)
            taken.append((clock() - start) / 1e9)
        return taken

    return run


def in_turns(runs: dict[str, Run], rounds: int) -> dict[str, dict[str, float]]:
    """Return microseconds: the median over items of each item's best round, and percentiles of all calls."""
    taken: dict[str, list[list[float]]] = {name: [] for name in runs}
    draw = np.random.default_rng(0)
    for number in range(rounds):
        for name in draw.permutation(list(runs)).tolist():  # what one leaves in the caches is not always the same one's
            one = runs[name]
            if number % one.every == 0:
                taken[name].append(one.seconds(one.items))
    return {
        name: {
            "best": 1e6 * float(np.median(np.min(rows, axis=0))),
            "p50": 1e6 * float(np.median(rows)),
            "p99": 1e6 * float(np.percentile(rows, 99)),
            "calls": float(np.size(rows)),
        }
        for name, rows in taken.items()
    }
