"""The benchmarks' own arithmetic: what they compare is the same thing, and their tables say what was measured."""

import importlib.util
import json
from pathlib import Path

import aims
import numpy as np
import pytest
import report
import torch
import turns

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def _script(name):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_fit_from_counts_is_the_streamed_one(monkeypatch):
    script = _script("fit_from_counts")
    for name, value in (("VOCAB", 300), ("DIM", 8), ("DOMAINS", 3), ("LENGTH", 16), ("BATCH", 4)):
        monkeypatch.setattr(script, name, value)
    table_VD = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    domains = script.make_tokens(640)
    counted_DE, *_ = script.fit_from_counts(table_VD, domains)
    streamed_DE, *_ = script.fit_streamed(table_VD, domains, 1.0)
    torch.testing.assert_close(counted_DE, streamed_DE.double(), atol=1e-4, rtol=1e-3)


def test_turns_take_the_best_round_of_each_item():
    rounds = iter([[3e-6, 5e-6], [1e-6, 9e-6]])
    found = turns.in_turns({"a": turns.Run(lambda items: next(rounds), ["x", "y"])}, 2)["a"]
    assert found["best"] == pytest.approx(np.median([1, 5]))
    assert found["p50"] == pytest.approx(4)
    assert found["p99"] == pytest.approx(np.percentile([3, 5, 1, 9], 99))
    assert found["calls"] == 4


def test_slow_runs_take_part_in_some_rounds():
    counted = {"fast": 0, "slow": 0}

    def run(name):
        def seconds(items):
            counted[name] += 1
            return [1e-6 for _ in items]

        return seconds

    turns.in_turns({"fast": turns.Run(run("fast"), [0]), "slow": turns.Run(run("slow"), [0], every=3)}, 7)
    assert counted == {"fast": 7, "slow": 3}


@pytest.mark.parametrize(
    ("measured", "bound", "at_most", "met"),
    [(2.0, 2.0, True, True), (2.1, 2.0, True, False), (200, 200, False, True), (199, 200, False, False)],
)
def test_an_aim_is_met_on_its_own_side_of_the_bound(measured, bound, at_most, met):
    one = aims.Target("what", measured, bound, at_most, " µs")
    assert one.met is met
    assert one.cells()[-1] == ("yes" if met else "no")
    assert one.cells()[2] == f"{'≤' if at_most else '≥'} {bound:g} µs"


def _numbers():
    """Return numbers in the form of the parts': every router takes a time of its own."""
    accuracy = {"mean": 90.0, "interval": [88.0, 92.0], "domains": {"a": 90.0}}
    text = {}
    for i, length in enumerate(aims.LENGTHS, start=1):
        rows = {key: {"best": i * (j + 1.0), "p50": i * (j + 2.0), "p99": i * 100.0, "calls": 9.0}
                for j, (key, _) in enumerate(report.ROUTERS)}  # fmt: skip
        rows[aims.WINDOWED] = {"best": 0.5, "p50": 0.5, "p99": 0.5, "calls": 9.0}
        stages = {key: {"tokenizing": 3.0, "scoring": 1.5, "deciding": 0.5} for key, _ in report.ROUTERS}
        text[length] = {**rows, "stages": stages, "tokens": 20.0, "agreement": {"majority": 99.8}}
    one_prompt = {"230": {"majority": 1.9, "entropy_top_k": 5.5, "mean": 5.9}}
    compiled = {f"compiled {name} {unit}": 2.0 for name in aims.IDS for unit in ("µs", "MiB")}
    way = {"requests_per_second": 100.0, "p50_ms": 1.0, "p99_ms": 2.0}
    added = {"requests_per_second": 90.0, "p50_ms": 1.7, "p99_ms": 5.0}
    return {
        "machine": {"processor": "one", "cores": 2, "numpy": "2.4"},
        "fit": {"1000": {"counting_seconds": 1.0, "gram_and_solve_seconds": 1.0, "streamed_seconds": 600.0,
                         "streamed_fraction_measured": 0.02,
                         "relative_difference": 1e-6}},
        "decisions": {
            "ids": {"one_prompt": one_prompt, "batch": {"published": 6000.0, "compiled": 24.0}},
            "text": text,
            "batches": {name: {"added_percent": 16.0, "texts_per_second": 9.0} for name in aims.IDS},
            "versions": {"kolmo": "kolmo 0.0.3"},
        },
        "accuracy": {"passages": {"routers": {
            key: {"accuracy": accuracy, "add_seconds": 0.5, "remove_seconds": 0.25} for key in ("majority", "kolmo")
        }}},
        "confidence": {"blocks": {"tested": {"code": 1_000, "law": 20}, "routers": {"ridge": {
            state: {"accuracy": 0.9, "expected_calibration_error": error, "brier_score": 0.1, "auroc": None,
                    "chance": 0.005}
            for state, error in (("fitted", 0.01), ("without", 0.04), ("again", 0.01))
        }}}},
        "experts": {"5": {**compiled, "fit s": 0.3}},
        "gateway": {"0.3 s": {"128": {"upstream alone": way, "auto": added, "upstream alone, streamed": way,
                                      "auto, streamed": added}}},
    }  # fmt: skip


def test_the_report_says_what_was_measured():
    result = json.loads(json.dumps(_numbers()))
    met = {one.what: one for one in aims.targets(result)}
    assert met["ids to decision, 230 tokens, majority"].met
    assert not met["ids to decision, 230 tokens, entropy_top_k"].met
    assert met["16 × 1,024 ids: published formula / ours"].measured == 250
    majority, kolmo = (1 + [key for key, _ in report.ROUTERS].index(name) for name in ("majority", "kolmo"))
    assert met["text to decision, 80 characters, majority / kolmo"].measured == pytest.approx(majority / kolmo)
    assert met["text to decision, 8,000 characters, majority, window / kolmo"].measured == pytest.approx(
        0.5 / 4 / kolmo
    )
    assert not met["what mean adds to the tokenizer, batches of 2,000 characters"].met
    assert met["the worst ECE of any router and state, blocks"].measured == 0.04
    page = report.markdown(result)
    assert "| blocks: ridge | 1,020 | 90.0 | 0.010 | 0.005 | 0.100 |  | 0.040 | 0.010 |" in page
    assert "| 1,000 | 2.00 | 600.0 (from 2%) | 300× | 1e-06 |" in page
    assert "| 128 | 0.3 s | auto | +0.7 | +3.0 | 90 of 100 |" in page
    for table in report.tables(result):
        assert all(len(row) == len(table.columns) for row in table.rows), table.title


def test_figures_are_drawn(tmp_path):
    import report_figures

    report_figures.save_decisions(_numbers(), tmp_path / "decisions.png")
    for clients in (numbers := _numbers())["gateway"]["0.3 s"].values():
        clients.update({"named": clients["auto"], "auto, reloads": clients["auto"]})
    report_figures.save_serving(numbers, tmp_path / "serving.png")
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("decisions.png", "serving.png"))
