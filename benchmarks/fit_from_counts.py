"""How much faster the ridge is fitted from token counts than from the stream of embeddings, as published.

    python benchmarks/fit_from_counts.py [--tokens 16400000] [--streamed-fraction 0.02]

Both sides start from token ids in memory, Zipf-distributed tokens of five domains in rows of 1,024, and end with W. The
streamed side is float32 in batches of 16 rows, as published; it is measured on a stated fraction and scaled.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ir3de.functional.counts import SparseCounts, add_token_counts_
from ir3de.functional.ridge import domain_weights, gram_from_counts, solve_ridge

VOCAB, DIM, DOMAINS, LENGTH = 49_152, 576, 5, 1024
BATCH, ROWS_AT_ONCE = 16, 4096  # rows: the published batch, and what `fit` counts of a file at a time
REGULARIZATION = 1e-2


def make_tokens(num_tokens: int) -> list[Tensor]:
    """Return each domain's ids ``(N, 1024)`` int64: Zipf over the vocabulary, in an order of the domain's own."""
    generator = torch.Generator().manual_seed(0)
    p_V = 1 / (torch.arange(VOCAB, dtype=torch.float64) + 2.7)
    edges_V = (p_V / p_V.sum()).cumsum(0).float()
    domains = []
    for _ in range(DOMAINS):
        order_V = torch.randperm(VOCAB, generator=generator)
        rows = -(-num_tokens // LENGTH)
        uniform_NT = torch.rand(rows, LENGTH, generator=generator)
        domains.append(order_V[torch.searchsorted(edges_V, uniform_NT).clamp_(max=VOCAB - 1)])
    return domains


def fit_from_counts(table_VD: Tensor, domains: list[Tensor]) -> tuple[Tensor, float, float]:
    """Return W, the seconds of counting, and the seconds of Gram matrix and solve."""
    start = time.perf_counter()
    counts_EV = np.zeros((DOMAINS, VOCAB), dtype=np.int64)
    for counts_V, ids_NT in zip(counts_EV, domains, strict=True):
        for first in range(0, len(ids_NT), ROWS_AT_ONCE):
            add_token_counts_(counts_V, ids_NT[first : first + ROWS_AT_ONCE].numpy().ravel())
    counted = time.perf_counter()
    seen = [np.flatnonzero(counts_V).astype(np.int32) for counts_V in counts_EV]
    counts = SparseCounts(seen, [counts_V[ids_S] for counts_V, ids_S in zip(counts_EV, seen, strict=True)], VOCAB)
    weights_E = domain_weights(torch.from_numpy(counts_EV.sum(axis=1)), "none")
    weight_DE = solve_ridge(*gram_from_counts(table_VD, counts, weights_E), REGULARIZATION)
    return weight_DE, counted - start, time.perf_counter() - counted


def fit_streamed(table_VD: Tensor, domains: list[Tensor], fraction: float) -> tuple[Tensor, float, float]:
    """Return W of the fraction, the seconds of its sums scaled to the whole, and the seconds of the solve."""
    xx_DD, xy_DE = torch.zeros(DIM + 1, DIM + 1), torch.zeros(DIM + 1, DOMAINS)
    spent, done, total = 0.0, 0, sum(len(ids_NT) for ids_NT in domains)
    for domain, ids_NT in enumerate(domains):
        take_NT = ids_NT[: max(BATCH, round(fraction * len(ids_NT)))]
        start = time.perf_counter()
        for ids_BT in take_NT.split(BATCH):
            x_MD = torch.nn.functional.embedding(ids_BT, table_VD).reshape(-1, DIM)
            x_MD = torch.cat([x_MD, torch.ones(len(x_MD), 1)], dim=1)
            y_ME = torch.nn.functional.one_hot(torch.tensor(domain), DOMAINS).float().expand(len(x_MD), -1)
            xx_DD += x_MD.T @ x_MD
            xy_DE += x_MD.T @ y_ME
        spent += time.perf_counter() - start
        done += len(take_NT)
    start = time.perf_counter()
    weight_DE = torch.linalg.solve(xx_DD + REGULARIZATION * torch.eye(DIM + 1), xy_DE)
    return weight_DE, spent * total / done, time.perf_counter() - start


def main() -> None:
    """Measure both sides at each size, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1_000_000, 16_400_000], help="tokens of each domain")
    parser.add_argument("--streamed-fraction", type=float, default=0.02, help="share of the stream that is measured")
    parser.add_argument("--json", type=Path, help="write every number here")
    arguments = parser.parse_args()
    table_VD = 0.1 * torch.randn(VOCAB, DIM, generator=torch.Generator().manual_seed(1))
    table = Table(title=f"V = {VOCAB:,}, d = {DIM}, {DOMAINS} domains, {torch.get_num_threads()} threads; seconds")
    for column in ("tokens a domain", "counting", "Gram + solve", "from counts", "streamed", "ratio", "W differs by"):
        table.add_column(column, justify="right")
    result: dict[str, dict[str, float]] = {}
    for num_tokens in arguments.tokens:
        domains = make_tokens(num_tokens)
        fraction = max(arguments.streamed_fraction, min(1.0, 200_000 / num_tokens))
        streamed_DE, summing, solving = fit_streamed(table_VD, domains, fraction)
        _, counting, gram = fit_from_counts(table_VD, domains)
        same_DE = fit_from_counts(table_VD, [d[: max(BATCH, round(fraction * len(d)))] for d in domains])[0]
        difference = float((same_DE - streamed_DE).norm() / same_DE.norm())
        result[str(num_tokens)] = {
            "counting_seconds": counting, "gram_and_solve_seconds": gram, "streamed_seconds": summing + solving,
            "streamed_fraction_measured": fraction, "relative_difference": difference,
        }  # fmt: skip
        table.add_row(
            f"{num_tokens:,}",
            f"{counting:.2f}",
            f"{gram:.2f}",
            f"{counting + gram:.2f}",
            f"{summing + solving:.1f} ({fraction:.0%} measured)",
            f"{(summing + solving) / (counting + gram):.0f}x",
            f"{difference:.0e}",
        )
    Console(width=130).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
