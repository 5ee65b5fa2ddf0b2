"""kolmo as a process of its own: a JSON object of training texts in, then lists of texts in and their seconds out.

Started by ``decisions.py`` with the Python of an environment that has kolmo.
"""

import json
import sys
import time
from collections.abc import Iterable

from kolmo import KolmoRouter


def answer(asked: Iterable[str]) -> Iterable[object]:
    """Yield an answer to every line."""
    lines = iter(asked)
    router = KolmoRouter()
    for name, texts in json.loads(next(lines)).items():
        router.add_domain(name, samples=texts, target_model=name)
    yield "trained"
    for line in lines:
        taken = []
        for text in json.loads(line):
            start = time.perf_counter_ns()
            router.route(text)
            taken.append((time.perf_counter_ns() - start) / 1e9)
        yield taken


if __name__ == "__main__":
    for found in answer(sys.stdin):
        print(json.dumps(found), flush=True)
