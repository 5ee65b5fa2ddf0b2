"""Confidence is the share of right decisions, also after an expert was added or removed, and after reload."""

from functools import cache

import numpy as np
import pytest

from ir3de.compiling import calibrate as calibrating
from ir3de.compiling.calibrate import fit_calibration, reliability
from ir3de.compiling.router import compile_router
from ir3de.functional.calibration import Calibration
from ir3de.routers import NaiveBayesRouter, RidgeRouter, load_closed_form
from ir3de.serving import CompiledRouter
from ir3de.serving.artifact import read_config
from tests.helpers.counts import share, statistics
from tests.helpers.text import embeddings, word_tokenizer

WORDS = 80
NAMES = ("a", "b", "c", "d")


@cache
def domain(seed, *, sequences, draws):
    """Return a domain's word probabilities and sequences of 1 to 40 words, some of them hard to tell."""
    p_V = np.random.default_rng(seed).random(WORDS) ** 2 + 0.1
    p_V /= p_V.sum()
    draw = np.random.default_rng(draws)
    return p_V, [draw.choice(WORDS, size=int(draw.integers(1, 41)), p=p_V) for _ in range(sequences)]


def made_share(seed):
    p_V, validation = domain(seed, sequences=400, draws=100 + seed)
    return share(np.random.default_rng(seed).multinomial(20_000, p_V), validation=validation)


def held_out_error(folder):
    """Return the expected calibration error on sequences that nothing was fitted on, and the accuracy."""
    router = CompiledRouter.load(folder)
    rows = [
        (ids, i)
        for i, name in enumerate(router.expert_names)
        for ids in domain(NAMES.index(name), sequences=2000, draws=500 + NAMES.index(name))[1]
    ]
    scores_NE = np.stack([router.table.scores(ids) for ids, _ in rows])
    deciding_N, expert_N = (
        np.array([router.table.deciding(len(ids)) for ids, _ in rows]),
        np.array([expert for _, expert in rows]),
    )
    found = reliability(router.calibration, scores_NE, deciding_N, expert_N)
    return found["expected_calibration_error"], found["accuracy"]


@pytest.mark.parametrize("make", [
    lambda: NaiveBayesRouter(tokenizer=word_tokenizer(WORDS), smoothing=0.1),
    lambda: RidgeRouter(embeddings=embeddings(WORDS, 90), selector="mean"),
    lambda: RidgeRouter(embeddings=embeddings(WORDS, 90), selector="majority"),
    lambda: RidgeRouter(embeddings=embeddings(WORDS, 90), selector="entropy_top_k", k=10),
], ids=["bayes", "mean", "majority", "top 10"])  # fmt: skip
def test_confidence_is_right_before_and_after_experts_come_and_go(tmp_path, make):
    router = make()
    router.fit(statistics({name: made_share(i) for i, name in enumerate(NAMES[:3])}, num_words=WORDS))
    router.save_pretrained(tmp_path)
    first = held_out_error(compile_router(str(tmp_path)))
    assert first[0] <= 0.03
    assert 0.5 < first[1] < 0.95, "hard enough to say something"
    loaded = load_closed_form(tmp_path)
    loaded.add_expert("d", made_share(3))
    loaded.save_pretrained(tmp_path)
    assert held_out_error(compile_router(str(tmp_path)))[0] <= 0.03
    loaded = load_closed_form(tmp_path)
    loaded.remove_expert("d")
    loaded.save_pretrained(tmp_path)
    assert held_out_error(compile_router(str(tmp_path))) == first
    loaded.remove_expert("a")
    loaded.save_pretrained(tmp_path)
    assert held_out_error(compile_router(str(tmp_path)))[0] <= 0.03


def naive_bayes(*, experts=4):
    router = NaiveBayesRouter(tokenizer=word_tokenizer(WORDS), smoothing=0.1)
    router.fit(statistics({name: made_share(i) for i, name in enumerate(NAMES[:experts])}, num_words=WORDS))
    return router


@pytest.fixture
def fitted_on(monkeypatch):
    """Return what calibrations are fitted on, with the most sequences and scores that they take set."""
    given = []

    def fit(*rows):
        given.append(rows)
        return fit_calibration(*rows)

    def most(sequences, entries):
        monkeypatch.setattr(calibrating, "_SEQUENCES", sequences)
        monkeypatch.setattr(calibrating, "_ENTRIES", entries)
        return given

    monkeypatch.setattr(calibrating, "fit_calibration", fit)
    return most


@pytest.mark.parametrize("sequences, entries, taken", [
    (20_000, 1 << 23, [400] * 4),  # all, as it is
    (600, 1 << 23, [134] * 4),  # every third
    (600, 4000, [100] * 4),  # every fourth, since 134 with a copy each would be too many
    (600, 100, [3] * 4),
    (1, 1, [1] * 4),
])  # fmt: skip
def test_of_many_sequences_some_are_taken(tmp_path, fitted_on, sequences, entries, taken):
    rows = fitted_on(sequences, entries)
    naive_bayes().save_pretrained(tmp_path)
    config = read_config(compile_router(str(tmp_path)))
    scores_NE, _, expert_N, weight_N = rows[0]
    assert np.bincount(expert_N[weight_N == 1]).tolist() == taken
    assert config["calibration"]["sequences"] == sum(taken)
    assert scores_NE.size <= max(entries, 2 * 4 * sum(taken)), "a copy of each at least"
    assert weight_N.sum() == pytest.approx(1.1 * sum(taken), rel=0.1), "those of one token to three have no copies"
    if entries == 1 << 23:
        assert len(rows[0][0]) > 2.5 * sum(taken), "every half"


