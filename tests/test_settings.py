"""The paper's settings by their own configs, only paths and sizes overridden: every command, both protocols."""

import json
import re

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from torch.nn.functional import cross_entropy

import callbacks  # noqa: F401 - as main.py does
from ir3de.cli import main
from ir3de.experts.bank import ExpertBank
from ir3de.experts.loss_table import LossTable
from tests.helpers.settings import (
    BLOCK,
    CLM2,
    M2D2,
    save_bert,
    save_checkpoints,
    save_packed,
    save_ragged,
    save_tokenizer,
    shipped_router,
)

QUICK = ["--trainer.accelerator", "cpu", "--trainer.max_epochs", "2", "--experts.trainer.accelerator", "cpu"]
QUICK += ["--data.block_length", str(BLOCK), "--wandb.mode", "disabled"]


@pytest.fixture(scope="module", params=["m2d2", "clm2"])
def setting(request, tmp_path_factory):
    """A working directory with a setting's data and experts, and what has to be overridden."""
    name = request.param
    domains = {"m2d2": M2D2, "clm2": CLM2}[name]
    folder = tmp_path_factory.mktemp(name)
    tokenizer = save_tokenizer(folder / "tokenizer", domains)
    {"m2d2": save_packed, "clm2": save_ragged}[name](folder / "data", tokenizer, domains)
    bank = save_checkpoints(folder / "checkpoints", tokenizer, domains)
    save_bert(folder / "bert", tokenizer)
    routers = ["paper/ir3de", "paper/ir3de_all", "paper/ir3de_mean"]
    routers += [shipped_router(folder, one, folder / "bert") for one in ("knn", "modem_large")]
    paths = ["--data.root", str(folder / "data"), "--data.tokenizer", str(folder / "tokenizer")]
    paths += ["--experts.bank", json.dumps(bank), "--routers", json.dumps([*routers, "best_single", "oracle"])]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield name, folder, [*paths, *QUICK]


def _run(command, setting, *more):
    name, _, overrides = setting
    main([command, "--config", f"{name}.yaml", *overrides, *more])


@pytest.mark.parametrize("protocol", ["corrected", "published"])
def test_fit_and_test(setting, protocol):
    name, folder, _ = setting
    for command in ("fit", "test"):
        _run(command, setting, "--protocol", protocol, "--name", protocol)
    results = json.loads((folder / "runs" / protocol / "results.json").read_text())
    row = results["routers"][0]
    assert row["routing_accuracy_mean"] > 60
    config = yaml.safe_load((folder / "runs" / protocol / "config.yaml").read_text())
    assert config["protocol"] == protocol
    assert config["setting"] == name
    assert config["faults"]["count_padding"] == (protocol == "published")
    oracle = next(one for one in results["references"] if one["router"] == "oracle")
    exact = oracle["normalized_performance"] == pytest.approx(100, abs=1e-9)
    assert exact == (protocol == "corrected")  # published: own experts in bfloat16, routed ones in float32


def test_a_router_is_not_tested_by_another_protocol(setting, capsys):
    _run("fit", setting, "--name", "mixed")
    with pytest.raises(SystemExit):
        _run("test", setting, "--name", "mixed", "--protocol", "published")
    assert re.search(
        r"fitted by another protocol \(`faults.count_padding` False there, True here", capsys.readouterr().err
    )


def test_compare_puts_the_papers_figures_beside_both_protocols(setting):
    name, folder, _ = setting
    _run("compare", setting, "--seeds", "1", "--protocol", "published")
    first = (folder / f"runs/{name}/comparison_published/report.md").read_text()
    _run("compare", setting, "--seeds", "1")
    report = (folder / f"runs/{name}/comparison/report.md").read_text()
    for text in (first, report):
        assert f"Published and ours ({name})" in text
    paper = {"m2d2": "98.2", "clm2": "95.3"}[name]
    (line,) = re.findall(r"^\| IR3DE \| (.*) \|$", report, re.M)
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[0] == paper
    ours = {
        protocol: json.loads((folder / f"runs/{name}/{where}/comparison.json").read_text())
        for protocol, where in (("published", "comparison_published"), ("corrected", "comparison"))
    }
    assert all(not one["failures"] for one in ours.values())
    for cell, protocol in zip(cells[1:], ("published", "corrected"), strict=True):
        (row,) = [one["row"] for one in ours[protocol]["standings"] if one["name"] == "ir3de"]
        assert cell.startswith(f"{row['normalized_performance']:.2f} [")
    (line,) = re.findall(r"^\| IR3DE \| (.*) \|$", first, re.M)
    assert line.split("|")[2].strip() == ""  # not measured yet
    (average,) = re.findall(r"^\| IR3DE-avg \| (.*) \|$", report, re.M)
    assert average.split("|")[0].strip() == ""  # not published
    assert "Protocol: published. Faults that are on: count_padding" in first
    assert "none is there" in report


def test_losses_are_those_of_the_published_labels(setting):
    _, folder, overrides = setting
    _run("losses", setting, "--data.cache_dir", str(folder / "own_cache"))
    (path,) = (folder / "own_cache/losses").glob("*.parquet")
    table = LossTable.load(path)
    bank = json.loads(overrides[overrides.index("--experts.bank") + 1])
    for number, domain in enumerate(sorted(bank)):
        rows = pq.read_table(folder / "data" / domain / "test").to_pylist()
        model = ExpertBank(bank).load(domain)
        nll = [
            cross_entropy(
                model(torch.tensor([row["input_ids"]])).logits[0], torch.tensor(row["label"]), reduction="sum"
            )
            for row in rows
        ]
        mine_N = table.domain_N == number
        assert table.tokens_N[mine_N].tolist() == [len(row["label"]) for row in rows]
        torch.testing.assert_close(table.own_N[mine_N], torch.stack(nll).double(), rtol=1e-5, atol=1e-4)
