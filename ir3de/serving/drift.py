"""What changed between earlier and live prompts: the experts' shares, unusual prompts, and tokens; NumPy alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ir3de.functional.drift import (
    Shares,
    difference,
    distance,
    distance_by_chance,
    each_rate_the_same,
    each_the_same,
    shares,
    student_p_values,
    z_scores,
)
from ir3de.serving.alarm import Alarm
from ir3de.serving.traffic import GROUPS, Traffic

Array = np.ndarray
LEAST = 100  # prompts of a sample: with fewer, chance explains nearly everything
_LEAST_GROUPS = GROUPS // 2  # that have some: so many different prompts are in nearly all groups
_MENTIONED = 20  # tokens
_LEAST_SPREAD = 20  # groups of both samples that a token has to be in: fewer of them can be a few prompts
_LEVEL = 0.05  # how often a token is mentioned, whichever it is, where nothing changed


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
    found = difference(earlier.tokens_GV, live.tokens_GV)
    return Drift(
        prompts=(earlier.prompts, live.prompts),
        tokens=(earlier.tokens, live.tokens),
        distance=found.distance,
        by_chance=found.by_chance,
        p_value=found.p_value,
        from_training=(_from_training(earlier, tokens[0], alarm), _from_training(live, tokens[1], alarm)),
        experts=_experts(earlier, live),
        telling=_telling(earlier, live, tokens),
    )


def _token_shares(traffic: Traffic) -> Shares:
    return shares(traffic.tokens_GV, traffic.tokens_GV.sum(axis=1, keepdims=True))


def _from_training(traffic: Traffic, tokens: Shares, alarm: Alarm) -> float:
    """Return the distance from the training counts, which no group's chance is in, less the sample's own chance."""
    expected_V = alarm.share_under(traffic.prompts_GE.sum(axis=0) / traffic.prompts)
    return distance(tokens.share_X, expected_V) - distance_by_chance(tokens, expected_V)


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


def _telling(earlier: Traffic, live: Traffic, tokens: Sequence[Shares]) -> list[TokenDrift]:
    """Return the tokens that add most to the distance among those whose change is no chance.

    Each of the tested tokens has its part of the level (Bonferroni), as Student's t with the degrees of freedom of the
    sample in fewer groups. Which are tested does not depend on which sample they are in.
    """
    then_V, now_V = (one.share_X for one in tokens)
    z_V = z_scores(tokens[0], tokens[1], sizes=(earlier.tokens, live.tokens))
    freedom = min(int(one.tokens_GV.any(axis=1).sum()) for one in (earlier, live)) - 1
    total_V = then_V + now_V
    part_V = (now_V - then_V) ** 2 / np.where(total_V > 0, total_V, 1)
    spread_V = sum((one.tokens_GV > 0).sum(axis=0) for one in (earlier, live))
    tested = np.flatnonzero(np.asarray(spread_V) >= _LEAST_SPREAD)
    certain = tested[student_p_values(z_V[tested], freedom) * len(tested) <= _LEVEL]
    most = certain[np.argsort(-part_V[certain], kind="stable")[:_MENTIONED]]
    return [TokenDrift(int(v), (float(then_V[v]), float(now_V[v])), float(z_V[v])) for v in most.tolist()]
