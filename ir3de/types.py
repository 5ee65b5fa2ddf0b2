"""What travels between the parts: batches of token ids and routing decisions.

Shape suffixes used throughout the package: ``N`` sequences of a data set, ``B`` sequences of a batch,
``T`` tokens of a sequence, ``V`` vocabulary entries, ``D`` embedding features, ``E`` experts (one per
domain, in the bank's order), ``K`` tokens kept, ``M`` tokens of a flat run.
"""

from typing import NamedTuple, NotRequired, TypedDict

from torch import Tensor


class Batch(TypedDict):
    """Sequences of token ids, padded on the right to a common length.

    ``input_ids`` and ``attention_mask`` are ``(B, T)`` int64 and bool; ``domain`` and ``index`` are ``(B,)``
    int64: the true domain and the row in the split. ``text`` has one string per row where it was asked for.
    """

    input_ids: Tensor
    attention_mask: Tensor
    domain: Tensor
    index: Tensor
    text: NotRequired[list[str]]


class RoutingDecision(NamedTuple):  # a frozen dataclass is refused by Lightning's predict loop
    """The expert chosen for each prompt: names, ``(B,)`` int64 indices, and the ``(B, E)`` float64 scores."""

    names: list[str]
    expert_B: Tensor
    scores_BE: Tensor
