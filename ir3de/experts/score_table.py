"""A table of scores and costs per prompt and model that was made elsewhere, in the place of a loss table."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ir3de.functional.quality import Measure

_SCORE, _COST = "score:", "cost:"


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Scores of a split's ``N`` sequences under ``E`` experts, more being better; row ``i`` is the split's row ``i``.

    ``score_NE`` is ``(N, E)`` float64; ``cost_NE``, in the table's own unit, is there where the file has costs.
    ``domain_N`` is the ``(N,)`` int64 true domain, and ``key`` the SHA-256 of the scores and costs.
    """

    score_NE: Tensor
    domain_N: Tensor
    expert_names: tuple[str, ...]
    key: str
    cost_NE: Tensor | None = None

    @property
    def measure(self) -> Measure:
        """What the values are."""
        return "score"

    @property
    def values_NE(self) -> Tensor:
        """The scores."""
        return self.score_NE

    @property
    def weights_N(self) -> Tensor:
        """One for each sequence."""
        return torch.ones(len(self.score_NE), dtype=torch.int64)

    @property
    def average_N(self) -> Tensor | None:
        """There is no average of weights."""
        return None

    @property
    def own_N(self) -> Tensor:
        """The scores under each sequence's own expert."""
        return self.score_NE.gather(1, self.domain_N[:, None]).squeeze(1)

    @property
    def best_N(self) -> Tensor:
        """The expert with the highest score of each sequence; the first of equals."""
        return self.score_NE.argmax(dim=1)


def read_score_table(
    path: Path, *, expert_names: Sequence[str], prompts: Sequence[str], domain_N: Tensor
) -> ScoreTable:
    """Read scores of prompts, from CSV or Parquet, and put them into the order of a split.

    The file has a row per prompt: its text in the column ``prompt``, a number ``score:<expert>`` for every expert and,
    if there are costs, ``cost:<expert>``. Rows for other prompts are not used.

    Args:
        path: The file.
        expert_names: The experts, in the bank's order.
        prompts: The text of each of the split's sequences.
        domain_N: Their true domains ``(N,)`` int64.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a column is missing, a prompt has no row or two that differ, or a value is not a finite number.
    """
    if not path.is_file():
        raise FileNotFoundError(f"Expected a table of scores at `{path}` (`experts.losses.table`), but there is none.")
    try:
        table = pq.read_table(path) if path.suffix == ".parquet" else pyarrow.csv.read_csv(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"`{path}` is no readable {path.suffix} table ({str(error).splitlines()[0]}).") from error
    columns = [f"{_SCORE}{name}" for name in expert_names]
    costs = [f"{_COST}{name}" for name in expert_names]
    has_costs = any(name.startswith(_COST) for name in table.column_names)
    missing = [name for name in ["prompt", *columns, *(costs if has_costs else [])] if name not in table.column_names]
    if missing:
        raise ValueError(f"Expected the columns {missing} in `{path}`, but it has {table.column_names}.")
    values_MC = np.stack([_numbers(table, name, path) for name in columns + (costs if has_costs else [])], axis=1)
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
    values_NC = torch.from_numpy(values_MC[[row_of[prompt] for prompt in prompts]])
    key = hashlib.sha256(f"{list(expert_names)}".encode() + values_NC.numpy().tobytes()).hexdigest()
    num_experts = len(expert_names)
    cost_NE = values_NC[:, num_experts:] if has_costs else None
    return ScoreTable(values_NC[:, :num_experts].contiguous(), domain_N, tuple(expert_names), key, cost_NE)


def _numbers(table: pa.Table, name: str, path: Path) -> np.ndarray:
    try:
        values = table[name].cast(pa.float64()).to_numpy()
    except pa.ArrowException as error:
        raise ValueError(f"Expected numbers in the column `{name}` of `{path}`: {error}.") from error
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(f"Expected a number in row {row} of the column `{name}` of `{path}`, but got {values[row]}.")
    return np.asarray(values, dtype=np.float64)


def _short(prompt: str) -> str:
    text = " ".join(prompt.split())
    return repr(text if len(text) <= 60 else f"{text[:57]}…")
