"""Experts whose prompts have lengths and tokens of their own, and prompts like theirs."""

import numpy as np

from ir3de.compiling.router import compile_router
from ir3de.routers import NaiveBayesRouter
from ir3de.statistics.token_counts import TokenCounts
from tests.helpers.counts import share
from tests.helpers.text import word_tokenizer

WORDS, NAMES = 200, ("code", "law", "maths")
_SPOKEN = WORDS - 60  # words that no expert's text has come last


class Speaker:
    """Draws prompts of an expert: bursts of few words, 5 to 60 tokens."""

    def __init__(self, seed):
        base_V = np.random.default_rng(seed).random(_SPOKEN) ** 6 + 1e-4
        self._base_V = base_V / base_V.sum()
        self._draw = np.random.default_rng(1_000 + seed)

    def prompts(self, number):
        """Return prompts as token ids."""
        found = []
        for _ in range(number):
            p_V = self._draw.dirichlet(self._base_V * 60 + 1e-6)
            found.append(self._draw.choice(_SPOKEN, size=int(self._draw.integers(5, 61)), p=p_V))
        return found


def speakers():
    """Return the speaker of each expert."""
    return [Speaker(seed) for seed in range(len(NAMES))]


def router(*, validation=200, few=None):
    """Return a fitted router, with so many validation prompts of each expert; ``few`` of the last one."""
    tokenizer = word_tokenizer(WORDS)
    shares = {}
    for name, speaker in zip(NAMES, speakers(), strict=True):
        counts_V = np.bincount(np.concatenate(speaker.prompts(400)), minlength=WORDS)
        number = few if few is not None and name == NAMES[-1] else validation
        shares[name] = share(counts_V, validation=speaker.prompts(number))
    made = NaiveBayesRouter(tokenizer=tokenizer, smoothing=0.1)
    made.fit(TokenCounts.of(shares, vocab_size=WORDS, tokenizer=tokenizer.fingerprint))
    return made


def saved_with_alarm(folder, **options):
    """Save a router and compile it; return where it is saved."""
    router(**options).save_pretrained(folder)
    compile_router(str(folder))
    return folder


def new_prompts(number):
    """Return prompts that no router has seen, so many of each expert."""
    found = []
    for speaker in speakers():
        speaker.prompts(800)
        found += speaker.prompts(number)
    return found


def as_text(ids_T):
    """Return the text whose ids these are."""
    return " ".join(f"w{i}" for i in ids_T)
