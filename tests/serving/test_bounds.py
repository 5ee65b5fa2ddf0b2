"""A prompt goes to none of the experts if it is unusual for all of them, or if it is not known for which it is."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ir3de.compiling.router import compile_router
from ir3de.serving import CompiledRouter, Window
from ir3de.serving.alarm import Alarm
from ir3de.serving.bounds import Bounds
from tests.serving.alarms import NAMES, WORDS, new_prompts, router, saved_with_alarm
from tests.serving.routers import saved

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return saved_with_alarm(tmp_path_factory.mktemp("bounds") / "router") / "compiled"


@pytest.fixture(scope="module")
def prompts():
    """Return usual prompts, and some of words that no expert says."""
    draw = np.random.default_rng(0)
    return new_prompts(60) + [draw.integers(WORDS - 60, WORDS, size=int(draw.integers(1, 30))) for _ in range(20)]


@pytest.mark.parametrize("fallback", [None, "law"])
@pytest.mark.parametrize("threshold", [None, 0.9])
@pytest.mark.parametrize("level", [None, 0.0, 0.05, 0.3])
def test_who_gets_a_prompt(folder, prompts, level, threshold, fallback):
    """Against the alarm beside the router, and the confidence of a router without bounds."""
    if not level and threshold is None:
        fallback = None
    alarm, plain = Alarm.load(folder), CompiledRouter.load(folder)
    bounded = CompiledRouter.load(folder, alarm=level, threshold=threshold, fallback=fallback)
    seen = set()
    for ids_T in prompts:
        found, usual = bounded.route(ids_T), plain.route(ids_T)
        p_value = alarm.check(ids_T).p_value
        because = None
        if threshold is not None and usual.confidence < threshold:
            because = "unsure"
        if level is not None and p_value <= level:
            because = "unusual"
        seen.add(because)
        assert found.none_because == because
        assert found.expert == (usual.expert if because is None else fallback)
        assert found.p_value == (None if level is None else p_value)
        assert (found.expert_index, found.confidence) == (usual.expert_index, usual.confidence)
        assert np.array_equal(found.scores, usual.scores)
        assert (usual.p_value, usual.none_because) == (None, None)
    expected = {None} | ({"unsure"} if threshold else set()) | ({"unusual"} if level else set())
    assert seen == expected, "the prompts are of every kind"


@pytest.mark.parametrize("window", [Window("first", 4, "tokens"), Window("ends", 12, "tokens")])
def test_as_unusual_as_what_a_window_leaves(folder, prompts, window):
    alarm, windowed = Alarm.load(folder), CompiledRouter.load(folder, alarm=0.05, window=window)
    for ids_T in prompts:
        assert windowed.route(ids_T).p_value == alarm.check(windowed.read(ids_T).ids_T).p_value


def test_the_fast_calls_know_of_no_alarm(folder, prompts):
    plain, bounded = CompiledRouter.load(folder), CompiledRouter.load(folder, alarm=0.5)
    assert [bounded.decide(ids_T) for ids_T in prompts] == [plain.decide(ids_T) for ids_T in prompts]


@pytest.mark.parametrize("bounds, message", [
    ({"alarm": 1.0}, "at least 0 and below 1, but got 1.0"),
    ({"alarm": -0.01}, "at least 0 and below 1"),
    ({"alarm": float("nan")}, "at least 0 and below 1"),
    ({"threshold": float("nan")}, "from 0 to 1"),
    ({"fallback": "law"}, "Give a threshold, or an alarm above 0"),
    ({"fallback": "law", "alarm": 0.0}, "Give a threshold, or an alarm above 0"),
])  # fmt: skip
def test_bounds_are_checked_before_anything_is_read(bounds, message):
    with pytest.raises(ValueError, match=message):
        Bounds(**bounds)
    with pytest.raises(ValueError, match=message):
        CompiledRouter.load("/nowhere", **bounds)


def test_an_alarm_that_is_not_there_is_missed_and_said(tmp_path):
    compiled = compile_router(str(saved(tmp_path / "router", "majority", validation=0)))
    for level in (0.0, 0.05):
        with pytest.raises(FileNotFoundError, match=r"no alarm beside it.*at least 5 sequences"):
            CompiledRouter.load(compiled, alarm=level)
    assert CompiledRouter.load(compiled).route([1, 2]).p_value is None


def test_a_level_that_no_p_value_has_is_refused_and_one_that_some_have_not_is_told(tmp_path):
    """The lowest that prompts have, of which some are as unusual as can be, is what the sentences say."""
    made = router(validation=150, few=40)
    made.save_pretrained(tmp_path / "router")
    compiled = compile_router(str(tmp_path / "router"))
    unseen = [np.arange(WORDS - 30, WORDS - 1), np.array([3] * 50), *new_prompts(100)]
    lowest = {}
    for found in (Alarm.load(compiled).check(ids_T) for ids_T in unseen):
        lowest[found.nearest] = min(found.p_value, lowest.get(found.nearest, 1.0))
    low, high = min(lowest.values()), max(lowest.values())
    assert CompiledRouter.load(compiled, alarm=0.0).deaf is None
    assert CompiledRouter.load(compiled, alarm=high).deaf is None
    with pytest.raises(ValueError, match=f"the lowest is {low:.3g}"):
        CompiledRouter.load(compiled, alarm=low * 0.99)
    deaf = CompiledRouter.load(compiled, alarm=low).deaf
    assert deaf is not None
    for expert, value in lowest.items():
        assert (f"{NAMES[expert]} ({value:.3g})" in deaf) == (value > low)


def test_a_fallback_is_one_of_the_experts(folder):
    assert CompiledRouter.load(folder, alarm=0.05, fallback="law").expert_names == NAMES
    with pytest.raises(ValueError, match="the fallback to be one of"):
        CompiledRouter.load(folder, alarm=0.05, fallback="poetry")


def test_the_alarm_loads_neither_torch_nor_transformers(folder):
    code = (
        "import sys; from ir3de.route_command import route;"
        f" status = route(['--router', {str(folder.parent)!r}, '--alarm', '0.05', 'w1 w2', 'w190 w191 w192']);"
        " print(status, sorted({'torch', 'transformers', 'lightning', 'scipy', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
