"""The verdict against plain look-ups, and the choice on validation data."""

import csv
import json
import math

import pytest
import torch

from ir3de.data.faults import RoutedLimit
from ir3de.evaluation.figures import save_confusion_matrix, save_expert_quality
from ir3de.evaluation.report import flat_metrics, print_verdict, verdict_table, write_tables
from ir3de.evaluation.verdict import make_verdict
from ir3de.experts.loss_table import LossTable
from tests.helpers.losses import NAMES, made_up_losses


def _perplexity(losses, column, domain):
    rows = [i for i in range(len(losses.tokens_N)) if losses.domain_N[i] == domain]
    nll = sum(float(losses.nll_NE[i, column[i]]) for i in rows)
    return math.exp(nll / sum(int(losses.tokens_N[i]) for i in rows))


def test_rows_are_what_looking_up_gives():
    losses = made_up_losses()
    expert_N = torch.randint(3, (30,), generator=torch.Generator().manual_seed(5))
    verdict = make_verdict({"mine": expert_N}, losses, document_N=torch.arange(30), seed=0)
    (row,) = verdict.routers
    routed = [_perplexity(losses, expert_N.tolist(), d) for d in range(3)]
    own = [_perplexity(losses, losses.domain_N.tolist(), d) for d in range(3)]
    assert list(row.quality.values()) == pytest.approx(routed)
    expected = sum(100 * o / r for o, r in zip(own, routed, strict=True)) / 3
    assert row.normalized_performance == pytest.approx(expected)
    assert row.routing_accuracy == pytest.approx(100 * float((expert_N == losses.domain_N).double().mean()))
    assert sum(map(sum, row.confusion)) == 30
    assert verdict.expert_quality["law"]["maths"] == pytest.approx(_perplexity(losses, [1] * 30, 2))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("batches", [1, 2, 100])
def test_only_the_first_sequences_of_each_expert_count_where_a_limit_says_so(batches, order):
    losses, limit = made_up_losses(150), 16 * batches
    expert_N = torch.randint(3, (150,), generator=torch.Generator().manual_seed(5))
    kept, given = [], dict.fromkeys(range(3), 0)
    for row in sorted(range(150), key=lambda row: (order.index(int(losses.domain_N[row])), row)):
        expert = int(expert_N[row])
        given[expert] += 1
        if given[expert] <= limit:
            kept.append(row)
    nll, tokens, excess = [0.0] * 3, [0] * 3, 0.0
    for row in kept:
        domain, value = int(losses.domain_N[row]), float(losses.nll_NE[row, expert_N[row]])
        nll[domain] += value
        tokens[domain] += int(losses.tokens_N[row])
        excess += value - float(losses.nll_NE[row].min())
    (row,) = make_verdict(
        {"mine": expert_N},
        losses,
        document_N=torch.arange(150),
        seed=0,
        routed_limit=RoutedLimit.of(batches, losses.domain_N, order=order),
    ).routers
    expected = [math.exp(value / size) if size else math.nan for value, size in zip(nll, tokens, strict=True)]
    assert list(row.quality.values()) == pytest.approx(expected, nan_ok=True)
    assert row.regret == pytest.approx(excess / sum(tokens))
    own = [_perplexity(losses, losses.domain_N.tolist(), d) for d in range(3)]
    whole = sum(0 if math.isnan(e) else 100 * o / e for o, e in zip(own, expected, strict=True)) / 3
    assert row.normalized_performance == pytest.approx(whole)
    if batches == 100:
        (plain,) = make_verdict({"mine": expert_N}, losses, document_N=torch.arange(150), seed=0).routers
        assert row == plain


def test_references_bound_the_routers():
    losses = made_up_losses()
    verdict = make_verdict({"mine": losses.domain_N}, losses, document_N=torch.arange(30), seed=0)
    by_name = {row.router.split(" (")[0]: row for row in verdict.references}
    assert set(by_name) == {"oracle", "loss oracle", "best single expert", "average of the weights", "random"}
    assert by_name["oracle"].normalized_performance == pytest.approx(100)
    assert by_name["oracle"].routing_accuracy == 100
    assert by_name["loss oracle"].regret == pytest.approx(0, abs=1e-12)
    assert by_name["loss oracle"].normalized_performance >= 100
    assert by_name["average of the weights"].routing_accuracy is None
    assert by_name["best single expert"].routing_accuracy_mean == pytest.approx(100 / 3)
    assert by_name["random"].normalized_performance < 100


def test_an_average_that_is_better_than_every_expert_has_a_negative_regret():
    losses = made_up_losses()
    better = LossTable(
        losses.nll_NE, losses.tokens_N, losses.domain_N, NAMES, "key", losses.nll_NE.min(dim=1).values - losses.tokens_N
    )
    by_name = {
        row.router: row
        for row in make_verdict({"mine": losses.domain_N}, better, document_N=torch.arange(30), seed=0).references
    }
    assert by_name["average of the weights"].regret == pytest.approx(-1)
    assert by_name["average of the weights"].intervals["regret"] == pytest.approx((-1, -1))


def test_the_random_router_follows_the_seed():
    losses = made_up_losses()
    confusion = [
        make_verdict({}, losses, document_N=torch.arange(30), seed=seed).references[-1].confusion for seed in (1, 1, 2)
    ]
    assert confusion[0] == confusion[1] != confusion[2]


def test_tables_files_and_loggers_have_the_same_numbers(tmp_path, capsys):
    losses = made_up_losses()
    verdict = make_verdict(
        {"ridge (k=1)": losses.domain_N, "bayes": losses.nll_NE.argmin(1)}, losses, document_N=torch.arange(30), seed=0
    )
    write_tables(verdict, tmp_path)
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["router"] for row in rows[:2]] == ["ridge (k=1)", "bayes"]
    saved = json.loads((tmp_path / "results.json").read_text())
    flat = flat_metrics(verdict)
    for row, entry in zip(rows, saved["routers"] + saved["references"], strict=True):
        assert float(row["normalized_performance"]) == entry["normalized_performance"]
    assert flat["test/ridge_k_1/normalized_performance"] == float(rows[0]["normalized_performance"])
    columns, table = verdict_table(verdict)
    assert len(columns) == len(table[0]) == 2 + 3 * (5 + 3)
    print_verdict(verdict)
    assert "ridge" in capsys.readouterr().out


def test_figures_are_pictures(tmp_path):
    verdict = make_verdict({"mine": made_up_losses().domain_N}, made_up_losses(), document_N=torch.arange(30), seed=0)
    save_confusion_matrix(verdict, tmp_path / "a.png")
    save_expert_quality(verdict, tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
