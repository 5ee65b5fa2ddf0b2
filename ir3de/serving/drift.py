"""What changed between earlier and live prompts: the experts' shares, unusual prompts, and tokens; NumPy alone."""

from dataclasses import dataclass

import numpy as np

from ir3de.functional.drift import (
    Shares,
    distance,
    distance_by_chance,
    each_rate_the_same,
    each_the_same,
    same_distribution,
    shares,
    z_scores,
)
from ir3de.serving.alarm import Alarm
from ir3de.serving.traffic import GROUPS, Traffic

Array = np.ndarray
LEAST = 100  # prompts of a sample: with fewer, chance explains nearly everything
_LEAST_GROUPS = GROUPS // 2  # that have some: so many different prompts are in nearly all groups
_TESTED = 4_000  # the most frequent tokens; the others are tested as one
_MENTIONED = 20  # tokens
_CERTAIN = 4.0  # standard errors that a token's share must have changed by to be mentioned


@dataclass(frozen=True)
class ExpertDrift:
    """One expert: its share of the prompts and the share of unusual ones among those, each earlier and live.

    ``None`` is a share of no prompts. The p-values allow for there being several experts, and for there being few
    prompts of one.
    """

    expert: str
    share: tuple[float, float]
    share_p_value: float
    unusual: tuple[float | None, float | None]
    unusual_p_value: float


@dataclass(frozen=True)
class TokenDrift:
    """One token: its share of all tokens earlier and live, and their difference in standard errors."""

    token: int
    share: tuple[float, float]
    z: float


@dataclass(frozen=True)
class Drift:
    """What changed; ``distance`` is 0 for equal token distributions and 1 for those that share no token.

    ``by_chance`` of it is due to the samples' sizes, and ``p_value`` is how often chance makes it as large.
    ``from_training`` is each sample's distance from the training counts, mixed in the sample's own shares of experts,
    less what is due to chance: what a change of the mix does not explain.
    """

    prompts: tuple[int, int]
    tokens: tuple[int, int]
    distance: float
    by_chance: float
    p_value: float
    from_training: tuple[float, float]
    experts: list[ExpertDrift]
    telling: list[TokenDrift]


def compare(earlier: Traffic, live: Traffic, alarm: Alarm) -> Drift:
    """Return what changed from one sample of prompts to another.

    Raises:
        ValueError: if they are of different routers, or one has fewer than ``LEAST`` prompts, or a few over and over.
    """
    if earlier.identity != live.identity:
        raise ValueError(
            f"Expected counts of one router to compare, but got those of {earlier.identity[:12]} and"
            f" {live.identity[:12]}. Count both with the router as it is now."
        )
    for name, traffic in (("earlier", earlier), ("live", live)):
        if traffic.prompts < LEAST:
            raise ValueError(
                f"Expected at least {LEAST} {name} prompts to tell drift from chance, but got {traffic.prompts}."
                " Collect more of them."
            )
        groups = int(traffic.prompts_GE.any(axis=1).sum())
        if groups < _LEAST_GROUPS:
            raise ValueError(
                f"Expected {name} prompts that differ, in at least {_LEAST_GROUPS} of {GROUPS} groups, but the"
                f" {traffic.prompts} are a few that came again and again, in {groups}. Collect others."
            )
    tokens = [_token_shares(traffic) for traffic in (earlier, live)]
    frequent = _frequent(earlier, live)
    tested = [one.picked(frequent) for one in tokens]
    return Drift(
        prompts=(earlier.prompts, live.prompts),
        tokens=(earlier.tokens, live.tokens),
        distance=distance(tested[0].share_X, tested[1].share_X),
        by_chance=distance_by_chance(*tested),
        p_value=same_distribution(*tested),
        from_training=(_from_training(earlier, tokens[0], alarm), _from_training(live, tokens[1], alarm)),
        experts=_experts(earlier, live),
        telling=_telling(tokens[0], tokens[1], frequent),
    )


def _token_shares(traffic: Traffic) -> Shares:
    return shares(traffic.tokens_GV, traffic.tokens_GV.sum(axis=1, keepdims=True))


def _frequent(earlier: Traffic, live: Traffic) -> Array:
    share_V = sum(one.tokens_GV.sum(axis=0) / one.tokens for one in (earlier, live))
    order_V = np.argsort(-np.asarray(share_V), kind="stable")[:_TESTED]
    return np.sort(order_V[np.asarray(share_V)[order_V] > 0])


def _from_training(traffic: Traffic, tokens: Shares, alarm: Alarm) -> float:
    """Return the distance from the training counts, which no group's chance is in, less the sample's own chance."""
    expected_V = alarm.share_under(traffic.prompts_GE.sum(axis=0) / traffic.prompts)
    fixed = Shares(expected_V, np.zeros((1, len(expected_V))))
    return distance(tokens.share_X, expected_V) - distance_by_chance(tokens, fixed)


def _experts(earlier: Traffic, live: Traffic) -> list[ExpertDrift]:
    both = (earlier, live)
    counts_2E, unusual_2E = (np.stack([one.sum(axis=0) for one in parts]) for parts in (
        [one.prompts_GE for one in both], [one.unusual_GE for one in both]
    ))  # fmt: skip
    totals_2E = np.broadcast_to(counts_2E.sum(axis=1, keepdims=True), counts_2E.shape)
    share = [shares(one.prompts_GE, one.prompts_GE.sum(axis=1, keepdims=True)) for one in both]
    unusual = [shares(one.unusual_GE, one.prompts_GE) for one in both]
    # groups allow for a prompt that comes again, and the exact test for few prompts: certain is what both find
    share_p_E = np.maximum(each_the_same(*share), each_rate_the_same(counts_2E, totals_2E))
    unusual_p_E = np.maximum(each_the_same(*unusual), each_rate_the_same(unusual_2E, counts_2E))
    return [
        ExpertDrift(
            name,
            (float(share[0].share_X[i]), float(share[1].share_X[i])), float(share_p_E[i]),
            (_known(unusual[0], counts_2E[0], i), _known(unusual[1], counts_2E[1], i)), float(unusual_p_E[i]),
        )
        for i, name in enumerate(live.expert_names)
    ]  # fmt: skip


def _known(unusual: Shares, prompts_E: Array, expert: int) -> float | None:
    return float(unusual.share_X[expert]) if prompts_E[expert] else None


def _telling(earlier: Shares, live: Shares, frequent: Array) -> list[TokenDrift]:
    """Return the tokens that add most to the distance among those whose change is no chance."""
    z_V = z_scores(earlier, live)
    total_V = earlier.share_X + live.share_X
    part_V = (live.share_X - earlier.share_X) ** 2 / np.where(total_V > 0, total_V, 1)
    certain = frequent[np.abs(z_V[frequent]) >= _CERTAIN]
    most = certain[np.argsort(-part_V[certain], kind="stable")[:_MENTIONED]]
    return [
        TokenDrift(int(v), (float(earlier.share_X[v]), float(live.share_X[v])), float(z_V[v])) for v in most.tolist()
    ]
