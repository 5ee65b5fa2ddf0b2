"""The scores of fitted routers on held-out sequences, and the file that has them all."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ir3de.data.datamodule import DomainDataModule
from ir3de.data.readable import Split
from ir3de.evaluation.resampling import Table, chosen_values
from ir3de.files import replace_file
from ir3de.routers.router import Router, highest

DECISIONS = "decisions.parquet"


def score_split(router: Router, data: DomainDataModule, split: Split) -> tuple[Tensor, Tensor]:
    """Return the scores ``(N, E)`` float64 of a split's sequences under a router, and its experts ``(N,)`` int64."""
    data.read_as(router)
    loader = data.val_dataloader() if split == "validation" else data.test_dataloader()
    scores, experts = [], []
    with torch.inference_mode():
        for batch in loader:
            scores_BE = router.score_batch(batch).double()
            scores.append(scores_BE)
            experts.append(highest(scores_BE)[0])
    return torch.cat(scores), torch.cat(experts)


def write_decisions(
    path: Path,
    table: Table,
    document_N: np.ndarray,
    experts: Mapping[str, Sequence[Tensor]],
    scores: Mapping[str, Sequence[Tensor]],
) -> None:
    """Write every sequence's expert, regret and scores under every router, a column each; in one step.

    Regret is in nats per token, or in score. Of several seeds, each has columns of its own.
    """
    names, best_N = table.expert_names, chosen_values(table, table.best_N)
    sign = 1 if table.measure == "perplexity" else -1
    columns: dict[str, np.ndarray | list[str]] = {
        "index": np.arange(len(best_N)),
        "domain": [names[i] for i in table.domain_N.tolist()],
        "document": document_N,
        "weight": table.weights_N.numpy(),
    }
    for name, of_seeds in experts.items():
        for seed, expert_N in enumerate(of_seeds):
            label = name if len(of_seeds) == 1 else f"{name}/seed_{seed}"
            excess_N = sign * (chosen_values(table, expert_N) - best_N)
            excess_N /= torch.where(table.weights_N > 0, table.weights_N, 1)  # a lone token is no target
            columns[f"{label}/expert"] = [names[i] for i in expert_N.tolist()]
            columns[f"{label}/regret"] = excess_N.numpy()
            for expert, score_N in zip(names, scores[name][seed].T, strict=True):
                columns[f"{label}/score/{expert}"] = score_N.numpy()
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), buffer)
    replace_file(path, buffer.getvalue().to_pybytes())
