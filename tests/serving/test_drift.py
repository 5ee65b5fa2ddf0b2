"""What is found of a change follows from the prompts that there were: none and few of them say little."""

import numpy as np
import pytest

from ir3de.serving.drift import compare
from ir3de.serving.traffic import Traffic

NAMES, WORDS = ("code", "law", "maths"), 50


class EvenAlarm:
    """An alarm whose training counts are the same for all tokens."""

    def share_under(self, expert_share_E):
        return np.full(WORDS, 1 / WORDS)


@pytest.fixture
def draw():
    return np.random.default_rng(3)


def count(draw, prompts, *, unusual=0.05, into=None):
    """Count new prompts, so many of each expert, a share of them unusual."""
    traffic = Traffic.none(vocab_size=WORDS, expert_names=NAMES, identity="abc") if into is None else into
    rates = np.broadcast_to(unusual, len(NAMES))
    for expert, number in enumerate(prompts):
        for _ in range(number):
            traffic.count(draw.integers(0, WORDS, size=9), expert=expert, unusual=bool(draw.random() < rates[expert]))
    return traffic


def compared(earlier, live):
    return {one.expert: one for one in compare(earlier, live, EvenAlarm()).experts}


def test_no_prompts_of_an_expert_say_nothing_of_its_unusual_ones(draw):
    found = compared(count(draw, (200, 200, 200), unusual=0.1), count(draw, (150, 0, 60), unusual=0.1))
    assert found["law"].unusual[1] is None
    assert found["law"].unusual[0] > 0.05
    assert found["law"].unusual_p_value == 1
    assert found["law"].share_p_value < 0.01  # but there being none is a change
    other_way = compared(count(draw, (150, 0, 60)), count(draw, (200, 200, 200), unusual=(0.05, 1.0, 0.05)))
    assert other_way["law"].unusual == (None, 1)
    assert other_way["law"].unusual_p_value == 1


@pytest.mark.parametrize("live", [(80, 40, 1), (80, 60, 2), (90, 40, 5), (400, 300, 12)])
@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_few_prompts_of_an_expert_are_no_false_alarm(draw, live, rate):
    alarms = 0
    for _ in range(60):
        found = compared(count(draw, (200, 200, 200), unusual=rate), count(draw, live, unusual=rate))
        alarms += min(one.unusual_p_value for one in found.values()) <= 0.05
    assert alarms <= 8  # 3 of 60 on average; more than 8 once in 300


def test_few_prompts_of_an_expert_are_not_mistaken_for_a_change_of_the_mix(draw):
    earlier = count(draw, (300, 300, 2))
    assert compared(earlier, count(draw, (100, 100, 0)))["maths"].share_p_value > 0.5
    assert compared(earlier, count(draw, (100, 100, 60)))["maths"].share_p_value < 0.01


def test_a_change_of_what_an_expert_is_asked_is_found(draw):
    found = compared(count(draw, (200, 200, 200)), count(draw, (100, 100, 100), unusual=(0.05, 0.05, 0.35)))
    assert found["maths"].unusual_p_value < 0.01
    assert found["code"].unusual_p_value > 0.05
    few = compared(count(draw, (200, 200, 200)), count(draw, (100, 100, 9), unusual=(0.05, 0.05, 1.0)))
    assert few["maths"].unusual_p_value < 0.01  # nine of nine are enough


def test_one_prompt_that_comes_again_and_again_is_chance(draw):
    live = count(draw, (100, 100, 12), unusual=0.0)
    for _ in range(300):
        live.count(np.arange(9), expert=2, unusual=True)
    found = compared(count(draw, (200, 200, 200)), live)
    assert found["maths"].unusual[1] > 0.9
    assert found["maths"].unusual_p_value > 0.05


@pytest.mark.parametrize("name", ["earlier", "live"])
def test_a_few_prompts_over_and_over_are_refused(draw, name):
    few = Traffic.none(vocab_size=WORDS, expert_names=NAMES, identity="abc")
    for i in range(150):
        few.count(np.full(9, i % 5), expert=0, unusual=False)
    other = count(draw, (50, 50, 50))
    both = (few, other) if name == "earlier" else (other, few)
    with pytest.raises(ValueError, match=f"Expected {name} prompts that differ.*the 150 are a few"):
        compare(*both, EvenAlarm())
