"""The benchmarks of the domains: lm-eval's tasks, loaded and set up as its own command line does."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import nltk
from lm_eval.tasks import TaskManager

from ir3de.reasoning.code_execution import check_task, refusal
from ir3de.reasoning.settings import KEY, Reasoning

_WORDS, _INSTRUCTIONS = "tokenizers/punkt_tab", "lm_eval.tasks.ifeval.instructions_util"


@dataclass(frozen=True)
class Benchmark:
    """A domain's tasks by name, what of their results is its score, and the field with a question's own text."""

    domain: str
    tasks: dict[str, Any]
    metric: str
    filter: str
    prompt_field: str

    def prompt(self, task: str, question: Mapping[str, Any]) -> str:
        """Return a question's own text.

        Raises:
            ValueError: if the field is not there, or holds no text.
        """
        text = question.get(self.prompt_field)
        if not isinstance(text, str):
            raise ValueError(
                f"Expected text in the field `{self.prompt_field}` of the questions of `{task}`, but they have"
                f" {sorted(question)}. Set `{KEY}.prompt_field.{self.domain}` to one of these."
            )
        return text


def load_benchmarks(settings: Reasoning, domains: list[str], *, allow_code: bool) -> dict[str, Benchmark]:
    """Return the benchmark of each domain; to be called, and used, within ``code_execution``.

    Raises:
        ValueError: if there is no such task, its data cannot be had, or it runs code and that is not allowed.
    """
    names = [name for domain in domains for name in settings.tasks[domain]]
    manager = _manager(settings, names)
    for name in names:
        config = manager.task_index[name].cfg or {}
        if config.get("unsafe_code") and not allow_code:  # before its data are fetched
            raise refusal(name)
    found = {}
    for domain in domains:
        tasks: dict[str, Any] = {}
        for name in settings.tasks[domain]:
            for task_name, task in _load(manager, name).items():
                if task_name in tasks:
                    raise ValueError(f"The task `{task_name}` is part of two of `{KEY}.tasks.{domain}`. Keep one.")
                check_task(task, allowed=allow_code)
                _set_up(task, settings, settings.num_fewshot.get(domain))
                tasks[task_name] = task
        metric, filter_name = settings.metric[domain].split(",")
        found[domain] = Benchmark(domain, tasks, metric, filter_name, settings.prompt_field[domain])
    return found


def _manager(settings: Reasoning, names: list[str]) -> TaskManager:
    """Return a manager that knows the tasks; lm-eval's own 13,000 files are read only where they are needed."""
    if settings.include_path is not None:
        own = TaskManager(include_path=settings.include_path, include_defaults=False)
        if all(name in own.task_index for name in names):
            return own
    manager = TaskManager(include_path=settings.include_path)
    unknown = [name for name in names if name not in manager.task_index]
    if unknown:
        near = ", ".join(get_close_matches(unknown[0], manager.all_tasks, n=3))
        raise ValueError(
            f"lm-eval has no task `{unknown[0]}`{f' (near: {near})' if near else ''}."
            f" Tasks of your own are found in `{KEY}.include_path`."
        )
    return manager


def _load(manager: TaskManager, name: str) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = manager.load([name])["tasks"]
    except (OSError, ImportError, LookupError, RuntimeError) as error:
        raise ValueError(
            f"The task `{name}` of lm-eval cannot be loaded: {(str(error) or type(error).__name__).splitlines()[0]}."
            " Its data come from the hub, and later from the hub's cache (`HF_HOME`)."
        ) from error
    if _INSTRUCTIONS in sys.modules:  # IFEval splits answers into words, when all are given
        try:
            nltk.data.find(_WORDS)
        except LookupError as error:
            raise ValueError(
                f"The task `{name}` needs nltk's punkt_tab, which could not be downloaded. Fetch it where there is a"
                " network (`python -m nltk.downloader punkt_tab`), and set `NLTK_DATA` to the folder here."
            ) from error
    return loaded


def _set_up(task: Any, settings: Reasoning, num_fewshot: int | None) -> None:
    """Set examples and generation as lm-eval does for its options ``--num_fewshot`` and ``--gen_kwargs``."""
    given = task.get_config("num_fewshot")
    if given is None or (num_fewshot is not None and given != 0):
        task.set_config("num_fewshot", num_fewshot or 0)
    if task.get_config("output_type") == "generate_until":
        sampled = settings.temperature > 0
        kwargs: dict[str, Any] = {"do_sample": sampled, "temperature": settings.temperature}
        if settings.max_new_tokens is not None:
            kwargs["max_gen_toks"] = settings.max_new_tokens
        if settings.bare_prompts:
            kwargs["until"] = []
        task.set_config("generation_kwargs", kwargs, update=True)
