"""Token counts per domain: the whole knowledge of a closed-form token router, in integers (DESIGN.md 3.2)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ir3de.files import replace_file
from ir3de.functional.counts import add_token_counts_


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """How often each vocabulary entry occurs in each domain.

    ``counts_EV`` is ``(E, V)`` int64, a row per name of ``names``, in that order; ``tokenizer`` is the fingerprint of
    the tokenizer that made the ids.
    """

    names: tuple[str, ...]
    counts_EV: Tensor
    tokenizer: str

    @classmethod
    def zeros(cls, names: Sequence[str], *, vocab_size: int, tokenizer: str) -> Self:
        """Return the counts of no text.

        Raises:
            ValueError: if two domains have one name.
        """
        if len(set(names)) != len(names):
            raise ValueError(f"Expected every domain to have a name of its own, but got {list(names)}.")
        return cls(tuple(names), torch.zeros(len(names), vocab_size, dtype=torch.int64), tokenizer)

    @property
    def tokens_E(self) -> Tensor:
        """Tokens of each domain, ``(E,)`` int64."""
        return self.counts_EV.sum(dim=1)

    def count_(self, ids_BT: Tensor, mask_BT: Tensor, domain_B: Tensor) -> None:
        """Count a batch in place; see ``add_token_counts_`` for shapes and errors."""
        add_token_counts_(self.counts_EV, ids_BT, mask_BT, domain_B)

    def __add__(self, other: "TokenCounts") -> "TokenCounts":
        """Return the counts of both texts, which must have the same domains and the same tokenizer.

        Raises:
            ValueError: if they do not.
        """
        if self.tokenizer != other.tokenizer or self.counts_EV.shape[1] != other.counts_EV.shape[1]:
            raise ValueError(
                f"Expected counts made by one tokenizer, but got {self.tokenizer[:12]} ({self.counts_EV.shape[1]}"
                f" entries) and {other.tokenizer[:12]} ({other.counts_EV.shape[1]} entries). Count again with one."
            )
        if self.names != other.names:
            raise ValueError(f"Expected the same domains in the same order, but got {self.names} and {other.names}.")
        return TokenCounts(self.names, self.counts_EV + other.counts_EV, self.tokenizer)

    def state(self) -> dict[str, Any]:
        """Return the counts as plain values, which a checkpoint loads with ``weights_only=True``."""
        return {"names": list(self.names), "counts": self.counts_EV, "tokenizer": self.tokenizer}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the counts of a ``state``; other keys in it are ignored."""
        return cls(tuple(state["names"]), state["counts"], state["tokenizer"])

    def save(self, path: Path) -> None:
        """Write the counts as safetensors; equal counts are equal bytes."""
        # One metadata key only: safetensors writes several in no fixed order.
        about = {"format": 1, "names": list(self.names), "tokenizer": self.tokenizer}
        replace_file(path, save({"counts": self.counts_EV.contiguous()}, {"ir3de": json.dumps(about, sort_keys=True)}))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read counts that ``save`` wrote.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is truncated or holds something else.
        """
        if not path.is_file():
            raise FileNotFoundError(f"Expected token counts at `{path}`, but there is no such file.")
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads(file.metadata()["ir3de"])
                return cls(tuple(about["names"]), file.get_tensor("counts"), about["tokenizer"])
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"`{path}` holds no whole token counts ({error}). Fit the router again.") from error
