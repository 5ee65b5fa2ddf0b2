"""Adding an expert to a router of five, against refitting all six as published, at the size of a Llama 3 table.

    python benchmarks/add_expert.py [--tokens 16400000] [--streamed-tokens 200000]

V = 128,256, d = 2,048. Adding is counting the new domain's tokens and solving again from the counts of all six;
streaming is A += ẽẽᵀ and b += ẽ over all tokens of all six domains in float32, measured on a part and scaled.
"""

import argparse
import time

import numpy as np
import torch
from rich.console import Console
from tokenizers import Tokenizer, models

from ir3de.functional.counts import add_token_counts_
from ir3de.pretrained.tokenizer import TextTokenizer
from ir3de.routers import Embeddings, RidgeRouter
from ir3de.statistics.token_counts import DomainCounts, TokenCounts

VOCAB, DIM, BATCH = 128_256, 2_048, 16_384


def make_ids(num_tokens: int, seed: int) -> np.ndarray:
    """Return token ids, int32: Zipf over the vocabulary, in an order of the domain's own."""
    generator = np.random.default_rng(seed)
    p_V = 1 / (np.arange(VOCAB) + 2.7)
    edges_V = np.cumsum(p_V / p_V.sum())
    order_V = generator.permutation(VOCAB).astype(np.int32)
    return order_V[np.searchsorted(edges_V, generator.random(num_tokens)).clip(max=VOCAB - 1)]


def count(ids_M: np.ndarray) -> DomainCounts:
    """Return the counts of a domain."""
    counts_V = np.zeros(VOCAB, dtype=np.int64)
    add_token_counts_(counts_V, ids_M)
    return DomainCounts.from_dense(counts_V)


def streamed_seconds(table_VD: torch.Tensor, ids_M: np.ndarray) -> float:
    """Return the seconds that the published sums take for these tokens."""
    xx_DD, xy_D = torch.zeros(DIM + 1, DIM + 1), torch.zeros(DIM + 1)
    start = time.perf_counter()
    for first in range(0, len(ids_M), BATCH):
        x_MD = torch.nn.functional.embedding(torch.from_numpy(ids_M[first : first + BATCH]), table_VD)
        x_MD = torch.cat([x_MD, torch.ones(len(x_MD), 1)], dim=1)
        xx_DD += x_MD.T @ x_MD
        xy_D += x_MD.sum(dim=0)
    return time.perf_counter() - start


def main() -> None:
    """Measure both, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=16_400_000, help="tokens of each domain")
    parser.add_argument("--streamed-tokens", type=int, default=200_000, help="tokens that the stream is measured on")
    arguments = parser.parse_args()
    tokenizer = TextTokenizer(Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCAB)}, unk_token="w0")))
    table_VD = 0.1 * torch.randn(VOCAB, DIM, generator=torch.Generator().manual_seed(1))
    router = RidgeRouter(embeddings=Embeddings("random", tokenizer, table_VD), selector="majority")
    shares = {f"expert {i}": count(make_ids(arguments.tokens, i)) for i in range(5)}
    router.fit(TokenCounts.of(shares, vocab_size=VOCAB, tokenizer=tokenizer.fingerprint))

    new = make_ids(arguments.tokens, 5)
    start = time.perf_counter()
    share = count(new)
    counted = time.perf_counter()
    router.add_expert("expert 5", share)
    counting, solving = counted - start, time.perf_counter() - counted
    measured = streamed_seconds(table_VD, new[: arguments.streamed_tokens])
    streamed = measured * 6 * arguments.tokens / arguments.streamed_tokens
    fraction = arguments.streamed_tokens / (6 * arguments.tokens)
    Console(width=120).print(
        f"V = {VOCAB:,}, d = {DIM:,}, {arguments.tokens:,} tokens a domain, {torch.get_num_threads()} threads\n"
        f"add the sixth: counting {counting:.2f} s + solving {solving:.1f} s = {counting + solving:.1f} s\n"
        f"refit all six as published: {streamed:,.0f} s without the solve ({fraction:.2%} measured, {measured:.1f} s)\n"
        f"ratio: {streamed / (counting + solving):.0f}x"
    )


if __name__ == "__main__":
    main()
