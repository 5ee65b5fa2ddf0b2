"""Resampled sums and the intervals of the verdict, against one resample at a time in plain NumPy."""

import math

import numpy as np
import pytest
import torch

from ir3de.evaluation import bootstrap
from ir3de.evaluation.bootstrap import interval, paired_p_value, resampled_sums
from ir3de.evaluation.verdict import make_verdict
from ir3de.experts.loss_table import LossTable
from ir3de.experts.score_table import ScoreTable
from tests.helpers.losses import NAMES, made_up_losses


def _mostly_right(table, seed=3):
    generator = torch.Generator().manual_seed(seed)
    wrong_N = torch.rand(len(table.domain_N), generator=generator) < 0.3
    return torch.where(wrong_N, (table.domain_N + 1) % 3, table.domain_N)


@pytest.mark.parametrize("at_once", [1, 50, 1 << 24])
def test_sums_are_those_of_drawn_rows(at_once, monkeypatch):
    monkeypatch.setattr(bootstrap, "_DRAWS_AT_ONCE", at_once)
    values_NC = torch.rand(17, 2, dtype=torch.float64)
    domain_N = torch.tensor([0, 2] * 8 + [2])
    sums_RDC = resampled_sums(values_NC, domain_N, torch.arange(17), 4, seed=5, resamples=9)
    generator = np.random.default_rng(5)
    for domain in (0, 2):  # domains come one after the other, and within them resamples
        rows = values_NC[domain_N == domain].numpy()
        for resample in range(9):
            drawn = generator.integers(len(rows), size=(1, len(rows)))[0]
            np.testing.assert_allclose(sums_RDC[resample, domain].numpy(), rows[drawn].sum(axis=0), rtol=1e-12)
    assert not sums_RDC[:, [1, 3]].any()


def test_intervals_are_percentiles_of_the_metrics_of_resamples():
    table = made_up_losses(60)
    expert_N = _mostly_right(table)
    (row,) = make_verdict({"mine": expert_N}, table, document_N=torch.arange(60), seed=1).routers
    best = max(range(3), key=lambda i: _metrics(table, torch.full_like(expert_N, i), 0, np.arange(60))["performance"])
    generator = np.random.default_rng(1)
    draws = [generator.integers(20, size=(1000, 20)) for _ in range(3)]
    found = []
    for resample in range(1000):
        rows = np.concatenate([np.flatnonzero(table.domain_N.numpy() == d)[draws[d][resample]] for d in range(3)])
        found.append(_metrics(table, expert_N, best, rows))
    keys = {"performance": "normalized_performance", "gain": "oracle_gain", "regret": "regret",
            "accuracy": "routing_accuracy_mean", "law": "quality/law"}  # fmt: skip
    for mine, theirs in keys.items():
        low, high = np.percentile([one[mine] for one in found], [2.5, 97.5])
        assert row.intervals[theirs] == pytest.approx((low, high), rel=1e-9), theirs
    point = _metrics(table, expert_N, best, np.arange(60))
    assert row.normalized_performance == pytest.approx(point["performance"])
    assert row.oracle_gain == pytest.approx(point["gain"])
    assert row.regret == pytest.approx(point["regret"])


def _metrics(table, expert_N, best, rows):
    nll, tokens, domain = (one.numpy()[rows] for one in (table.nll_NE, table.tokens_N, table.domain_N))
    expert = expert_N.numpy()[rows]

    def perplexity(chosen, d):
        mine = domain == d
        return math.exp(nll[np.arange(len(rows)), chosen][mine].sum() / tokens[mine].sum())

    routed, own, single = (
        [perplexity(chosen, d) for d in range(3)] for chosen in (expert, domain, np.full_like(expert, best))
    )
    gains = [np.mean(np.log(single)) - np.mean(np.log(one)) for one in (routed, own)]
    return {
        "performance": 100 * np.mean([o / r for o, r in zip(own, routed, strict=True)]),
        "gain": 100 * gains[0] / gains[1],
        "regret": (nll[np.arange(len(rows)), expert] - nll.min(axis=1)).sum() / tokens.sum(),
        "accuracy": 100 * np.mean([(expert == domain)[domain == d].mean() for d in range(3)]),
        "law": routed[1],
    }


def test_scores_are_better_the_higher_they_are():
    generator = torch.Generator().manual_seed(0)
    score_NE = torch.rand(60, 3, generator=generator, dtype=torch.float64)
    domain_N = torch.arange(60) % 3
    score_NE[torch.arange(60), domain_N] += 1
    table = ScoreTable(score_NE, domain_N, NAMES, "key", cost_NE=torch.tensor([1.0, 2, 3]).double().expand(60, 3))
    expert_N = _mostly_right(table)
    verdict = make_verdict({"mine": expert_N}, table, document_N=torch.arange(60), seed=1)
    (row,) = verdict.routers
    chosen_N = score_NE[torch.arange(60), expert_N]
    own_N = score_NE[torch.arange(60), domain_N]
    ratios = [100 * float(chosen_N[domain_N == d].mean() / own_N[domain_N == d].mean()) for d in range(3)]
    assert verdict.measure == "score"
    assert row.normalized_performance == pytest.approx(sum(ratios) / 3)
    assert row.normalized_performance < 100
    assert row.regret == pytest.approx(float((score_NE.max(dim=1).values - chosen_N).mean()))
    assert row.cost == pytest.approx(float((expert_N + 1).double().mean()))
    by_name = {one.router.split(" (")[0]: one for one in verdict.references}
    assert by_name["oracle"].oracle_gain == pytest.approx(100)
    assert by_name["best single expert"].oracle_gain == pytest.approx(0)
    assert by_name["score oracle"].regret == 0
    assert by_name["random"].oracle_gain < row.oracle_gain < 100


