"""Text to measure on: the quickstart's domains, a part held out; routers fitted on the rest."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ir3de.compiling.router import compile_router
from ir3de.data.installed import Docstrings, PackageFiles, PythonSource
from ir3de.data.sources import TextSource
from ir3de.pretrained.tokenizer import TextTokenizer
from ir3de.routers import Embeddings, NaiveBayesRouter, RidgeRouter, SmoothedBayesRouter, TokenTableRouter
from ir3de.serving import CompiledRouter
from ir3de.statistics.held_out import TokenBags
from ir3de.statistics.token_counts import DomainCounts, TokenCounts

Texts = dict[str, list[str]]
Cut = Callable[[list[np.ndarray]], list[np.ndarray]]
PASSAGE = 400  # characters
K = 50


def installed_text(max_bytes: int) -> Texts:
    """Return documents of the quickstart's domains."""
    sources: dict[str, TextSource] = {
        "code": PythonSource(max_bytes=max_bytes),
        "math": Docstrings(["sympy"], max_bytes=max_bytes),
        "deep_learning": Docstrings(["torch", "transformers"], max_bytes=max_bytes),
        "tables": Docstrings(["pandas"], max_bytes=max_bytes),
        "law": PackageFiles("spdx", "data/*.txt", max_bytes=max_bytes, encoding_errors="replace"),
    }
    return {name: list(source.documents()) for name, source in sources.items()}


def split(texts: Texts) -> tuple[Texts, Texts]:
    """Return four fifths of the documents, and the rest, in a drawn order."""
    train, test = {}, {}
    for name, documents in texts.items():
        order = np.random.default_rng(0).permutation(len(documents))
        cut = len(documents) // 5
        test[name] = [documents[i] for i in order[:cut]]
        train[name] = [documents[i] for i in order[cut:]]
    return train, test


def passages(texts: Texts, at_most: int | None, characters: int = PASSAGE) -> Texts:
    """Return the documents in passages, none longer than ``characters``; of each domain's at most so many, spread."""
    found = {}
    for name, documents in texts.items():
        cut = [one[i : i + characters] for one in documents for i in range(0, len(one), characters)]
        cut = [one for one in cut if one.strip()]
        number = len(cut) if at_most is None else at_most
        found[name] = [cut[i] for i in np.unique(np.linspace(0, len(cut) - 1, number).astype(int))]
    return found


def cut_texts(test: Texts, characters: int, number: int) -> list[str]:
    """Return texts of this many characters in turns of the domains, documents of one domain put together."""
    long = {name: "\n\n".join(documents) for name, documents in test.items()}
    enough = {name: text for name, text in long.items() if len(text) >= characters}
    per_domain = -(-number // len(enough))
    found: list[str] = []
    for text in enough.values():
        step = max(1, (len(text) - characters) // per_domain)
        found += [text[i * step : i * step + characters] for i in range(per_domain)]
    full = [text for text in found if len(text) == characters]
    return [full[i] for i in np.random.default_rng(0).permutation(len(full))[:number]]


def share_of(documents: list[str], tokenizer: TextTokenizer, cut: Cut | None = None) -> DomainCounts:
    """Return a domain's token counts; a fifth of its documents, ``cut`` or whole, are held out for validation."""
    ids = tokenizer.encode(documents)
    held = max(1, len(ids) // 5)
    counts_V = np.bincount(np.concatenate(ids[held:]), minlength=tokenizer.vocab_size)
    sequences = ids[:held] if cut is None else cut(ids[:held])
    return DomainCounts.from_dense(counts_V, validation=TokenBags.from_sequences(sequences))


def together(shares: dict[str, DomainCounts], tokenizer: TextTokenizer) -> TokenCounts:
    """Return the counts that a router is fitted on."""
    return TokenCounts.of(shares, vocab_size=tokenizer.vocab_size, tokenizer=tokenizer.fingerprint)


def count(train: Texts, tokenizer: TextTokenizer) -> TokenCounts:
    """Return the token counts of each domain's documents; see ``share_of``."""
    return together({name: share_of(documents, tokenizer) for name, documents in train.items()}, tokenizer)


def ridge(train: Texts, embeddings: Embeddings) -> RidgeRouter:
    """Return the ridge, by majority, fitted on the documents' counts."""
    router = RidgeRouter(embeddings=embeddings, selector="majority", embedding_table="pointer")
    router.fit(count(train, embeddings.tokenizer))
    return router


def compiled_ridges(router: RidgeRouter, folder: Path) -> dict[str, CompiledRouter]:
    """Return the ridge with each selector, compiled."""
    compiled = {}
    for selector in ("majority", "entropy_top_k", "mean"):
        router.put(router.chosen() | {"selector": selector, "k": K if selector == "entropy_top_k" else None})
        compiled[selector] = compiled_router(router.with_selector(selector), folder / selector)
    return compiled


def compiled_bayes(train: Texts, embeddings: Embeddings, folder: Path) -> dict[str, CompiledRouter]:
    """Return naive Bayes, and counts smoothed by the ridge, compiled."""
    routers: dict[str, TokenTableRouter] = {
        "naive_bayes": NaiveBayesRouter(tokenizer=embeddings.tokenizer),
        "smoothed_bayes": SmoothedBayesRouter(embeddings=embeddings, embedding_table="pointer"),
    }
    counts = count(train, embeddings.tokenizer)
    for router in routers.values():
        router.fit(counts)
    return {name: compiled_router(router, folder / name) for name, router in routers.items()}


def compiled_router(router: TokenTableRouter, folder: Path) -> CompiledRouter:
    """Return a router, saved and compiled in ``folder``."""
    router.save_pretrained(folder)
    return CompiledRouter.load(compile_router(str(folder)))
