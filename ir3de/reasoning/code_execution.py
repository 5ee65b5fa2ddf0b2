"""Model-written code runs in isolation or not at all, whatever task of lm-eval asks for it."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import evaluate
import lm_eval.evaluator

from ir3de.reasoning.code_eval import IsolatedCodeEval, isolated_code_eval

Evaluation = Callable[..., Any]


@contextmanager
def code_execution(*, allowed: bool) -> Iterator[None]:
    """Put isolation in the place of lm-eval's ``code_eval`` meanwhile, or a refusal where nothing is allowed.

    A task that runs model-written code in another way is refused in both cases.

    Raises:
        ValueError: if it is allowed and there is no isolation here.
    """
    evaluation = lm_eval.evaluator.evaluate
    _forget_task_modules()  # which may hold what they loaded before
    lm_eval.evaluator.evaluate = _guarded(evaluation, allowed=allowed)
    try:
        with isolated_code_eval() if allowed else _no_code_eval():
            yield
    finally:
        lm_eval.evaluator.evaluate = evaluation
        _forget_task_modules()


@contextmanager
def _no_code_eval() -> Iterator[None]:
    """Refuse ``evaluate.load("code_eval")`` meanwhile, which would run programs as they are."""
    load = evaluate.load

    def refuse(path: str, *args: Any, **settings: Any) -> Any:
        if path == "code_eval":
            raise refusal("code_eval")
        return load(path, *args, **settings)

    evaluate.load = refuse
    try:
        yield
    finally:
        evaluate.load = load


def check_task(task: Any, *, allowed: bool) -> None:
    """Refuse a task that runs model-written code, unless it is allowed and this task does so in isolation.

    Raises:
        ValueError: naming the task.
    """
    if not getattr(task, "UNSAFE_CODE", False):
        return
    if not allowed:
        raise refusal(task.task_name)
    if not any(isinstance(value, IsolatedCodeEval) for of in _functions(task) for value in of.__globals__.values()):
        raise ValueError(
            f'The task `{task.task_name}` runs code that a model has written, but not by `evaluate.load("code_eval")`:'
            " it cannot be isolated here. Leave it out."
        )


def refusal(task: str) -> ValueError:
    """Return what is raised for a task that runs code without leave."""
    return ValueError(
        f"The task `{task}` runs code that a model has written. Allow it with `--allow_code_execution true` (`scores`)"
        " or `--confirm_run_unsafe_code` (`lm-eval`): it then runs in isolation, without network and within limits."
    )


def _functions(task: Any) -> list[Callable[..., Any]]:
    config = task.config
    found: list[Any] = [one.get("metric") for one in config.metric_list or [] if isinstance(one, Mapping)]
    found.append(config.process_results)
    return [one for one in found if hasattr(one, "__globals__")]


def _guarded(evaluation: Evaluation, *, allowed: bool) -> Evaluation:
    def guarded(lm: Any, task_dict: Any, *args: Any, **settings: Any) -> Any:
        for task in _leaves(task_dict.get("tasks", task_dict)):
            check_task(task, allowed=allowed)
        return evaluation(lm, task_dict, *args, **settings)

    return guarded


def _leaves(tasks: Mapping[Any, Any]) -> Iterator[Any]:
    """Yield the tasks; in an older form groups have theirs within."""
    for one in tasks.values():
        if isinstance(one, Mapping):
            yield from _leaves(one)
        else:
            yield one


def _forget_task_modules() -> None:
    """Drop the modules that lm-eval loaded beside a task's YAML; it marks them with the time of their file."""
    for name, module in list(sys.modules.items()):
        if "__mtime__" in getattr(module, "__dict__", {}):
            del sys.modules[name]
