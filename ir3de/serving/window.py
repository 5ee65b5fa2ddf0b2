"""What is read of a long prompt: an explicit choice, whose use is reported with every decision."""

from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

Part = TypeVar("Part", str, np.ndarray)
Keep = Literal["first", "last", "ends", "spread"]
_SPREAD = 8
_PARTS: dict[Keep, int] = {"first": 1, "last": 1, "ends": 2, "spread": _SPREAD}


@dataclass(frozen=True)
class Window:
    """At most ``size`` tokens or characters of a prompt: the first, the last, half from either end, or spread over it.

    What is spread are eight parts of even length at even distances, the first and the last at the ends. Characters are
    cut before the text is tokenized, so that a longer prompt costs no more; tokens after it.
    """

    keep: Keep
    size: int
    unit: Literal["tokens", "characters"]

    def __post_init__(self) -> None:
        if self.keep not in _PARTS:
            raise ValueError(f"Expected a window to keep one of {', '.join(_PARTS)}, but got {self.keep!r}.")
        if self.unit not in ("tokens", "characters"):
            raise ValueError(f"Expected a window in tokens or characters, but got {self.unit!r}.")
        least = _PARTS[self.keep]
        if self.size < least:
            raise ValueError(f"Expected a window that keeps {self.keep} to be at least {least}, but got {self.size}.")

    def parts(self, prompt: Part) -> list[Part]:
        """Return what is kept of a prompt that is longer than ``size``, in order, in one or more parts."""
        if self.keep == "first":
            return [prompt[: self.size]]
        if self.keep == "last":
            return [prompt[-self.size :]]
        number = _PARTS[self.keep]
        sizes = [self.size // number + (i < self.size % number) for i in range(number)]
        left_out = len(prompt) - self.size
        begins = [sum(sizes[:i]) + left_out * i // (number - 1) for i in range(number)]
        return [prompt[begin : begin + size] for begin, size in zip(begins, sizes, strict=True)]

    def as_dict(self) -> dict[str, str | int]:
        """Return the window as plain values."""
        return {"keep": self.keep, "size": self.size, "unit": self.unit}
