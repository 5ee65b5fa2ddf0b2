"""What every router is: a module from token ids to one score per expert."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ir3de.functional.votes import check_prompts
from ir3de.pretrained.tokenizer import TextTokenizer
from ir3de.types import RoutingDecision

Choice = dict[str, Any]


class Router(nn.Module, ABC):
    """Scores prompts over experts; the expert with the highest score is chosen, ties go to the lower index.

    ``expert_names`` is in the bank's order, and empty before the router is fitted. ``closed_form`` says that a
    callback fits the router from counts; otherwise an optimizer trains its parameters.
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

    def choices(self) -> list[Choice]:
        """Return what is left to choose on validation data, the preferred first; nothing by default."""
        return []

    def choose(self, choice: Choice) -> None:
        """Set one of ``choices``."""
        raise ValueError(f"{type(self).__name__} has nothing to choose, but got {choice}.")

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
        if not self.expert_names:
            raise ValueError("Expected a fitted router, but this one has no experts. Run `python main.py fit` first.")
        check_prompts(attention_mask)
        scores_BE = self(input_ids, attention_mask)
        expert_B = scores_BE.argmax(dim=1)  # argmax returns the first of equals
        return RoutingDecision([self.expert_names[i] for i in expert_B.tolist()], expert_B, scores_BE)

    def route(self, prompts: Sequence[str] | Sequence[Sequence[int]]) -> RoutingDecision:
        """Choose an expert for each prompt, given as text or as token ids of the router's own tokenizer.

        Raises:
            ValueError: if there is no prompt, a prompt is empty (its row is named), or an id is out of range.
        """
        if len(prompts) == 0 or isinstance(prompts, str):
            raise ValueError(f"Expected a list of prompts, but got {prompts!r}.")
        ids = (
            self.tokenizer.encode([str(prompt) for prompt in prompts])
            if isinstance(prompts[0], str)
            else [np.asarray(prompt, dtype=np.int64) for prompt in prompts]
        )
        lengths_B = torch.tensor([len(row) for row in ids])
        mask_BT = torch.arange(max(1, int(lengths_B.max()))) < lengths_B[:, None]
        ids_BT = torch.zeros(mask_BT.shape, dtype=torch.int64)
        ids_BT[mask_BT] = torch.from_numpy(np.concatenate(ids).astype(np.int64))
        return self.decide(ids_BT, mask_BT)
