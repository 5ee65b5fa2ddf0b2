"""Rows of the score table against plain loops over questions."""

import random

import numpy as np
import pytest

from ir3de.reasoning.score_rows import distinct, domain_rows
from ir3de.reasoning.task_scores import TaskScores


def _task(name, prompts, scores, weights):
    score_Q, weight_Q = np.asarray(scores, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    return TaskScores(name, prompts, score_Q, weight_Q, float(score_Q @ weight_Q / weight_Q.sum()), 0)


def test_the_mean_of_rows_is_the_mean_over_tasks():
    rng = random.Random(3)
    sizes = {"aa": 5, "bb": 12, "cc": 1}
    prompts = {name: [f"text {rng.randrange(8)}" for _ in range(size)] for name, size in sizes.items()}
    weights = {name: [rng.randrange(1, 4) for _ in range(size)] for name, size in sizes.items()}
    scores = {
        member: {name: [rng.random() for _ in range(size)] for name, size in sizes.items()} for member in ("x", "y")
    }
    rows = domain_rows(
        "many",
        {m: [_task(name, prompts[name], of[name], weights[name]) for name in sizes] for m, of in scores.items()},
    )
    for place, member in enumerate(("x", "y")):
        means = [
            sum(s * w for s, w in zip(scores[member][name], weights[name], strict=True)) / sum(weights[name])
            for name in sizes
        ]
        assert rows.score_M()[place] == pytest.approx(sum(means) / 3, abs=1e-12)
    assert rows.weight_R.sum() == pytest.approx(18)
    assert rows.question_R.sum() == 18
    assert len(set(rows.prompts)) == len(rows.prompts) < 18
    # any router, which decides by the text: rows give what questions give
    choice = {text: place for place, text in enumerate(rows.prompts)}
    routed = sum(
        scores[("x", "y")[choice[text] % 2]][name][i] * weights[name][i] / sum(weights[name]) / 3
        for name in sizes for i, text in enumerate(prompts[name])
    )  # fmt: skip
    by_row = sum(rows.weight_R[r] * rows.score_RM[r, r % 2] for r in range(len(rows.prompts))) / rows.weight_R.sum()
    assert by_row == pytest.approx(routed, abs=1e-12)


def test_a_question_without_checks_weighs_nothing():
    rows = domain_rows("d", {"x": [_task("t", ["a", "b"], [0.5, 0.0], [2, 0])]})
    assert rows.weight_R.tolist() == [2, 0]
    assert rows.score_RM.tolist() == [[0.5], [0.0]]


def test_texts_that_differ_by_white_space_are_one():
    texts = distinct(["a  b", "a b", "c", "a  b"], domain="d")
    assert texts.prompts == ["a  b", "c"]
    assert texts.row_Q.tolist() == [0, 0, 1, 0]
    assert texts.respaced == 1


def test_a_question_without_text_is_named():
    with pytest.raises(ValueError, match=r"question 1 has none .* `reasoning.prompt_field.law`"):
        distinct(["a", " \n"], domain="law")
