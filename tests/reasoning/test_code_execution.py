"""Model-written code runs in isolation, or nothing runs; what lm-eval would do itself is kept out."""

import sys
from functools import partial
from types import SimpleNamespace

import evaluate
import lm_eval.evaluator
import lm_eval.tasks
import pytest

from ir3de.cli import main
from ir3de.reasoning.benchmarks import load_benchmarks
from ir3de.reasoning.code_eval import IsolatedCodeEval
from ir3de.reasoning.code_execution import check_task, code_execution
from ir3de.reasoning.settings import Reasoning
from tests.helpers.benchmarks import FIELDS, METRICS, TASKS, needs_bwrap


def _settings(folder):
    return Reasoning(tasks=TASKS, metric=METRICS, prompt_field=FIELDS, include_path=str(folder / "tasks"))


def test_without_leave_nothing_is_loaded_or_answered(small, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["scores", "--config", "reasoning.yaml", *small[2], "--data.cache_dir", "cache"])
    said = " ".join(capsys.readouterr().err.split())
    assert "`mini_humaneval` runs code that a model has written. Allow it with `--allow_code_execution true`" in said
    assert not (tmp_path / "cache").exists()


def test_lm_evals_command_line_runs_no_code_without_leave(small, monkeypatch, capsys):
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", partial(lm_eval.tasks.TaskManager, include_defaults=False))
    folder, bank, _ = small
    with pytest.raises(SystemExit):
        main(["lm-eval", "run", "--model", "hf", "--model_args", f"pretrained={bank['math']}", "--device", "cpu",
              "--tasks", "mini_humaneval", "--include_path", str(folder / "tasks")])  # fmt: skip
    assert "`--confirm_run_unsafe_code` (`lm-eval`)" in " ".join(capsys.readouterr().err.split())


@needs_bwrap
def test_what_was_loaded_before_is_loaded_again(small):
    """A task's module that holds another ``code_eval`` must not be used within, nor the isolated one afterwards."""
    folder = small[0]
    load, evaluation = evaluate.load, lm_eval.evaluator.evaluate

    def found():
        return [module for module in sys.modules.values() if "compute_" in getattr(module, "__dict__", {})]

    with code_execution(allowed=True):
        load_benchmarks(_settings(folder), ["coding"], allow_code=True)
        (module,) = found()
        assert isinstance(module.compute_, IsolatedCodeEval)
        module.compute_ = None
    assert not found()
    with code_execution(allowed=True):
        load_benchmarks(_settings(folder), ["coding"], allow_code=True)
        (module,) = found()
        assert isinstance(module.compute_, IsolatedCodeEval)
    assert evaluate.load is load
    assert lm_eval.evaluator.evaluate is evaluation


@pytest.mark.parametrize(
    "allowed, message", [pytest.param(True, "it cannot be isolated here", marks=needs_bwrap), (False, "Allow it with")]
)
def test_code_that_runs_in_another_way_is_refused(allowed, message):
    config = SimpleNamespace(metric_list=[{"metric": _settings}], process_results=None)
    task = SimpleNamespace(UNSAFE_CODE=True, task_name="wild", config=config)
    with pytest.raises(ValueError, match=f"`wild` runs code that a model has written.*{message}"):
        check_task(task, allowed=allowed)
    with code_execution(allowed=allowed), pytest.raises(ValueError, match=message):
        lm_eval.evaluator.evaluate(None, {"tasks": {"wild": task}}, confirm_run_unsafe_code=True)


def test_an_unknown_task_is_named(monkeypatch):
    only = partial(lm_eval.tasks.TaskManager, include_defaults=False)  # 13,000 files take seconds to read
    monkeypatch.setattr("ir3de.reasoning.benchmarks.TaskManager", only)
    settings = Reasoning(tasks={"math": ["mini_gsm9k"]}, metric=METRICS, prompt_field=FIELDS)
    with code_execution(allowed=False), pytest.raises(ValueError, match="lm-eval has no task `mini_gsm9k`"):
        load_benchmarks(settings, ["math"], allow_code=False)
