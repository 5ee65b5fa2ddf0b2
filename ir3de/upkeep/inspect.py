"""What a saved router knows: its experts, their most telling tokens, and what was chosen."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ir3de.routers import RidgeRouter, TokenTableRouter, load_closed_form

MENTIONED = 8  # tokens that are shown of each expert
LEAST = 5  # occurrences below which a token tells nothing


@dataclass(frozen=True)
class ExpertSummary:
    """One expert: its facts (see ``Share.facts``), its language model where it was told, its most telling tokens."""

    name: str
    facts: dict[str, Any]
    model: str | None
    telling: list[str]


@dataclass(frozen=True)
class RouterSummary:
    """A saved router; ``effective_regularization`` is λ over the mean diagonal of the Gram matrix."""

    router: str
    identity_hash: str
    reads: dict[str, Any]
    settings: dict[str, Any]
    chosen: dict[str, Any]
    scored: list[Any]
    unchecked: list[str]
    effective_regularization: float | None
    experts: list[ExpertSummary]


def inspect(router: str) -> RouterSummary:
    """Return what a saved router knows.

    Args:
        router: The saved router's folder, or the hub's owner/name.

    Raises:
        FileNotFoundError: if the folder is no saved router, or the hub does not give one.
        ValueError: if it is damaged.
    """
    loaded = load_closed_form(router)
    identity = loaded.identity()
    telling = telling_tokens(loaded) if isinstance(loaded, TokenTableRouter) else {}
    return RouterSummary(
        type(loaded).__name__,
        loaded.identity_hash(),
        identity["reads"],
        identity["settings"],
        identity["chosen"],
        loaded.scored_pairs(),
        loaded.unchecked,
        loaded.effective_regularization() if isinstance(loaded, RidgeRouter) else None,
        [
            ExpertSummary(name, facts, loaded.models.get(name), telling.get(name, []))
            for name, facts in identity["experts"].items()
        ],
    )


def telling_tokens(router: TokenTableRouter) -> dict[str, list[str]]:
    """Return, for each expert, the tokens that its domain has most above the others' mean.

    By ``p_k(v) · log(p_k(v) / p(v))``, where ``p`` is the mean of the domains' shares of the token: what each token
    adds to the domain's divergence from all of them.
    """
    statistics = router.statistics
    assert statistics is not None, "a saved router is fitted"
    mean_V = np.zeros(statistics.vocab_size)
    for share in statistics.shares.values():
        mean_V[share.ids_S] += share.counts_S / share.tokens / len(statistics.shares)
    found = {}
    for name, share in statistics.shares.items():
        p_S = share.counts_S / share.tokens
        value_S = np.where(share.counts_S >= LEAST, p_S * np.log(p_S / mean_V[share.ids_S]), -np.inf)
        best_S = value_S.argsort(kind="stable")[::-1][:MENTIONED]
        ids = [int(share.ids_S[i]) for i in best_S if value_S[i] > 0]
        found[name] = [router.tokenizer.backend.decode([token], skip_special_tokens=False) for token in ids]
    return found
