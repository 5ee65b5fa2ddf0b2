"""A rival in a process of its own, with the Python of an environment of its own, asked through a pipe."""

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from texts import Texts
from turns import Numbers, summary

NAMES = {
    "kolmo": "kolmo",
    "kolmo_one_size": "kolmo, dictionaries of one size",
    "aurelio": "aurelio semantic-router, MiniLM",
    "aurelio_free": "aurelio semantic-router, an encoder that takes no time",
    "aurelio_free_few": "the same, 10 texts a domain",
    "minilm_knn": "MiniLM + kNN",
    "deberta_small": "encoder of DeBERTa-v3-small's size",
    "deberta_large": "encoder of DeBERTa-v3-large's size",
}
# Texts of a domain that these learn. Their vectors mean nothing, so that only their time counts; few make them fast.
AT_MOST = {"aurelio_free_few": 10, "deberta_small": 1, "deberta_large": 1}
OF_DOCUMENTS = ("kolmo", "kolmo_one_size")  # learn whole documents, the others passages
_HERE = Path(__file__).parent
_WORKER = _HERE / "rivals" / "worker.py"


class Rival:
    """A rival that answers. It trains on ``texts`` when it begins.

    The vectors of what it learns are kept in the folder ``vectors``, if one is given, for the next rival with the same
    encoder. The seconds that encoding took count as those of whoever uses it.

    Raises:
        RuntimeError: if it ends without an answer; what it said is in the log.
    """

    def __init__(self, name: str, python: str, texts: Texts, log: Path, vectors: Path | None = None) -> None:
        self.name = name
        self._log = log
        environment = os.environ | {
            "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(_HERE),
        }  # fmt: skip
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                [python, str(_WORKER), name, *([] if vectors is None else [str(vectors)])], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment,
            )  # fmt: skip
        self.version, self.teach_seconds, self.settings = self._ask("train", texts)

    def seconds(self, texts: Sequence[str]) -> list[float]:
        """Return the seconds of each text's decision."""
        return list(self._ask("time", texts))

    def batch_seconds(self, texts: Sequence[str]) -> list[float]:
        """Return the seconds of all decisions together, made by its call for many."""
        return [float(self._ask("batch", texts))]

    def choices(self, texts: Sequence[str]) -> list[str]:
        """Return the domain that each text is sent to."""
        return list(self._ask("route", texts))

    def stages(self, texts: Sequence[str], rounds: int) -> dict[str, Numbers]:
        """Return the microseconds of tokenizing, encoding, scoring, deciding, of so many rounds: see ``summary``."""
        passes = [self._ask("stages", texts) for _ in range(rounds)]
        return {stage: summary({i: one[stage] for i, one in enumerate(passes)}) for stage in passes[0]}

    def add(self, name: str, texts: Sequence[str]) -> float:
        """Return the seconds that adding a domain takes."""
        return float(self._ask("add", [name, texts]))

    def remove(self, name: str) -> float:
        """Return the seconds that removing a domain takes."""
        return float(self._ask("remove", name))

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, what: str, value: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps([what, value]) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(f"The rival {self.name} ended when it was asked to {what}: see {self._log}.")
        return json.loads(line)


@contextmanager
def rivals(
    names: Sequence[str], python: str | None, train: Texts, learned: Texts, log: Path
) -> Iterator[dict[str, Rival]]:
    """Yield the rivals; kolmo has learned documents, the others passages. None without an environment of theirs."""
    found: dict[str, Rival] = {}
    try:
        for name in names if python else ():
            texts = train if name in OF_DOCUMENTS else learned
            some = {domain: all_[: AT_MOST.get(name)] for domain, all_ in texts.items()}
            found[name] = Rival(name, str(python), some, log)
        yield found
    finally:
        for one in found.values():
            one.close()
