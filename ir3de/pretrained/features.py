"""Features of text from a frozen model: what one vector a sequence, or one a token, is made of."""

import hashlib
import math
from abc import ABC, abstractmethod
from typing import Any, Literal

from torch import Tensor

from ir3de.pretrained.tokenizer import TextTokenizer

SequencePooling = Literal["mean", "first", "last"]


class SequenceFeatures(ABC):
    """A frozen model as a function from token ids to one vector a sequence; loaded when it is first needed."""

    pooling: str

    @property
    @abstractmethod
    def tokenizer(self) -> TextTokenizer:
        """The model's own tokenizer."""

    @property
    @abstractmethod
    def num_features(self) -> int:
        """Features of a vector."""

    @property
    @abstractmethod
    def num_parameters(self) -> int:
        """Numbers that are read to make a vector."""

    @property
    @abstractmethod
    def model_fingerprint(self) -> str:
        """The SHA-256 of what the vectors are made with, whatever the pooling."""

    @property
    @abstractmethod
    def window(self) -> int | None:
        """The tokens of a sequence that the model reads at once: longer ones are read in windows and averaged."""

    @abstractmethod
    def pooled(self, ids_BT: Tensor, mask_BT: Tensor, *, masked: bool = True) -> dict[str, Tensor]:
        """Return the vectors ``(B, D)`` float32 by pooling, all of one pass.

        Without ``masked`` a model that reads in context attends to padding as well, as the published baselines do.
        """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the arguments that make these features again."""

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of what a vector is a function of."""
        return hashlib.sha256(f"{self.model_fingerprint} {self.pooling}".encode()).hexdigest()

    @property
    @abstractmethod
    def display_name(self) -> str:
        """What a table calls them."""

    def __call__(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Return the vectors ``(B, D)`` float32."""
        return self.pooled(ids_BT, mask_BT)[self.pooling]


def windows_of(num_tokens: int, window: int | None) -> list[slice]:
    """Return the windows that a sequence is read in, as even as can be, in order."""
    if window is None or num_tokens <= window:
        return [slice(0, num_tokens)]
    size = math.ceil(num_tokens / math.ceil(num_tokens / window))
    return [slice(first, min(first + size, num_tokens)) for first in range(0, num_tokens, size)]


def average_windows(values_WD: Tensor, row_W: Tensor, weight_W: Tensor, num_rows: int) -> Tensor:
    """Return the weighted mean of each row's windows ``(B, D)``."""
    weight_W = weight_W.to(values_WD)
    sums_BD = values_WD.new_zeros(num_rows, values_WD.shape[1]).index_add(0, row_W, values_WD * weight_W[:, None])
    return sums_BD / values_WD.new_zeros(num_rows).index_add(0, row_W, weight_W)[:, None]
