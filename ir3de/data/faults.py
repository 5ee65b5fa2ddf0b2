"""What the published code does otherwise and numbers depend on: off by default, so that it can be measured."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from ir3de.data.domain import Splits
from ir3de.data.sources import Source
from ir3de.experts.bank import DTypeName

_BATCH = 16  # sequences of a batch in the published code


@dataclass(frozen=True)
class RoutedLimit:
    """Of the sequences that go to an expert only the first few are evaluated, in the order ``order_N`` ``(N,)``."""

    sequences: int
    order_N: Tensor

    @classmethod
    def of(cls, batches: int | None, domain_N: Tensor, *, order: Sequence[int]) -> Self | None:
        """Return the limit of so many batches, or nothing; domains ``domain_N`` ``(N,)`` come in the given order."""
        if batches is None:
            return None
        return cls(_BATCH * batches, torch.tensor(order).argsort()[domain_N].argsort(stable=True))


@dataclass(frozen=True, kw_only=True)
class Faults:
    """Behaviours of the published code that change numbers (DESIGN.md section 5); `protocol: published` sets them.

    Args:
        count_padding: Sequences that are shorter than `data.block_length` are filled with the end of text, in the
            tokenizer that reads them, and the filling is fitted, votes, and counts in perplexity.
        fit_on_test: Domains whose test sequences take the place of their training sequences.
        repeat_to: Training sequences of domains that have fewer are repeated up to so many, for routers that are solved
            from counts.
        choose_on_test: What a closed-form router leaves open (selector, k, λ) is chosen on the test sequences.
        drop_encoder_masks: Encoders attend to padding: in batches of 16 test sequences in their order, and for kNN of
            training sequences too.
        trained_on: Other text for gradient-trained routers, for training and validation: a source for every domain.
        freeze_pooler: MoDEM's pooler stays as it was drawn.
        keep_last_epoch: A gradient-trained router is saved as it was in its last epoch, not in its best.
        routed_batches: Only the first so many batches of 16 sequences that go to an expert are evaluated, over all
            domains in the order in which the config names them.
        own_dtype: The precision in which a domain's own expert is evaluated, where the routed one has
            `experts.losses.dtype`.
    """

    count_padding: bool = False
    fit_on_test: list[str] = field(default_factory=list)
    repeat_to: int | None = None
    choose_on_test: bool = False
    drop_encoder_masks: bool = False
    trained_on: dict[str, str | Source | Splits] | None = None
    freeze_pooler: bool = False
    keep_last_epoch: bool = False
    routed_batches: int | None = None
    own_dtype: DTypeName | None = None

    def __post_init__(self) -> None:
        for name in ("routed_batches", "repeat_to"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"Expected `faults.{name}` to be at least 1 or null, but got {value}.")

    @property
    def on(self) -> list[str]:
        """The names of those that are on."""
        return [name for name, value in vars(self).items() if value not in (None, False, [])]
