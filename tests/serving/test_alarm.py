"""The alarm keeps its promise on prompts of the domains, sounds on others, and is that of its router."""

import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import entropy

from ir3de.compiling.router import compile_router
from ir3de.functional.surprise import Curves
from ir3de.routers import load_router
from ir3de.serving.alarm import Alarm
from ir3de.serving.artifact import read_compiled
from ir3de.serving.compiled import CompiledRouter
from tests.serving.alarms import NAMES, WORDS, new_prompts, router
from tests.serving.routers import saved


def _compiled(made, folder):
    made.save_pretrained(folder)
    return compile_router(str(folder))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return _compiled(router(), tmp_path_factory.mktemp("alarm") / "router")


@pytest.fixture(scope="module")
def alarm(folder):
    return Alarm.load(folder)


@pytest.fixture(scope="module")
def p_values(alarm):
    return np.array([alarm.check(ids_T).p_value for ids_T in new_prompts(700)])


@pytest.mark.parametrize("level", [0.01, 0.05, 0.2])
def test_false_alarms_are_as_rare_as_promised(p_values, level):
    tried, made_from = len(p_values), 600
    chance = np.sqrt(level * (1 - level) * (1 / tried + 1 / made_from))
    assert abs(np.mean(p_values <= level) - level) < 3 * chance


@pytest.mark.parametrize("length", [1, 3, 7, 20])
def test_false_alarms_are_as_rare_for_short_prompts(alarm, length):
    prompts = [ids_T[:length] for ids_T in new_prompts(700) if len(ids_T) >= length]
    rate = np.mean([alarm.check(ids_T).p_value <= 0.05 for ids_T in prompts])
    assert 0.02 <= rate <= 0.08


def test_it_sounds_on_what_no_expert_says(alarm):
    draw = np.random.default_rng(0)
    unseen = [draw.integers(WORDS - 60, WORDS, size=12) for _ in range(100)]
    anything = [draw.integers(0, WORDS, size=30) for _ in range(100)]
    assert np.mean([alarm.check(ids_T).p_value <= 0.01 for ids_T in unseen]) == 1
    assert np.mean([alarm.check(ids_T).p_value <= 0.05 for ids_T in anything]) > 0.95
    one = alarm.check(np.full(40, 3))  # a common word, and nothing else
    assert one.p_value <= 0.01
    assert one.excess > 4


def test_it_is_the_divergence_at_its_length(folder, alarm):
    """The microsecond form against the vectorised one, and SciPy's entropy."""
    files = read_compiled(folder)
    curves = Curves(*(files.array(f"alarm_{name}") for name in ("lengths", "mean", "deviation")))
    surprise_VE = files.array("alarm_surprise")[1:-1].astype(np.float64)
    for ids_T in new_prompts(20):
        read = ids_T[np.arange(alarm.longest) * len(ids_T) // alarm.longest] if len(ids_T) > alarm.longest else ids_T
        divergence_E = surprise_VE[read].mean(axis=0) - entropy(np.bincount(read))
        excess_E = curves.excess(divergence_E[None], np.array([len(read)]))[0]
        found = alarm.check(ids_T)
        assert found.excess == pytest.approx(excess_E.min())
        assert found.nearest == excess_E.argmin()
        assert found.tokens == len(read)


def test_any_integers_will_do(alarm):
    ids = [3, 5, 5, 7]
    found = alarm.check(np.array(ids))
    assert all(alarm.check(np.array(ids, dtype=kind)) == found for kind in ("i4", "u4", "u2", "u8"))
    long = np.tile(ids, 90)
    assert alarm.check(long.astype(np.uint32)) == alarm.check(long)
    assert alarm.check(long).tokens == alarm.longest


@pytest.mark.parametrize("ids", [[], [-1], [WORDS], [2, WORDS, 3] * 50])
def test_what_is_no_prompt_is_refused(alarm, ids):
    with pytest.raises(ValueError, match="Expected"):
        alarm.check(np.array(ids, dtype=np.int64))


def test_the_nearest_expert_is_mostly_the_prompts_own(alarm):
    nearest = np.array([alarm.check(ids_T).nearest for ids_T in new_prompts(100)])
    assert np.mean(nearest == np.repeat(np.arange(3), 100)) > 0.9


def test_the_smoothed_training_distribution_is_one(alarm):
    share_V = alarm.share_under(np.array([0.5, 0.5, 0.0]))
    assert share_V.sum() == pytest.approx(1, abs=1e-5)
    assert (share_V > 0).all()


def test_an_expert_that_came_and_went_leaves_no_trace(tmp_path, folder):
    made = router()
    made.add_expert("zoology", next(iter(made.statistics.shares.values())))
    made.remove_expert("zoology")
    assert _bytes(_compiled(made, tmp_path / "router")) == _bytes(folder)


def test_an_expert_with_few_sequences_is_named(tmp_path):
    alarm = Alarm.load(_compiled(router(few=2), tmp_path / "router"))
    assert alarm.config["uncalibrated"] == [NAMES[-1]]
    rate = np.mean([alarm.check(ids_T).p_value <= 0.05 for ids_T in new_prompts(300)])
    assert rate < 0.2


def test_there_is_none_without_validation_sequences(tmp_path):
    compiled = _compiled(router(validation=0), tmp_path / "router")
    assert not _bytes(compiled)
    with pytest.raises(FileNotFoundError, match="no alarm beside it"):
        Alarm.load(compiled)


def test_another_routers_alarm_is_refused(tmp_path, folder):
    other = compile_router(str(saved(tmp_path / "router", "majority")))
    source = CompiledRouter.load(other).config["source"]
    assert Alarm.load(other, source=source).config["source"] == source
    with pytest.raises(ValueError, match="compiled again while it was being read"):
        Alarm.load(folder, source=source)


def test_validation_sequences_are_kept_as_traffic(folder):
    traffic = Alarm.load(folder).usual_traffic()
    bags = [share.validation for share in load_router(folder.parent).statistics.shares.values()]
    assert traffic.prompts == sum(len(bag) for bag in bags)
    assert traffic.tokens == sum(len(bag.ids_M) for bag in bags)
    assert np.array_equal(
        traffic.tokens_GV.sum(axis=0), np.bincount(np.concatenate([bag.ids_M for bag in bags]), minlength=WORDS)
    )
    assert traffic.unusual_GE.sum() / traffic.prompts <= 0.06


def test_it_needs_numpy_alone(folder):
    code = (
        "import sys, numpy as np; from ir3de.serving.alarm import Alarm; import ir3de.serving.drift;"
        f" alarm = Alarm.load({str(folder)!r}); alarm.check(np.array([1, 2])); alarm.usual_traffic();"
        " print(sorted({'torch', 'transformers', 'scipy', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _bytes(folder):
    return {path.name: path.read_bytes() for path in folder.glob("alarm_*.npy")}