def test_each_length_of_a_copy_has_its_turn(tmp_path, fitted_on):
    rows = fitted_on(600, 4000)
    naive_bayes().save_pretrained(tmp_path)
    compile_router(str(tmp_path))
    _, tokens_N, _, weight_N = rows[0]
    copies_N = tokens_N[weight_N < 1]
    assert len(copies_N) <= (weight_N == 1).sum(), "one of each"
    assert set(copies_N.tolist()) >= set(range(2, 20)), "whole ones have up to 40 tokens"
    assert (copies_N < 10).sum() > 100


def test_confidence_is_right_from_some_of_the_sequences(tmp_path, fitted_on):
    rows = fitted_on(600, 4000)
    naive_bayes(experts=3).save_pretrained(tmp_path)
    first = held_out_error(compile_router(str(tmp_path)))
    assert first[0] <= 0.03
    for change in (lambda one: one.add_expert("d", made_share(3)), lambda one: one.remove_expert("d")):
        loaded = load_closed_form(tmp_path)
        change(loaded)
        loaded.save_pretrained(tmp_path)
        last = held_out_error(compile_router(str(tmp_path)))
        assert last[0] <= 0.03
    assert last == first
    assert all(scores_NE.size <= 4000 for scores_NE, *_ in rows)


def test_a_fit_in_parts_is_the_fit_of_the_whole(monkeypatch):
    draw = np.random.default_rng(4)
    given = draw.normal(size=(500, 3)), draw.integers(1, 50, 500), draw.integers(0, 3, 500), draw.random(500)
    whole = fit_calibration(*given)
    monkeypatch.setattr(calibrating, "_AT_ONCE", 100)
    parts = fit_calibration(*given)
    assert parts[:2] == pytest.approx(whole[:2], rel=1e-6)
    assert parts.shifts == pytest.approx(whole.shifts, rel=1e-6)


@pytest.mark.parametrize("true", [
    Calibration(2.0, 0.6, (0.0, 0.01, -0.01, 0.0)), Calibration(0.5, 0.0, (0.0, 0.0, 0.0, 0.0)),
    Calibration(-1.0, 1.0, (0.15, -0.1, -0.05, 0.0)),
])  # fmt: skip
def test_the_calibration_that_the_truth_was_drawn_with_is_found(true):
    draw = np.random.default_rng(2)
    tokens_N = draw.integers(2, 300, 8000)
    scores_NE = draw.normal(size=(8000, 4)) / np.exp(true.log_scale + true.length_exponent * 3)
    p_NE = true.probabilities(scores_NE, tokens_N)
    expert_N = (p_NE.cumsum(axis=1) < draw.random((8000, 1))).sum(axis=1)
    found = fit_calibration(scores_NE, tokens_N, expert_N, np.ones(8000))
    assert found.log_scale == pytest.approx(true.log_scale, abs=0.2)
    assert found.length_exponent == pytest.approx(true.length_exponent, abs=0.05)
    np.testing.assert_allclose(found.probabilities(scores_NE, tokens_N), p_NE, atol=0.06)


def test_a_sequence_of_weight_zero_is_absent():
    draw = np.random.default_rng(3)
    scores_NE, tokens_N = draw.normal(size=(300, 3)), draw.integers(1, 50, 300)
    noisy_NE = scores_NE + draw.normal(size=(300, 3)) * np.repeat([0.3, 3.0], 150)[:, None]
    expert_N = noisy_NE.argmax(axis=1)
    whole = fit_calibration(scores_NE, tokens_N, expert_N, np.repeat([1.0, 0.0], 150))
    part = fit_calibration(scores_NE[:150], tokens_N[:150], expert_N[:150], np.ones(150))
    everything = fit_calibration(scores_NE, tokens_N, expert_N, np.ones(300))
    p_whole, p_part, p_all = (one.probabilities(scores_NE, tokens_N) for one in (whole, part, everything))
    np.testing.assert_allclose(p_whole, p_part, atol=1e-2)
    assert np.abs(p_all - p_part).max() > 5e-2


def test_where_every_decision_was_right_confidence_stays_below_one():
    scores_NE = np.eye(3)[np.arange(30) % 3]
    found = fit_calibration(scores_NE, np.full(30, 10), np.arange(30) % 3, np.ones(30))
    confidence_N = found.probabilities(scores_NE, np.full(30, 10)).max(axis=1)
    assert (confidence_N > 0.9).all()
    assert (confidence_N < 0.995).all()


def test_one_token_prompts_and_scores_that_are_all_equal_are_no_trouble():
    found = fit_calibration(np.zeros((4, 2)), np.ones(4, dtype=int), np.array([0, 1, 0, 1]), np.ones(4))
    np.testing.assert_allclose(found.probabilities(np.zeros((1, 2)), np.ones(1)), 0.5, atol=1e-6)
