"""Routers that are a table over the vocabulary: routing is a gather and a vote (DESIGN.md 3.2)."""

from abc import abstractmethod
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor

from ir3de.files import replace_folder
from ir3de.functional.counts import check_token_ids
from ir3de.functional.votes import entropy_ranks, entropy_top_k, majority, mean
from ir3de.pretrained.tokenizer import TextTokenizer
from ir3de.routers.artifact import ROUTER, STATISTICS, read_config, read_tensors, write_config, write_tensors
from ir3de.routers.router import Router
from ir3de.statistics.token_counts import TokenCounts

Selector = Literal["majority", "mean", "entropy_top_k"]


class TokenTableRouter(Router):
    """A router whose token scores depend on nothing but the token's id.

    ``fit`` makes the table from counts: ``scores_VE`` ``(V, E)`` float64, ``winner_V`` (the expert each entry votes
    for) and ``rank_V`` (the entry's place by (entropy, id)), both int32. The counts travel in checkpoints; the
    table is derived from them.
    """

    scores_VE: Tensor
    winner_V: Tensor
    rank_V: Tensor

    closed_form = True

    def __init__(self, *, selector: Selector, k: int | None = None) -> None:
        super().__init__()
        self.selector: Selector = selector
        self.k = k
        self.statistics: TokenCounts | None = None
        for name in ("scores_VE", "winner_V", "rank_V"):
            self.register_buffer(name, torch.empty(0), persistent=False)

    @abstractmethod
    def token_scores(self, statistics: TokenCounts) -> Tensor:
        """Return the table ``(V, E)`` float64 that the counts give."""

    def fit(self, statistics: TokenCounts) -> None:
        """Make the table from ``statistics``, which are kept.

        Raises:
            ValueError: if the counts were made by another tokenizer, or a domain has no tokens.
        """
        if statistics.tokenizer != self.tokenizer.fingerprint:
            raise ValueError(
                f"Expected counts made by the router's tokenizer ({self.tokenizer.fingerprint[:12]}), but they were"
                f" made by {statistics.tokenizer[:12]}. Fit the router again with its own tokenizer."
            )
        empty = [n for n, t in zip(statistics.names, statistics.tokens_E.tolist(), strict=True) if t == 0]
        if empty:
            raise ValueError(f"Expected training tokens for every domain, but {empty} have none. Check `data.domains`.")
        self.statistics = statistics
        self.expert_names = statistics.names
        self.set_table(self.token_scores(statistics))

    def set_table(self, scores_VE: Tensor) -> None:
        """Use ``scores_VE`` ``(V, E)`` and derive each entry's vote and entropy rank from it."""
        device = self.scores_VE.device
        self.scores_VE = scores_VE.to(device)
        self.winner_V = scores_VE.argmax(dim=1).to(torch.int32).to(device)
        self.rank_V = entropy_ranks(scores_VE).to(device)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return scores ``(B, E)`` float64: shares of votes, or the mean of the token scores.

        Raises:
            ValueError: if a real token's id is not in the vocabulary.
        """
        check_token_ids(input_ids.masked_select(attention_mask), len(self.scores_VE))
        if self.selector == "mean":
            return mean(input_ids, attention_mask, self.scores_VE)
        num_experts = self.scores_VE.shape[1]
        if self.selector == "majority":
            return majority(input_ids, attention_mask, self.winner_V, num_experts)
        assert self.k is not None, "k is chosen before the router is used"
        return entropy_top_k(input_ids, attention_mask, self.winner_V, self.rank_V, k=self.k, num_experts=num_experts)

    def get_extra_state(self) -> dict[str, Any]:
        """Return the counts and what was chosen, as plain values that load with ``weights_only=True``."""
        return {} if self.statistics is None else self.statistics.state() | {"chosen": self.chosen()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore a checkpoint's counts and choices, and solve again."""
        if state:
            self.fit(TokenCounts.from_state(state))
            self.choose(state["chosen"])

    @abstractmethod
    def chosen(self) -> dict[str, Any]:
        """Return what is in force of the things that can be chosen on validation data."""

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the router as a folder, in one step; equal routers are equal bytes.

        Raises:
            ValueError: if the router is not fitted.
        """
        if self.statistics is None:
            raise ValueError(f"Expected a fitted router to save in `{folder}`. Run `python main.py fit` first.")
        with replace_folder(Path(folder)) as new:
            write_tensors(new / ROUTER, self.tensors())
            self.statistics.save(new / STATISTICS)
            self.tokenizer.save(new)
            write_config(
                new,
                {
                    "router": type(self).__name__,
                    "experts": list(self.expert_names),
                    "tokens": dict(zip(self.expert_names, self.statistics.tokens_E.tolist(), strict=True)),
                    "tokenizer": self.tokenizer.fingerprint,
                    "settings": self.settings(),
                    "chosen": self.chosen(),
                    **self.save_more(new),
                },
            )

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> Self:
        """Read a router that ``save_pretrained`` wrote; it routes, and solves again, without any language model.

        Raises:
            FileNotFoundError: if the folder is no saved router.
            ValueError: if a file is truncated, the tokenizer is another one, or the router is of another class.
        """
        folder = Path(folder)
        config = read_config(folder)
        if config["router"] != cls.__name__:
            raise ValueError(f"Expected a {cls.__name__} in `{folder}`, but it holds a {config['router']}.")
        tokenizer = TextTokenizer.from_folder(folder)
        statistics = TokenCounts.load(folder / STATISTICS)
        if not config["tokenizer"] == tokenizer.fingerprint == statistics.tokenizer:
            raise ValueError(
                f"The router in `{folder}` was made for tokenizer {config['tokenizer'][:12]} and its counts with"
                f" {statistics.tokenizer[:12]}, but the folder has tokenizer {tokenizer.fingerprint[:12]}. Fit again."
            )
        router = cls.load_more(folder, config, tokenizer)
        router.statistics, router.expert_names = statistics, statistics.names
        router.restore(read_tensors(folder / ROUTER), config["chosen"])
        return router

    def tensors(self) -> dict[str, Tensor]:
        """Return what ``router.safetensors`` holds."""
        return {"scores": self.scores_VE, "winner": self.winner_V, "rank": self.rank_V}

    def restore(self, tensors: dict[str, Tensor], chosen: dict[str, Any]) -> None:
        """Take over saved tensors and choices, without solving."""
        self.scores_VE, self.winner_V, self.rank_V = (tensors[name] for name in ("scores", "winner", "rank"))

    def save_more(self, folder: Path) -> dict[str, Any]:
        """Write files of the router's own into ``folder`` and return what ``config.json`` says of them."""
        return {}

    @classmethod
    @abstractmethod
    def load_more(cls, folder: Path, config: dict[str, Any], tokenizer: TextTokenizer) -> Self:
        """Return an unfitted router with the saved settings."""
