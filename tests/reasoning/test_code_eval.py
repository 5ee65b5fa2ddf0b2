"""The metric of code benchmarks in isolation, against enumeration and against lm-eval's own functions."""

import importlib.util
import itertools
import shutil
from pathlib import Path

import pytest

from ir3de.isolation import Limits
from ir3de.reasoning.code_eval import IsolatedCodeEval, isolated_code_eval, pass_at_k

needs_bwrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
ADD = "def add(a, b):\n    return a {sign} b\n"
PLUS, TIMES = ADD.format(sign="+"), ADD.format(sign="*")
TESTS = "assert add(2, 3) == 5"


@pytest.mark.parametrize("candidates", [1, 2, 5, 7])
def test_pass_at_k_is_the_share_of_draws_with_a_passing_candidate(candidates):
    for passed, k in itertools.product(range(candidates + 1), range(1, candidates + 1)):
        draws = list(itertools.combinations([True] * passed + [False] * (candidates - passed), k))
        assert pass_at_k(candidates, passed, k) == pytest.approx(sum(map(any, draws)) / len(draws), abs=1e-12)


@needs_bwrap
def test_results_are_in_the_form_of_the_published_metric():
    rates, results = IsolatedCodeEval().compute(
        references=[TESTS, "assert add(1, 1) == 3"],
        predictions=[[TIMES, PLUS, "import os; os._exit(0)"], [PLUS, "while True: pass", PLUS]],
        k=[1, 2],
    )
    assert rates == {"pass@1": pytest.approx(1 / 6), "pass@2": pytest.approx(1 / 3)}
    assert results[0] == [
        (0, {"task_id": 0, "passed": False, "result": "failed: AssertionError", "completion_id": 0}),
        (1, {"task_id": 0, "passed": True, "result": "passed", "completion_id": 1}),
        (2, {"task_id": 0, "passed": False, "result": "failed: exited with 0 before its end", "completion_id": 2}),
    ]
    assert [result["result"] for _, result in results[1]] == [
        "failed: AssertionError",
        "timed out: a process used more than 3 s of processor time",
        "failed: AssertionError",
    ]


@needs_bwrap
def test_limits_are_the_given_ones():
    metric = IsolatedCodeEval(Limits(wall_seconds=0.2), processes=1)
    _, results = metric.compute(references=[TESTS], predictions=[["import time; time.sleep(30)"]])
    assert results[0][0][1]["result"] == "timed out: ran for more than 0.2 s"


@needs_bwrap
@pytest.mark.parametrize(
    ("references", "predictions", "k", "match"),
    [
        ([], [], [1], "0 `references` and 0 `predictions`"),
        ([TESTS], [[PLUS], [PLUS]], [1], "1 `references` and 2 `predictions`"),
        ([TESTS, TESTS], [[PLUS, PLUS], [PLUS]], [2], r"got \[2\], and problem 1 has 1"),
        ([TESTS], [[]], [1], "problem 0 has 0"),
        ([TESTS], [[PLUS]], [0], r"got \[0\]"),
        ([TESTS], [[PLUS]], [], r"got \[\]"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(references, predictions, k, match):
    with pytest.raises(ValueError, match=match):
        IsolatedCodeEval().compute(references=references, predictions=predictions, k=k)


def test_without_isolation_there_is_no_metric(monkeypatch, tmp_path):
    evaluate = pytest.importorskip("evaluate")
    published = evaluate.load
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="bubblewrap"):
        IsolatedCodeEval()
    with pytest.raises(ValueError, match="bubblewrap"), isolated_code_eval():
        pass
    assert evaluate.load is published


@needs_bwrap
def test_other_metrics_load_as_before(monkeypatch):
    evaluate = pytest.importorskip("evaluate")
    monkeypatch.setattr(evaluate, "load", lambda *args, **kwargs: (args, kwargs))
    published = evaluate.load
    with isolated_code_eval():
        assert isinstance(evaluate.load("code_eval"), IsolatedCodeEval)
        assert evaluate.load("accuracy", "x", revision="y") == (("accuracy", "x"), {"revision": "y"})
    assert evaluate.load is published


def _fail_inside():
    with isolated_code_eval():
        raise KeyError


@needs_bwrap
def test_an_error_inside_puts_the_published_metric_back():
    evaluate = pytest.importorskip("evaluate")
    published = evaluate.load
    with pytest.raises(KeyError):
        _fail_inside()
    assert evaluate.load is published


@needs_bwrap
@pytest.mark.parametrize("task", ["humaneval", "mbpp"])
def test_lm_eval_scores_in_isolation(task):
    pytest.importorskip("evaluate")
    lm_eval = importlib.util.find_spec("lm_eval")
    if lm_eval is None or lm_eval.origin is None:
        pytest.skip("lm-eval is not installed")
    spec = importlib.util.spec_from_file_location("utils", Path(lm_eval.origin).parent / "tasks" / task / "utils.py")
    utils = importlib.util.module_from_spec(spec)
    with isolated_code_eval():
        spec.loader.exec_module(utils)  # loads and tries the metric
    if task == "mbpp":
        assert utils.pass_at_1([TESTS], [utils.extract_code_blocks(f"python\n{PLUS}```")]) == 1.0
        assert utils.pass_at_1(TESTS, [TIMES]) == 0.0
        return
    prompt = "def add(a, b):\n"
    candidates = utils.build_predictions([["    return a + b", "    return a - b"]], [{"prompt": prompt}])
    assert utils.pass_at_k([f"def check(f):\n    {TESTS.replace('add', 'f')}\ncheck(add)"], candidates, k=[1, 2]) == {
        "pass@1": 0.5,
        "pass@2": 1.0,
    }
