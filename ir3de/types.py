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
    int64: the true domain and the row in the split. ``text`` has one string per row where it was asked for, and
    ``features`` ``(B, D)`` float32 the rows' vectors for a router that reads those; the token ids are empty then.
    ``next`` ``(B,)`` int64 is the token that follows each row where the data tell (as published), -1 where not.
    """

    input_ids: Tensor
    attention_mask: Tensor
    domain: Tensor
    index: Tensor
    text: NotRequired[list[str]]
    features: NotRequired[Tensor]
    next: NotRequired[Tensor]


class LossBatch(TypedDict):
    """What a fit on losses reads: the router's tokens of sequences, one after the other, and the experts' losses.

    ``ids`` ``(M,)`` and ``lengths`` ``(B,)`` are int64; ``losses`` ``(B, E)`` float64 are in nats per token.
    """

    ids: Tensor
    lengths: Tensor
    losses: Tensor


class ShardCounts(TypedDict):
    """What a closed-form fit reads: the counts of one shard of one domain's training text.

    ``index`` and ``domain`` ``()`` int64 are the shard's and the domain's number (-1 for a shard that is not there),
    ``ids`` ``(S,)`` int32 the entries that occur and ``counts`` ``(S,)`` int64 how often. ``source`` ``()`` int64 is
    the content's hash, 0 where the domain's documents have hashes of their own.
    """

    index: Tensor
    domain: Tensor
    ids: Tensor
    counts: Tensor
    source: Tensor


class RoutingDecision(NamedTuple):  # a frozen dataclass is refused by Lightning's predict loop
    """The expert chosen for each prompt: its name, its index ``(B,)`` int64 and its score ``(B,)`` float64.

    The score is the share of the votes, or the mean token score; ``Router.scores`` has those of all experts.
    """

    names: list[str]
    expert_B: Tensor
    score_B: Tensor
