"""HumanEval's and MBPP's metric with every program in isolation, in place of the one that runs them as they are."""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ir3de.console import console
from ir3de.isolation import Limits, Outcome, Status, check_isolation, run_isolated

WORTH_A_BAR = 20  # programs; fewer are over before a bar could be read


class IsolatedCodeEval:
    """What ``evaluate.load("code_eval")`` returns, except that programs can do no harm.

    Args:
        limits: What each program may use.
        processes: Programs that run at a time.

    Raises:
        ValueError: If programs cannot be isolated on this machine.
    """

    def __init__(self, limits: Limits = Limits(), processes: int = 2) -> None:  # noqa: B008 - frozen
        check_isolation()
        self.limits = limits
        self.processes = processes

    def compute(
        self, *, references: list[str], predictions: list[list[str]], k: Sequence[int] = (1,)
    ) -> tuple[dict[str, float], dict[int, list[tuple[int, dict[str, Any]]]]]:
        """Run every prediction followed by its problem's tests, and return pass@k and the result of each.

        Args:
            references: The tests of each problem.
            predictions: Candidate programs of each problem.
            k: pass@k is the chance that one of ``k`` candidates passes, averaged over problems.

        Raises:
            ValueError: If a problem has no tests, or fewer candidates than a ``k``.
        """
        _check_sizes(references, predictions, k)
        programs = [
            (problem, place, f"{candidate}\n{tests}")
            for problem, (tests, candidates) in enumerate(zip(references, predictions, strict=True))
            for place, candidate in enumerate(candidates)
        ]
        results: dict[int, list[tuple[int, dict[str, Any]]]] = {problem: [] for problem in range(len(references))}
        outcomes = self._run([program for *_, program in programs])
        for (problem, place, _), outcome in zip(programs, outcomes, strict=True):
            result = {
                "task_id": problem,
                "passed": outcome.status is Status.PASSED,
                "result": f"{outcome.status}: {outcome.detail}" if outcome.detail else str(outcome.status),
                "completion_id": place,
            }
            results[problem].append((place, result))
        passed = [(len(of), sum(result["passed"] for _, result in of)) for of in results.values()]
        rates = {f"pass@{many}": math.fsum(pass_at_k(*counts, many) for counts in passed) / len(passed) for many in k}
        return rates, results

    def _run(self, programs: list[str]) -> list[Outcome]:
        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        few = len(programs) < WORTH_A_BAR
        with Progress(*columns, console=console(stderr=True), disable=few, transient=True) as bar:
            task = bar.add_task("Running programs in isolation", total=len(programs))
            pool = ThreadPoolExecutor(self.processes)
            try:
                outcomes = []
                for outcome in pool.map(lambda program: run_isolated(program, limits=self.limits), programs):
                    outcomes.append(outcome)
                    bar.advance(task)
                return outcomes
            finally:
                pool.shutdown(cancel_futures=True)  # after Ctrl-C those that run end within their limits


def pass_at_k(candidates: int, passed: int, k: int) -> float:
    """Return the chance that ``k`` of the candidates, drawn without putting back, hold one that passed.

    This is the unbiased estimator of Chen et al. (2021), arXiv 2107.03374.
    """
    return 1.0 - math.comb(candidates - passed, k) / math.comb(candidates, k)


@contextmanager
def isolated_code_eval(limits: Limits = Limits(), processes: int = 2) -> Iterator[None]:  # noqa: B008 - frozen
    """Let ``evaluate.load("code_eval")`` return the isolated metric while the block is open.

    lm-eval's tasks load it when they are imported, so import them inside the block.

    Raises:
        ValueError: If programs cannot be isolated on this machine.
    """
    import evaluate  # noqa: PLC0415 - comes with lm-eval, which is an optional extra

    metric = IsolatedCodeEval(limits, processes)
    published = evaluate.load

    def load(path: str, *args: Any, **kwargs: Any) -> Any:
        return metric if path == "code_eval" else published(path, *args, **kwargs)

    evaluate.load = load
    try:
        yield
    finally:
        evaluate.load = published


def _check_sizes(references: list[str], predictions: list[list[str]], k: Sequence[int]) -> None:
    if not references or len(references) != len(predictions):
        raise ValueError(
            f"Expected tests and candidates for the same problems, one or more, but got {len(references)} `references`"
            f" and {len(predictions)} `predictions`."
        )
    fewest = min(range(len(predictions)), key=lambda problem: len(predictions[problem]))
    if not k or not 1 <= min(k) <= max(k) <= len(predictions[fewest]):
        raise ValueError(
            f"Expected each `k` to be from 1 to the candidates of every problem, but got {list(k)}, and problem"
            f" {fewest} has {len(predictions[fewest])}. Generate more candidates, or ask for a smaller `k`."
        )
