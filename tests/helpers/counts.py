"""Made-up counts, dense where a test is easier to read so."""

import numpy as np
import torch

from ir3de.functional.counts import SparseCounts
from ir3de.statistics.held_out import TokenBags
from ir3de.statistics.token_counts import DomainCounts, TokenCounts
from tests.helpers.text import word_tokenizer

NAMES = ("code", "law", "maths")


def sparse(counts_EV):
    """Return dense counts ``(E, V)`` as the solve takes them."""
    shares = [DomainCounts.from_dense(counts_V.numpy()) for counts_V in counts_EV]
    return SparseCounts([s.ids_S for s in shares], [s.counts_S for s in shares], counts_EV.shape[1])


def share(counts_V, *, validation=(), sources=()):
    """Return one domain's counts, with held-out sequences and sources."""
    bags = TokenBags.from_sequences([np.array(row) for row in validation])
    return DomainCounts.from_dense(
        np.asarray(counts_V), validation=bags, sources=np.array(sorted(sources), dtype=np.int64)
    )


def random_share(seed, *, num_words=20, validation=6):
    """Return the counts of a made-up domain whose words are its own, with sequences drawn from the same."""
    rng = np.random.default_rng(seed)
    p_V = rng.random(num_words) ** 4 + 1e-3
    p_V /= p_V.sum()
    rows = [rng.choice(num_words, size=int(rng.integers(1, 9)), p=p_V) for _ in range(validation)]
    return share(rng.multinomial(500, p_V), validation=rows, sources=rng.integers(1, 2**60, size=4).tolist())


def statistics(shares, *, num_words=20):
    """Return the statistics of shares by name, made with ``word_tokenizer``."""
    return TokenCounts.of(shares, vocab_size=num_words, tokenizer=word_tokenizer(num_words).fingerprint)


def counts(names=NAMES, num_words=20, seed=0):
    """Return random counts of some domains."""
    counts_EV = torch.randint(0, 50, (len(names), num_words), generator=torch.Generator().manual_seed(seed))
    return statistics(
        {name: share(row.numpy()) for name, row in zip(names, counts_EV, strict=True)}, num_words=num_words
    )
