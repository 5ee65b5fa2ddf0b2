"""Timing in turns, round after round: other programs of the machine slow down all that is compared in the same way."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Seconds = Callable[[Sequence[Any]], list[float]]
Numbers = dict[str, Any]


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


def in_turns(runs: dict[str, Run], rounds: int) -> dict[str, Numbers]:
    """Return microseconds: the median over items of each item's best round, and percentiles of all calls.

    The best of more rounds is lower. So ``beside`` has, for each run of fewer rounds, the best over those that both
    have: see ``bests``.
    """
    taken: dict[str, dict[int, list[float]]] = {name: {} for name in runs}
    draw = np.random.default_rng(0)
    for number in range(rounds):
        for name in draw.permutation(list(runs)).tolist():  # what one leaves in the caches is not always the same one's
            one = runs[name]
            if number % one.every == 0:
                taken[name][number] = one.seconds(one.items)
    return {name: summary(by_round) | {"beside": _beside(name, taken)} for name, by_round in taken.items()}


def summary(by_round: dict[int, list[float]]) -> Numbers:
    """Return the microseconds of a run whose seconds are given, item by item, of each round."""
    rows = list(by_round.values())
    return {
        "best": _best(rows),
        "p50": 1e6 * float(np.median(rows)),
        "p99": 1e6 * float(np.percentile(rows, 99)),
        "calls": float(np.size(rows)),
    }


def bests(one: str, other: str, found: dict[str, Numbers]) -> tuple[float, float]:
    """Return the best microseconds of two runs, over the rounds that both have."""
    a, b = found[one], found[other]
    return a["beside"].get(other, a["best"]), b["beside"].get(one, b["best"])


def _beside(name: str, taken: dict[str, dict[int, list[float]]]) -> dict[str, float]:
    mine, found = taken[name], {}
    for other, theirs in taken.items():
        both = [number for number in mine if number in theirs]
        if len(both) < len(mine):
            found[other] = _best([mine[number] for number in both])
    return found


def _best(rows: list[list[float]]) -> float:
    return 1e6 * float(np.median(np.min(rows, axis=0)))
