"""What the out-of-domain alarm and the watch over drift need, made from a router's counts and held-out sequences."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ir3de.compiling.held_out import held_out
from ir3de.functional.surprise import (
    LEAST,
    entropy,
    fit_curves,
    floored_share,
    known_lengths,
    p_value,
    surprise,
)
from ir3de.routers import TokenTableRouter
from ir3de.serving.alarm import RANKED, Alarm
from ir3de.serving.tables import Table
from ir3de.serving.traffic import USUAL, Traffic
from ir3de.statistics.token_counts import TokenCounts

Array = np.ndarray
_SEQUENCES = 20_000  # of all experts together, spread evenly over each expert's


class CompiledAlarm(NamedTuple):
    """What a compiled router's config says of its alarm, and the alarm's arrays."""

    config: dict[str, Any]
    arrays: dict[str, Array]


def compile_alarm(router: TokenTableRouter, table: Table, *, identity: str) -> CompiledAlarm | None:
    """Return the alarm of a router with this table and identity; ``None`` if there can be none.

    Beside it are the counts of the validation sequences, as if they had been prompts: what live ones are compared with.
    """
    statistics = router.statistics
    if not isinstance(statistics, TokenCounts):  # a fit on losses knows no domains
        return None
    made = make_alarm(statistics)
    if made is None:
        return None
    alarm, arrays = made
    assert alarm.expert_names == tuple(router.expert_names), "a router's experts are those of its shares"
    usual = _traffic(table, alarm, statistics, identity).arrays()
    config = {key: value for key, value in alarm.config.items() if key != "experts"}
    return CompiledAlarm(config, {**arrays, **{f"usual_{name}": array for name, array in usual.items()}})


def make_alarm(statistics: TokenCounts) -> tuple[Alarm, dict[str, Array]] | None:
    """Return the alarm and its arrays; ``None`` where no expert has ``LEAST`` validation sequences.

    It is a function of the router's shares, so that it is right again after an expert was added or removed.
    """
    bags_E = _held_out(statistics)
    if max(len(bags) for bags in bags_E) < LEAST:
        return None
    surprise_VE = _surprise_table(statistics)
    guard_1E = np.full((1, surprise_VE.shape[1]), np.nan, dtype=np.float32)
    arrays = {
        "surprise": np.concatenate([guard_1E, surprise_VE, guard_1E]),
        **_calibrate(surprise_VE, bags_E),
    }
    config = {
        "experts": list(statistics.names),
        "vocab_size": statistics.vocab_size,
        "sequences": [len(bags) for bags in bags_E],
        "uncalibrated": [name for name, bags in zip(statistics.names, bags_E, strict=True) if len(bags) < LEAST],
    }
    return Alarm(arrays, config), arrays


def _held_out(statistics: TokenCounts) -> list[list[Array]]:
    return held_out(statistics, at_most=max(10 * LEAST, _SEQUENCES // len(statistics.shares)))


def _surprise_table(statistics: TokenCounts) -> Array:
    shares = list(statistics.shares.values())
    vocab_size = statistics.vocab_size
    common_V = np.zeros(vocab_size)
    for share in shares:
        common_V += floored_share(share.dense(vocab_size), share.tokens)
    common_V /= common_V.sum()
    surprise_VE = np.empty((vocab_size, len(shares)), dtype=np.float32)
    for k, share in enumerate(shares):
        surprise_VE[:, k] = surprise(share.dense(vocab_size), share.tokens, common_V)
    return surprise_VE


def _calibrate(surprise_VE: Array, bags_E: Sequence[Sequence[Array]]) -> dict[str, Array]:
    """Return the curves, the tails and the ranks, see ``Alarm``.

    A longer sequence is thinned: half its tokens, drawn, stand for a prompt of half its length. What prompts say goes
    with how long they are, so in the end each sequence is ranked once, at the length that it has.
    """
    lengths_L = known_lengths(np.array([len(ids_T) for bags in bags_E for ids_T in bags]))
    divergence_E = _divergences(surprise_VE, bags_E, lengths_L)
    curves, own = fit_curves(lengths_L, [divergence_NLE[:, :, k] for k, divergence_NLE in enumerate(divergence_E)])
    excesses = []
    for k, divergence_NLE in enumerate(divergence_E):
        columns = [
            curves.excess(divergence_NLE[:, j], np.full(len(divergence_NLE), length))
            for j, length in enumerate(curves.lengths_L.tolist())
        ]
        excess_NLE = np.stack(columns, axis=1)
        excess_NLE[:, :, k] = own[k]
        excesses.append(excess_NLE)
    excess_NLE = np.concatenate(excesses)
    least_NL = excess_NLE.min(axis=2)
    tails = [np.sort(excess_N[~np.isnan(excess_N)]) for excess_N in least_NL.T]
    last_N = (~np.isnan(least_NL)).sum(axis=1) - 1  # the length that each sequence has
    every_N = np.arange(len(last_N))
    rarity_N = np.array([p_value(least_NL[i, j], tails[j]) for i, j in enumerate(last_N.tolist())])
    nearest_N = excess_NLE[every_N, last_N].argmin(axis=1)
    ranks = [np.sort(rarity_N[nearest_N == k]) for k in range(surprise_VE.shape[1])]
    ranks = [own_N if len(own_N) >= RANKED else own_N[:0] for own_N in ranks] + [np.sort(rarity_N)]
    return {
        "lengths": curves.lengths_L,
        "mean": curves.mean_LE,
        "deviation": curves.deviation_LE,
        "tails": np.concatenate(tails),
        "tail_sizes": _sizes(tails),
        "ranks": np.concatenate(ranks),
        "rank_sizes": _sizes(ranks),
    }


def _divergences(surprise_VE: Array, bags_E: Sequence[Sequence[Array]], lengths_L: Array) -> list[Array]:
    """Return the divergences from every expert of each expert's sequences, thinned to each length that they have."""
    draw = np.random.default_rng(0)
    found = []
    for bags in bags_E:
        divergence_NLE = np.full((len(bags), len(lengths_L), surprise_VE.shape[1]), np.nan)
        for i, bag_T in enumerate(bags):
            ids_T = draw.permutation(bag_T)
            for j, length in enumerate(lengths_L[lengths_L <= len(ids_T)].tolist()):
                some_t = ids_T[:length]
                divergence_NLE[i, j] = surprise_VE[some_t].mean(axis=0, dtype=np.float64) - entropy(some_t)
        found.append(divergence_NLE)
    return found


def _sizes(parts: Sequence[Array]) -> Array:
    return np.array([len(part) for part in parts], dtype=np.int64)


def _traffic(table: Table, alarm: Alarm, statistics: TokenCounts, identity: str) -> Traffic:
    traffic = Traffic.none(vocab_size=statistics.vocab_size, expert_names=alarm.expert_names, identity=identity)
    for bags in _held_out(statistics):
        for ids_T in bags:
            unusual = alarm.check(ids_T).p_value < USUAL
            traffic.count(ids_T, expert=table.decide(ids_T), unusual=unusual)
    return traffic
