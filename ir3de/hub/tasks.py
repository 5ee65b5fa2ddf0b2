"""What is public of the benchmarks that the paper's reasoning setting asks: whose data they are, how many, how long."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_RUN_CODE = ("humaneval", "mbpp")  # how the names of lm-eval's tasks begin that run what a model has written


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task of lm-eval: its data set, its test questions, and about how many tokens each has.

    ``question`` is what a router reads of it, ``example`` a question with its answer that stands before it, ``shots``
    times; lm-eval never changes 0, and None is 0 where nothing else is asked for. Where there are ``options``, each of
    them is read, with ``answer`` tokens; otherwise ``answer`` is the longest one that the task lets an expert write.
    """

    data: str
    questions: int
    question: int
    answer: int
    options: int = 0
    shots: int | None = 0
    example: int = 0


_KNOWN: Mapping[str, Task] = {
    "gsm8k": Task(data="openai/gsm8k", questions=1319, question=60, shots=5, example=165, answer=256),
    "humaneval": Task(data="openai/openai_humaneval", questions=164, question=140, answer=1024),
    "ifeval": Task(data="google/IFEval", questions=541, question=50, answer=1280),
}
# Each language has nearly all of the 1,172 test questions of ARC-Challenge; most take more tokens than English.
_M_ARC = Task(data="alexandrainst/m_arc", questions=1170, question=70, options=4, answer=15, shots=None, example=130)


def known_task(name: str) -> Task | None:
    """Return what is public of a task of lm-eval, if anything is known here."""
    return _M_ARC if re.fullmatch(r"arc_[a-z]{2}", name) else _KNOWN.get(name)


def runs_code(name: str) -> bool:
    """Return whether a task is one of lm-eval's that run code which a model has written; ``scores`` looks at all."""
    return name.startswith(_RUN_CODE)
