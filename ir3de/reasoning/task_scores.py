"""The score of every question of a task under one expert, and what lm-eval itself makes of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lm_eval.evaluator
import numpy as np

from ir3de.reasoning.benchmarks import Benchmark
from ir3de.reasoning.expert_lm import ExpertLM
from ir3de.reasoning.settings import KEY, Reasoning


@dataclass(frozen=True)
class TaskScores:
    """A task's questions in their order: texts, scores ``(Q,)`` and weights ``(Q,)`` float64.

    ``reported`` is the number that lm-eval reports, ``Σ weight · score / Σ weight``; ``cut`` counts prompts that did
    not fit into the expert's window.
    """

    task: str
    prompts: list[str]
    score_Q: np.ndarray
    weight_Q: np.ndarray
    reported: float
    cut: int


def score_task(lm: ExpertLM, task: Any, benchmark: Benchmark, settings: Reasoning, *, allow_code: bool) -> TaskScores:
    """Return an expert's scores on a task, by lm-eval's own evaluation.

    Raises:
        ValueError: if the task has no such metric, or its aggregate is no mean of questions' scores.
    """
    name, key = task.task_name, f"{benchmark.metric},{benchmark.filter}"
    task.set_fewshot_seed(settings.seed)
    lm.cut = 0
    # By its module: ``code_execution`` puts its guard there.
    results = lm_eval.evaluator.evaluate(
        lm,
        {"tasks": {name: task}},
        limit=settings.limit,
        bootstrap_iters=0,
        apply_chat_template=settings.chat_template,
        fewshot_as_multiturn=settings.chat_template,
        confirm_run_unsafe_code=allow_code,
    )
    numbers = results["results"][name]
    if key not in numbers:
        there = [one for one in numbers if "," in one and "_stderr" not in one]
        raise ValueError(
            f"The task `{name}` has no `{key}`, but {there}. Set `{KEY}.metric.{benchmark.domain}` to one of these."
        )
    samples = [one for one in results["samples"][name] if one["filter"] == benchmark.filter]
    samples.sort(key=lambda one: one["doc_id"])
    score_Q, weight_Q = question_scores([one[benchmark.metric] for one in samples])
    found = TaskScores(
        name,
        [benchmark.prompt(name, one["doc"]) for one in samples],
        score_Q,
        weight_Q,
        float(numbers[key]),
        lm.cut,
    )
    ours = float((score_Q * weight_Q).sum() / weight_Q.sum())
    if not abs(ours - found.reported) < 1e-9:  # also if one of them is not a number
        raise ValueError(
            f"lm-eval reports {found.reported} for `{key}` of `{name}`, but the mean of the questions' values is"
            f" {ours}: this metric is no mean over questions, and a router cannot be scored by it. Choose another."
        )
    return found


def question_scores(values: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the score and the weight of each question ``(Q,)`` float64, from lm-eval's values of a metric.

    A question with several checks (IFEval's instructions) has a list; it counts as often as it has checks.
    """
    checks = [np.atleast_1d(np.asarray(value, dtype=np.float64)) for value in values]
    weight_Q = np.asarray([len(one) for one in checks], dtype=np.float64)
    score_Q = np.asarray([one.mean() if len(one) else 0.0 for one in checks])
    return score_Q, weight_Q


def questions(benchmark: Benchmark, settings: Reasoning) -> dict[str, list[Mapping[str, Any]]]:
    """Return the questions of each task, as many as are asked."""
    found = {}
    for name, task in benchmark.tasks.items():
        docs = task.eval_docs
        size = len(docs) if settings.limit is None else min(settings.limit, len(docs))
        found[name] = [docs[i] for i in range(size)]
    return found
