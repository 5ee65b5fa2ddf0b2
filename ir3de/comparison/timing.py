"""What a router costs: microseconds a decision, bytes, parameters, seconds to fit and to add an expert."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ir3de.pretrained.hidden_states import HiddenStates
from ir3de.routers import ClosedFormRouter, ReferenceRouter
from ir3de.routers.router import Router, pad_rows

PROMPTS = 100
SECONDS = 3.0  # of one measurement, after which no further prompt is timed
LEAST = 20
_WARM_UP = 3


@dataclass(frozen=True)
class Timing:
    """Microseconds of a decision, one prompt at a time, median and 99th percentile of ``prompts``."""

    p50: float
    p99: float
    prompts: int


@dataclass(frozen=True)
class Costs:
    """What a router costs; ``None`` where it does not apply.

    ``bytes_on_disk`` is the saved router's, and the encoder's weights where it has one. ``add_expert_seconds`` is from
    what was read of the new domain (counts, or vectors) to a router that routes to it; a gradient-trained router is
    fitted again.
    """

    num_parameters: int
    bytes_on_disk: int
    add_expert_seconds: float | None
    from_ids: Timing | None
    from_text: Timing | None


def measure_costs(router: Router, folder: Path, texts: Sequence[str], *, fit_seconds: float | None) -> Costs:
    """Return what a saved router in ``folder`` costs, timed on ``texts``."""
    tokenizer = router.tokenizer
    if isinstance(router, ReferenceRouter) or tokenizer is None:
        return Costs(0, 0, None, None, None)
    rows = [pad_rows([ids]) for ids in tokenizer.encode(list(texts)) if len(ids)]
    stored = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    features = router.features
    encoder = 4 * features.num_parameters if isinstance(features, HiddenStates) and router.reads_vectors else 0
    with torch.inference_mode():
        return Costs(
            router.num_parameters,
            stored + encoder,
            _add_expert_seconds(router) if isinstance(router, ClosedFormRouter) else fit_seconds,
            _time(lambda row: router.decide(*row), rows),
            _time(lambda text: router.route([text]), [text for text in texts if text.strip()]),
        )


def _add_expert_seconds(router: ClosedFormRouter[Any]) -> float | None:
    statistics = router.statistics
    assert statistics is not None, "a saved router is fitted"
    if len(statistics.names) < 3:
        return None
    name = statistics.names[-1]
    share = statistics.shares[name]
    router.remove_expert(name)
    began = time.perf_counter()
    router.add_expert(name, share)
    return time.perf_counter() - began


def _time(decide: Callable[[Any], object], prompts: Sequence[Any]) -> Timing:
    for prompt in prompts[:_WARM_UP]:
        decide(prompt)
    taken: list[float] = []
    began = time.perf_counter()
    for prompt in prompts:
        start = time.perf_counter_ns()
        decide(prompt)
        taken.append((time.perf_counter_ns() - start) / 1000)
        if len(taken) >= LEAST and time.perf_counter() - began > SECONDS:
            break
    p50, p99 = np.percentile(taken, [50, 99])
    return Timing(float(p50), float(p99), len(taken))