def test_documents_are_drawn_with_all_of_their_sequences():
    values_NC = torch.rand(12, 2, dtype=torch.float64)
    domain_N = torch.tensor([0] * 7 + [1] * 5)
    document_N = torch.tensor([4, 4, 9, 9, 9, 2, 4, 4, 4, 0, 1, 1])  # numbers are the domain's own
    sums_RDC = resampled_sums(values_NC, domain_N, document_N, 2, seed=5, resamples=9)
    generator = np.random.default_rng(5)
    for domain in (0, 1):
        mine = domain_N == domain
        rows = [values_NC[mine & (document_N == one)].sum(0).numpy() for one in document_N[mine].unique()]
        for resample in range(9):
            drawn = generator.integers(len(rows), size=(1, len(rows)))[0]
            np.testing.assert_allclose(sums_RDC[resample, domain], sum(rows[i] for i in drawn), rtol=1e-12)


def test_copies_of_a_sequence_in_its_document_make_no_interval_narrower():
    table = made_up_losses(60)
    twice = LossTable(table.nll_NE.repeat(2, 1), table.tokens_N.repeat(2), table.domain_N.repeat(2), NAMES, "key", None)
    expert_N = _mostly_right(table)
    once = make_verdict({"mine": expert_N}, table, document_N=torch.arange(60), seed=1).routers[0]
    copied = make_verdict({"mine": expert_N.repeat(2)}, twice, document_N=torch.arange(60).repeat(2), seed=1).routers[0]
    for key in ("normalized_performance", "routing_accuracy_mean", "regret"):
        assert copied.intervals[key] == pytest.approx(once.intervals[key]), key


def test_seeds_are_averaged_metric_by_metric():
    table = made_up_losses(60)
    both = torch.stack([_mostly_right(table, seed=1), _mostly_right(table, seed=2)])
    every = {"both": both, "one": both[0], "two": both[1]}
    rows = make_verdict(every, table, document_N=torch.arange(60), seed=1).routers
    for key in ("normalized_performance", "routing_accuracy_mean", "regret", "oracle_gain"):
        values = [getattr(row, key) for row in rows]
        assert values[0] == pytest.approx((values[1] + values[2]) / 2), key
    assert rows[0].intervals["regret"] != rows[1].intervals["regret"]


@pytest.mark.parametrize("differences, expected", [
    ([1.0] * 999, 2 / 1000), ([-1.0] * 999, 2 / 1000), ([0.0] * 999, 1), ([-1.0, 1.0] * 500, 1),
    ([-1.0] * 10 + [1.0] * 989, 22 / 1000),
])  # fmt: skip
def test_a_paired_difference_has_a_two_sided_p_value(differences, expected):
    assert paired_p_value(torch.tensor(differences)) == pytest.approx(expected, abs=2e-3)


def test_a_metric_that_some_resamples_lack_has_no_interval():
    assert interval(torch.tensor([1.0, math.nan])) is None


def test_weighted_scores_are_weighted_means():
    """Repeating a row is weighing it: points, and with it the regret, are those of the repeated rows."""
    generator = torch.Generator().manual_seed(4)
    score_NE = torch.rand(30, 3, generator=generator, dtype=torch.float64)
    times_N = torch.randint(1, 5, (30,), generator=generator)
    domain_N, expert_N = torch.arange(30) % 3, torch.randint(3, (30,), generator=generator)
    weighted = ScoreTable(score_NE, domain_N, NAMES, "key", weight_N=times_N / 4, average_score_N=score_NE[:, 1])
    every_M = torch.arange(30).repeat_interleave(times_N)
    repeated = ScoreTable(score_NE[every_M], domain_N[every_M], NAMES, "key", average_score_N=score_NE[every_M, 1])
    rows = [
        make_verdict({"mine": expert}, table, document_N=document_N, seed=0)
        for table, expert, document_N in (
            (weighted, expert_N, torch.arange(30)), (repeated, expert_N[every_M], every_M)
        )
    ]  # fmt: skip
    for mine, theirs in zip(*([*one.routers, *one.references[:4]] for one in rows), strict=True):
        assert mine.router == theirs.router
        assert mine.quality == pytest.approx(theirs.quality, abs=1e-12)
        for metric in ("normalized_performance", "oracle_gain", "regret"):
            assert getattr(mine, metric) == pytest.approx(getattr(theirs, metric), abs=1e-9)
        for name in ("normalized_performance", "regret", "quality/law"):  # the same draws of documents
            assert mine.intervals[name] == pytest.approx(theirs.intervals[name], abs=1e-9)
    assert rows[0].references[3].router == "average of the weights"
    expected = {
        name: {d: float((times_N * score_NE[:, e])[domain_N == i].sum() / times_N[domain_N == i].sum())
               for i, d in enumerate(NAMES)} for e, name in enumerate(NAMES)
    }  # fmt: skip
    for name in NAMES:
        assert rows[0].expert_quality[name] == pytest.approx(expected[name], abs=1e-12)
