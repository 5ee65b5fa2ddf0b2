"""What every router is: a module from token ids to one score per expert."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ir3de.functional.votes import check_prompts
from ir3de.pretrained.tokenizer import TextTokenizer
from ir3de.types import RoutingDecision

Prompts = Sequence[str] | Sequence[Sequence[int]]


class Router(nn.Module, ABC):
    """Scores prompts over experts; the expert with the highest score is chosen, ties go to the lower index.

    ``expert_names`` is in alphabetical order, and empty before the router is fitted. ``closed_form`` says that a
    callback fits the router from statistics; otherwise an optimizer trains its parameters.
    """

    expert_names: tuple[str, ...] = ()
    closed_form: bool = False

    @property
    @abstractmethod
    def tokenizer(self) -> TextTokenizer:
        """The router's own tokenizer, read when it is first needed."""

    @abstractmethod
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return scores ``(B, E)`` float64 for ids ``(B, T)`` int64 with a mask ``(B, T)`` bool, no row empty."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return what the router was configured with: plain values, equal for equal routers."""

    def siblings(self) -> dict[str, "Router"]:
        """Return the routers, by display name, that the same fit gives for nothing."""
        return {}

    @property
    def display_name(self) -> str:
        """The router's name in tables."""
        return type(self).__name__

    def decide(self, input_ids: Tensor, attention_mask: Tensor) -> RoutingDecision:
        """Choose an expert for each prompt.

        Raises:
            ValueError: if a prompt is empty, an id is out of range, or the router is not fitted.
        """
        self._check_fitted()
        if not len(input_ids):
            return RoutingDecision([], torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.float64))
        check_prompts(attention_mask)
        expert_B, score_B = self.best(input_ids, attention_mask)
        return RoutingDecision([self.expert_names[i] for i in expert_B.tolist()], expert_B, score_B)

    def best(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the expert ``(B,)`` int64 with the highest score, and that score ``(B,)``."""
        scores_BE = self(input_ids, attention_mask)
        expert_B = scores_BE.argmax(dim=1)  # argmax returns the first of equals
        return expert_B, scores_BE.gather(1, expert_B[:, None]).squeeze(1)

    def route(self, prompts: Prompts) -> RoutingDecision:
        """Choose an expert for each prompt, given as text or as token ids of the router's own tokenizer.

        Raises:
            ValueError: if there is no prompt, a prompt is empty (its row is named), or an id is out of range.
        """
        return self.decide(*self._batch(prompts))

    def scores(self, prompts: Prompts) -> Tensor:
        """Return the scores of all experts ``(B, E)``, in the order of ``expert_names``; see ``route``."""
        ids_BT, mask_BT = self._batch(prompts)
        check_prompts(mask_BT)
        scores_BE: Tensor = self(ids_BT, mask_BT)
        return scores_BE

    def _check_fitted(self) -> None:
        if not self.expert_names:
            raise ValueError("Expected a fitted router, but this one has no experts. Run `python main.py fit` first.")

    def _batch(self, prompts: Prompts) -> tuple[Tensor, Tensor]:
        self._check_fitted()
        if len(prompts) == 0 or isinstance(prompts, str):
            raise ValueError(f"Expected a list of prompts, but got {prompts!r}.")
        texts = isinstance(prompts[0], str)
        return pad_rows(self.tokenizer.encode([str(prompt) for prompt in prompts]) if texts else list(prompts))


def pad_rows(rows: Sequence[ArrayLike]) -> tuple[Tensor, Tensor]:
    """Return ids ``(B, T)`` int64, padded on the right, and their mask ``(B, T)`` bool."""
    ids = [np.asarray(row, dtype=np.int64) for row in rows]
    lengths_B = torch.tensor([len(row) for row in ids])
    mask_BT = torch.arange(max(1, int(lengths_B.max()))) < lengths_B[:, None]
    ids_BT = torch.zeros(mask_BT.shape, dtype=torch.int64)
    ids_BT[mask_BT] = torch.from_numpy(np.concatenate(ids))
    return ids_BT, mask_BT
