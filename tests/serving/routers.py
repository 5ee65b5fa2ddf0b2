"""Small fitted routers of every kind, saved."""

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ir3de.pretrained.tokenizer import TextTokenizer
from ir3de.routers import NaiveBayesRouter, RidgeRouter, SmoothedBayesRouter
from ir3de.statistics.token_counts import TokenCounts
from tests.helpers.counts import NAMES, random_share, statistics
from tests.helpers.text import embeddings, word_tokenizer

WORDS = 60
KINDS = {
    "majority": lambda: RidgeRouter(embeddings=embeddings(WORDS), selector="majority"),
    "mean": lambda: RidgeRouter(embeddings=embeddings(WORDS), selector="mean"),
    "entropy_top_1": lambda: RidgeRouter(embeddings=embeddings(WORDS), selector="entropy_top_k", k=1),
    "entropy_top_7": lambda: RidgeRouter(embeddings=embeddings(WORDS), selector="entropy_top_k", k=7),
    "naive_bayes": lambda: NaiveBayesRouter(tokenizer=word_tokenizer(WORDS), smoothing=0.1),
    "smoothed": lambda: SmoothedBayesRouter(embeddings=embeddings(WORDS), strength=100.0),
}
WIDE = 100  # experts, beyond those whose scores are tallied


def fitted(kind, *, names=NAMES, validation=12):
    """Return a router of a kind, fitted on made-up counts."""
    router = KINDS[kind]()
    shares = {name: random_share(i, num_words=WORDS, validation=validation) for i, name in enumerate(names)}
    router.fit(statistics(shares, num_words=WORDS))
    return router


def saved(folder, kind, **options):
    """Return the folder of a fitted router."""
    fitted(kind, **options).save_pretrained(folder)
    return folder


def random_prompts(number, *, vocab=WORDS, longest=50, seed=0):
    """Return prompts as ids; many are short or of few distinct tokens, so that ties are common."""
    draw = np.random.default_rng(seed)
    return [
        draw.integers(0, draw.integers(1, vocab + 1), size=int(draw.integers(1, draw.integers(2, longest + 1))))
        for _ in range(number)
    ]


TEXT = [
    "The quick brown fox don't jump over 12345 lazy dogs;  it'll sleep.\n\n\tdef f(x):\n        return x + 1\n",
    "Über Größe und Straße: «déjà vu», naïve café. ¿Qué pasó? Быстрая лиса 42 раза. 速い茶色の狐、２０２５年。",
    "العربية ١٢٣ हिन्दी ४५६ ไทย 한국어 🙂👍🏽 e\u0301 \u00a0\u3000 \r\n 3.14159e-10 <|im_start|> __init__ '''s''S ''RE",
] * 5


def byte_pair_tokenizer(pieces="plain", *, alphabet=True, special=("<|end|>", "<|im_start|>"), vocab_size=500):
    """Return a byte-level BPE tokenizer whose pieces are made as GPT-2's, SmolLM's or Llama 3's."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made = {
        "plain": byte_level,
        "digits": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level]),
        "split": pre_tokenizers.Sequence([
            pre_tokenizers.Split(_regex(), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]),
    }  # fmt: skip
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = made[pieces]
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(special), show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()) if alphabet else [],
    )  # fmt: skip
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def byte_pair_router(folder, tokenizer=None):
    """Return the folder of a saved naive Bayes router over byte pairs."""
    text = TextTokenizer(byte_pair_tokenizer() if tokenizer is None else tokenizer)
    shares = {
        name: random_share(i, num_words=text.vocab_size, validation=12) for i, name in enumerate(("code", "prose"))
    }
    router = NaiveBayesRouter(tokenizer=text, smoothing=0.1)
    router.fit(TokenCounts.of(shares, vocab_size=text.vocab_size, tokenizer=text.fingerprint))
    router.save_pretrained(folder)
    return folder


def _regex():
    from tokenizers import Regex

    return Regex(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )
