"""A table of scores and costs per prompt and model: made by ``scores`` or elsewhere, in the place of a loss table."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ir3de.console import console
from ir3de.experts.bank import WEIGHT_AVERAGE
from ir3de.functional.quality import Measure

_SCORE, _COST = "score:", "cost:"
_AVERAGE = f"{_SCORE}{WEIGHT_AVERAGE}"


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Scores of a split's ``N`` sequences under ``E`` experts, more being better; row ``i`` is the split's row ``i``.

    ``score_NE`` is ``(N, E)`` float64; ``cost_NE``, in the table's own unit, is there where the file has costs.
    ``domain_N`` is the ``(N,)`` int64 true domain, and ``key`` the SHA-256 of all that was read. ``weight_N`` ``(N,)``
    float64 is what a sequence counts in its domain's score ``Σ weight · score / Σ weight``, one where the file does not
    say. ``average_score_N`` are the scores under the average of the experts' weights, where there are any.
    """

    score_NE: Tensor
    domain_N: Tensor
    expert_names: tuple[str, ...]
    key: str
    cost_NE: Tensor | None = None
    weight_N: Tensor | None = None
    average_score_N: Tensor | None = None

    @property
    def measure(self) -> Measure:
        """What the values are."""
        return "score"

    @property
    def values_NE(self) -> Tensor:
        """The scores times the weights, of which sums over sequences are taken as of losses."""
        return self.score_NE * self.weights_N[:, None]

    @property
    def weights_N(self) -> Tensor:
        """What each sequence counts, float64."""
        return torch.ones(len(self.score_NE), dtype=torch.float64) if self.weight_N is None else self.weight_N

    @property
    def average_N(self) -> Tensor | None:
        """The values under the average of weights."""
        return None if self.average_score_N is None else self.average_score_N * self.weights_N

    @property
    def own_N(self) -> Tensor:
        """The values under each sequence's own expert."""
        return self.values_NE.gather(1, self.domain_N[:, None]).squeeze(1)

    @property
    def best_N(self) -> Tensor:
        """The expert with the highest score of each sequence; the first of equals."""
        return self.score_NE.argmax(dim=1)


def read_score_table(
    path: Path, *, expert_names: Sequence[str], prompts: Sequence[str], domain_N: Tensor
) -> ScoreTable:
    """Read scores of prompts, from CSV or Parquet, and put them into the order of a split.

    The file has a row per prompt: its text in the column ``prompt``, a number ``score:<expert>`` for every expert and,
    if there are costs, ``cost:<expert>``. Where it says more, ``weight`` is what the row counts in its domain's score,
    ``score:weight_average`` the score of the average of weights, and ``domain`` the name of the row's domain, which is
    checked. Rows for other prompts are not used; where the domain is known, they are counted and reported.

    Args:
        path: The file.
        expert_names: The experts, in the bank's order.
        prompts: The text of each of the split's sequences.
        domain_N: Their true domains ``(N,)`` int64.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a column is missing, a prompt has no row or two that differ, a value is not a finite number, a
            weight is negative, or a prompt is of another domain.
    """
    table = _read(path)
    columns = [f"{_SCORE}{name}" for name in expert_names]
    if any(name.startswith(_COST) for name in table.column_names):
        columns += [f"{_COST}{name}" for name in expert_names]
    missing = [name for name in ["prompt", *columns] if name not in table.column_names]
    if missing:
        raise ValueError(f"Expected the columns {missing} in `{path}`, but it has {table.column_names}.")
    columns += [name for name in ("weight", _AVERAGE) if name in table.column_names]
    values_MC = np.stack([_numbers(table, name, path) for name in columns], axis=1)
    row_of: dict[str, int] = {}
    for row, prompt in enumerate(table["prompt"].to_pylist()):
        if prompt in row_of and not np.array_equal(values_MC[row_of[prompt]], values_MC[row]):
            raise ValueError(f"`{path}` has two rows with other values for the prompt {_short(prompt)}. Keep one.")
        row_of[prompt] = row
    absent = [prompt for prompt in prompts if prompt not in row_of]
    if absent:
        raise ValueError(
            f"`{path}` has no row for {len(absent)} of {len(prompts)} test prompts, the first is {_short(absent[0])}."
            " Score these too; `pack: false` and a `block_length` that no prompt exceeds keep prompts as they are."
        )
    row_N = [row_of[prompt] for prompt in prompts]
    if "domain" in table.column_names:
        _check_domains(table, row_N, [expert_names[i] for i in domain_N.tolist()], path)
    values_NC = torch.from_numpy(values_MC[row_N])
    key = hashlib.sha256(f"{list(expert_names)}".encode() + values_NC.numpy().tobytes()).hexdigest()
    column = dict(zip(columns, values_NC.T, strict=True))
    score_NE, cost_NE = (
        torch.stack([column[f"{kind}{name}"] for name in expert_names], dim=1) if f"{kind}{expert_names[0]}" in column
        else None for kind in (_SCORE, _COST)
    )  # fmt: skip
    assert score_NE is not None, "these columns are there"
    return ScoreTable(score_NE, domain_N, tuple(expert_names), key, cost_NE, column.get("weight"), column.get(_AVERAGE))


def _read(path: Path) -> pa.Table:
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a table of scores at `{path}` (`experts.losses.table`), but there is none. That of the"
            " reasoning setting is made by `python main.py scores --config reasoning.yaml`."
        )
    try:
        return pq.read_table(path) if path.suffix == ".parquet" else pyarrow.csv.read_csv(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"`{path}` is no readable {path.suffix} table ({str(error).splitlines()[0]}).") from error


def _check_domains(table: pa.Table, row_N: Sequence[int], name_N: Sequence[str], path: Path) -> None:
    """Refuse prompts of another domain, and report rows that the split does not have."""
    there = table["domain"].to_pylist()
    for row, name in zip(row_N, name_N, strict=True):
        if there[row] != name:
            raise ValueError(
                f"The prompt {_short(table['prompt'][row].as_py())} is of the domain `{name}`, but of"
                f" `{there[row]}` in `{path}`. Give `data.domains` the names that the table has."
            )
    prompt_M = table["prompt"].to_pylist()
    used = {prompt_M[row] for row in row_N}
    unused = Counter(name for prompt, name in zip(prompt_M, there, strict=True) if prompt not in used)
    if unused:
        counts = ", ".join(f"{count} of {name}" for name, count in sorted(unused.items()))
        console(stderr=True).print(
            f"[yellow]rows of {path} without a test sequence: {counts}[/yellow]; the data report says what became of"
            " them (copies, also in another domain, `data.max_test_blocks`)",
            soft_wrap=True,
        )


def _numbers(table: pa.Table, name: str, path: Path) -> np.ndarray:
    try:
        values = table[name].cast(pa.float64()).to_numpy()
    except pa.ArrowException as error:
        raise ValueError(f"Expected numbers in the column `{name}` of `{path}`: {error}.") from error
    wrong = ~np.isfinite(values) | ((values < 0) if name == "weight" else False)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        kind = "a number that is not negative" if name == "weight" else "a number"
        raise ValueError(f"Expected {kind} in row {row} of the column `{name}` of `{path}`, but got {values[row]}.")
    return np.asarray(values, dtype=np.float64)


def _short(prompt: str) -> str:
    text = " ".join(prompt.split())
    return repr(text if len(text) <= 60 else f"{text[:57]}…")
