"""Counts of prompts as they should be, and files of them as they are."""

import numpy as np

from ir3de.serving import CompiledRouter
from ir3de.serving.alarm import Alarm
from ir3de.serving.traffic import USUAL, Traffic


def expected(saved_router, prompts):
    """Count prompts by the router and the alarm beside it, apart from each other."""
    compiled, alarm = CompiledRouter.load(saved_router / "compiled"), Alarm.load(saved_router / "compiled")
    traffic = Traffic.none(
        vocab_size=alarm.config["vocab_size"], expert_names=compiled.expert_names, identity=compiled.identity
    )
    for ids_T in prompts:
        traffic.count(ids_T, expert=compiled.decide(ids_T), unusual=alarm.check(ids_T).p_value < USUAL)
    return traffic


def only_file(folder):
    (path,) = folder.glob("*.npz")
    return path


def same(one, other):
    return one.identity == other.identity and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("tokens_GV", "prompts_GE", "unusual_GE")
    )


def counted(traffic, folder, router, prompts):
    for ids_T in prompts:
        traffic.count(str(folder), router, ids_T, router.route(ids_T))


def fails(*_):
    """Raise what is neither damage nor a disk's fault."""
    raise RuntimeError("as nobody foresaw")
