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
    for one in ("knn", "modem_large"):
        shipped_router(folder, one, folder / "bert")
    paths = ["--data.root", str(folder / "data"), "--data.tokenizer", str(folder / "tokenizer")]
    paths += ["--experts.bank", json.dumps(bank)]
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
        (row,) = [one["row"] for one in ours[protocol]["standings"] if one["name"] == "paper_ir3de"]
        assert cell.startswith(f"{row['normalized_performance']:.2f} [")
    (line,) = re.findall(r"^\| IR3DE \| (.*) \|$", first, re.M)
    assert line.split("|")[2].strip() == ""  # not measured yet
    for router in ("kNN", "MoDEM-large"):
        (line,) = re.findall(rf"^\| {router} \| (.*) \|$", report, re.M)
        assert all(" [" in cell for cell in line.split("|")[1:]), "measured by both protocols"
    (average,) = re.findall(r"^\| IR3DE-avg \| (.*) \|$", report, re.M)
    assert average.split("|")[0].strip() == ""  # not published
    assert "Protocol: published. Faults that are on: count_padding" in first
    assert "none is there" in report


def test_the_other_protocols_column_is_empty_where_it_was_measured_on_other_data(setting):
    _, folder, _ = setting
    _run("compare", setting, "--seeds", "1", "--routers", "[paper/ir3de]", "--name", "apart")
    report = folder / "runs/apart/comparison/comparison.json"
    other = folder / "runs/apart/comparison_published"
    other.mkdir()
    there = json.loads(report.read_text())
    for change, empty in (({}, False), ({"bank": {}}, True), ({"setting": None}, True), ({"content": {}}, True)):
        there["measured_on"] = json.loads(report.read_text())["measured_on"] | change
        (other / "comparison.json").write_text(json.dumps(there))
        _run("compare", setting, "--seeds", "1", "--routers", "[paper/ir3de]", "--name", "apart")
        text = report.with_name("report.md").read_text()
        (line,) = re.findall(r"^\| IR3DE \| (.*) \|$", text, re.M)
        assert (line.split("|")[1].strip() == "") == empty
        assert ("and is left out" in text) == empty


def test_a_runs_config_gives_the_run_again_and_keeps_its_protocol(setting, capsys):
    _, folder, _ = setting
    (folder / "own.yaml").write_text("published: {faults: {routed_batches: 3}}")
    _run(
        "fit",
        setting,
        "--config",
        "own.yaml",
        "--protocol",
        "published",
        "--name",
        "again",
        "--faults.own_dtype",
        "null",
    )
    saved = folder / "runs/again/config.yaml"
    first = yaml.safe_load(saved.read_text())
    assert (first["faults"]["routed_batches"], first["faults"]["own_dtype"]) == (3, None)
    main(["fit", "--config", str(saved), "--faults.own_dtype", "bfloat16"])
    second = yaml.safe_load(saved.read_text())
    assert second["faults"] == first["faults"] | {"own_dtype": "bfloat16"}
    assert {key: value for key, value in second.items() if key != "faults"} == {
        key: value for key, value in first.items() if key != "faults"
    }
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(saved), "--protocol", "corrected"])
    assert "cannot change the saved config of a run by `protocol: published`" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["validate", "predict", "train-experts", "estimate", "download"])
def test_the_other_commands_take_the_setting_too(setting, command, capsys):
    _, folder, _ = setting
    if command in ("validate", "predict"):
        _run("fit", setting, "--name", "others")
    bank = ["--experts.bank", "null", "--experts.module.preset", "2e6", "--experts.module.context_length", str(BLOCK)]
    bank += ["--experts.module.trunk.steps", "2", "--experts.module.branch.steps", "1"]
    bank += ["--experts.module.trunk.warmup_steps", "0", "--experts.module.branch.warmup_steps", "0"]
    bank += ["--experts.trainer.precision", "32-true", "--experts.module.batch_size", "8"]
    _run(command, setting, "--name", "others", *(bank if command == "train-experts" else []))
    there = {"predict": "runs/others/predictions.csv", "train-experts": "runs/others/experts/trunk/model.safetensors"}
    if command in there:
        assert (folder / there[command]).is_file()
    else:
        said = {"validate": "validation/routing_accuracy_mean", "estimate": "fit: counting", "download": "nothing"}
        out = capsys.readouterr()
        assert said[command].lower() in (out.out + out.err).lower()


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
