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


class Prompts:
    """Short prompts of some 9,000 tokens, which come in bursts, some of them much rarer than others."""

    def __init__(self, draw):
        size = 9_000
        common_V = 1 / np.arange(1, size + 1)
        ids = [draw.choice(size, size=draw.integers(2, 9), p=common_V / common_V.sum()) for _ in range(9_000)]
        self.ids = [np.concatenate([some, some[:2]]) for some in ids]
        self.vocab_size = size

    def share_under(self, expert_share_E):
        return np.full(self.vocab_size, 1 / self.vocab_size)

    def counts(self, draw, *, into=None):
        traffic = Traffic.none(vocab_size=self.vocab_size, expert_names=NAMES, identity="abc")
        for i in draw:
            ids_T = self.ids[i] if into is None else np.append(self.ids[i], into)
            traffic.count(ids_T, expert=i % 3, unusual=False)
        return traffic


@pytest.fixture(scope="module")
def short():
    return Prompts(np.random.default_rng(5))


@pytest.mark.parametrize(
    "sizes, draws", [((100, 100), 60), ((1_500, 150), 40), ((150, 6_000), 24), ((4_000, 4_000), 20)]
)
def test_samples_of_one_distribution_have_not_drifted_whatever_their_sizes(draw, short, sizes, draws):
    alarms = 0
    for _ in range(draws):
        order = draw.permutation(len(short.ids))[: sum(sizes)]
        found = compare(short.counts(order[: sizes[0]]), short.counts(order[sizes[0] :]), short)
        alarms += found.p_value <= 0.05
        assert found.telling == []
        assert found.by_chance == pytest.approx(found.distance, rel=0.2)
    assert alarms <= {60: 8, 40: 6, 24: 5, 20: 4}[draws]  # more once in 200


def test_a_new_token_is_named_and_no_other(draw, short):
    order = draw.permutation(len(short.ids))
    found = compare(short.counts(order[:4_000]), short.counts(order[4_000:4_200], into=8_999), short)
    assert found.p_value < 0.01
    assert [one.token for one in found.telling] == [8_999]
    one_prompt = short.counts(order[4_000:4_200])
    one_prompt.count(np.full(200, 8_999), expert=0, unusual=False)
    assert compare(short.counts(order[:4_000]), one_prompt, short).telling == []


@pytest.mark.parametrize("name", ["earlier", "live"])
def test_a_few_prompts_over_and_over_are_refused(draw, name):
    few = Traffic.none(vocab_size=WORDS, expert_names=NAMES, identity="abc")
    for i in range(150):
        few.count(np.full(9, i % 5), expert=0, unusual=False)
    other = count(draw, (50, 50, 50))
    both = (few, other) if name == "earlier" else (other, few)
    with pytest.raises(ValueError, match=f"Expected {name} prompts that differ.*the 150 are a few"):
        compare(*both, EvenAlarm())
