"""The comparison, end to end: fitted, frozen, reported; reused, refused, and read back from W&B."""

import csv
import html
import json
import re
import shutil
import struct

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml

import callbacks  # noqa: F401 - as main.py does
from ir3de.cli import main
from ir3de.experts.loss_table import LossTable
from ir3de.routers import load_router
from tests.test_cli import DOMAINS, write_texts
from tests.test_cli import project as project  # noqa: PLC0414 - a fixture

FEATURES = {"features": {"class_path": "TokenMeans", "init_args": {"embeddings": "runs/mine/experts/trunk"}}}
MLP = {
    "router": {"class_path": "ir3de.routers.MLPRouter", "init_args": {**FEATURES, "hidden": [8]}},
    "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}},
}
KNN = {"router": {"class_path": "ir3de.routers.KNNRouter", "init_args": FEATURES}}
LINEAR = {"router": {"class_path": "torch.nn.Linear", "init_args": {"in_features": 1, "out_features": 1}}}
RIDGE = {"router": {"class_path": "RidgeRouter", "init_args": {"embeddings": "runs/mine/experts/trunk"}}}
BAYES = {"router": {"class_path": "SmoothedBayesRouter", "init_args": {"embeddings": "runs/mine/experts/trunk"}}}
DAMAGED = {"router": {"class_path": "ir3de.routers.KNNRouter", "init_args": {
    "features": {"class_path": "HiddenStates", "init_args": {"model": "damaged"}}}}}  # fmt: skip
MISSING = {"router": {"class_path": "ir3de.routers.KNNRouter", "init_args": {
    "features": {"class_path": "HiddenStates", "init_args": {"model": "package:no-such-encoder"}}}}}  # fmt: skip
ROUTERS = ["ridge.yaml", "bayes.yaml", "knn.yaml", "damaged.yaml", "mlp.yaml", "random", "best_single", "oracle",
           "loss_oracle"]  # fmt: skip


@pytest.fixture(scope="module")
def compared(project):
    """A finished comparison in the working directory of test_cli's project."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        parts = {"ridge": RIDGE, "bayes": BAYES, "knn": KNN, "damaged": DAMAGED, "missing": MISSING, "mlp": MLP}
        (project / "damaged").mkdir()
        (project / "damaged/config.json").write_text("{}")
        for name, part in parts.items():
            (project / f"{name}.yaml").write_text(yaml.safe_dump(part))
        prices = {"biology": 1.0, "cooking": 2.0, "history": 3.0}
        main([*_command(), "--experts.prices", json.dumps(prices), "--wandb.mode", "offline"])
        yield project / "runs/mine/comparison"


def _command(*more, routers=ROUTERS, seeds="2"):
    return ["compare", "--config", "mine.yaml", "--trainer", "trainer/router.yaml", "--trainer.accelerator", "cpu",
            "--trainer.max_epochs", "3", "--seeds", seeds, "--routers", json.dumps(list(routers)), *more]  # fmt: skip


def _rows(folder):
    with (folder / "comparison.csv").open() as file:
        return {row["router"]: row for row in csv.DictReader(file)}


def test_every_router_has_a_row_and_a_failure_loses_no_other(compared):
    rows = _rows(compared)
    assert list(rows) == ["ridge", "bayes", "knn", "mlp", "random", "best_single", "oracle", "loss_oracle",
                          "weight_average"]  # fmt: skip
    assert rows["mlp"]["seeds"] == "2"
    assert rows["ridge"]["seeds"] == "1"
    assert float(rows["oracle"]["normalized_performance"]) == pytest.approx(100)
    assert float(rows["loss_oracle"]["regret"]) == pytest.approx(0, abs=1e-9)
    failures = json.loads((compared / "comparison.json").read_text())["failures"]
    assert list(failures) == ["damaged"]
    assert "`damaged` holds no" in failures["damaged"]
    assert html.escape(failures["damaged"]).replace("&#x27;", "&#39;") in (compared / "report.html").read_text()


def test_rows_are_what_the_decisions_give_on_the_loss_table(compared):
    rows, decisions = _rows(compared), pq.read_table(compared / "decisions.parquet").to_pydict()
    (path,) = [p for p in (compared.parents[2] / "cache/losses").glob("*.parquet") if _has_average(p)]
    table = LossTable.load(path)
    domain = np.array([DOMAINS.index(name) for name in decisions["domain"]])
    assert domain.tolist() == table.domain_N.tolist()
    for label, row in (("ridge", "ridge"), ("bayes", "bayes"), ("knn", "knn"), ("best_single", "best_single")):
        expert = np.array([DOMAINS.index(name) for name in decisions[f"{label}/expert"]])
        right = [100 * np.mean((expert == domain)[domain == d]) for d in range(3)]
        assert float(rows[row]["routing_accuracy_mean"]) == pytest.approx(np.mean(right))
        nll = table.nll_NE.numpy()[np.arange(len(expert)), expert]
        regret = (nll - table.nll_NE.numpy().min(axis=1)).sum() / table.tokens_N.sum().item()
        assert float(rows[row]["regret"]) == pytest.approx(regret)
        weights = table.tokens_N.numpy()
        assert np.average(decisions[f"{label}/regret"], weights=weights) == pytest.approx(regret)
        prices = np.array([1.0, 2.0, 3.0])[expert]
        assert float(rows[row]["price"]) == pytest.approx(np.average(prices, weights=weights))
        scores = np.stack([decisions[f"{label}/score/{name}"] for name in DOMAINS], axis=1)
        assert (scores.argmax(axis=1) == expert).all()
    of_seeds = [[DOMAINS.index(n) for n in decisions[f"mlp/seed_{seed}/expert"]] for seed in (0, 1)]
    accuracies = [np.mean([100 * np.mean((np.array(e) == domain)[domain == d]) for d in range(3)]) for e in of_seeds]
    assert float(rows["mlp"]["routing_accuracy_mean"]) == pytest.approx(np.mean(accuracies))


def _has_average(path):
    return LossTable.load(path).average_nll_N is not None


def test_what_was_frozen_is_what_was_scored(compared):
    frozen = json.loads((compared / "choices.json").read_text())
    rows = _rows(compared)
    for name, of_seeds in frozen.items():
        assert of_seeds[0]["identity"] == rows[name]["identity"]
        for seed, one in enumerate(of_seeds):
            saved = load_router(compared / "fits" / name / f"seed_{7 + seed}" / "router")
            assert saved.identity_hash() == one["identity"]
    assert frozen["best_single"][0]["chosen"]["expert"] in DOMAINS


def test_the_report_stands_alone_and_has_every_figure(compared):
    page = (compared / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    figures = json.loads((compared / "comparison.json").read_text())["figures"]
    assert {"accuracy_against_time.png", "confusion_matrices.png", "accuracy_against_k.png", "learning_curves.png",
            "accuracy_against_regularization.png", "accuracy_against_imbalance.png", "reliability.png",
            "quality_against_price.png"} == set(figures)  # fmt: skip
    assert page.count("data:image/png;base64,") == len(figures)
    markdown = (compared / "report.md").read_text()
    for file in figures:
        assert (compared / file).read_bytes().startswith(b"\x89PNG")
        assert f"]({file})" in markdown
    for name, row in _rows(compared).items():
        assert f"| {name} | {float(row['normalized_performance']):.2f}" in markdown


def test_the_runs_in_wandb_have_the_numbers_of_the_csv(compared):
    rows, groups = _rows(compared), set()
    for folder in (compared / "wandb").glob("offline-run-*"):
        (path,) = folder.glob("*.wandb")
        found = _read_offline(path)
        name = found["config"]["router"]
        groups.add(found["group"])
        row = rows.pop(name)
        for column in ("normalized_performance", "routing_accuracy_mean", "regret", "routing_accuracy_mean/high"):
            if row[column]:
                assert found["summary"][f"test/{column}"] == pytest.approx(float(row[column])), (name, column)
        logged = {key.split("/")[0] for key in found["summary"]}
        assert {"comparison", "learning_curves.png"} <= logged
        if name == "mlp":
            assert any("train/loss" in one for one in found["history"])
            assert any("validation/routing_accuracy_mean" in one for one in found["history"])
        if name not in ("weight_average",):
            assert found["artifacts"] == [f"router-{name}"]
    assert not rows
    assert groups == {"mine/comparison"}


def _read_offline(path):
    from wandb.proto import wandb_internal_pb2

    found = {"summary": {}, "config": {}, "history": [], "artifacts": [], "group": ""}
    for data in _log_records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("run"):
            found["group"] = record.run.run_group
            found["config"] |= {one.key: json.loads(one.value_json) for one in record.run.config.update}
        elif record.HasField("summary"):
            found["summary"] |= {_key(one): json.loads(one.value_json) for one in record.summary.update}
        elif record.HasField("history"):
            one = {_key(item): json.loads(item.value_json) for item in record.history.item}
            found["history"].append(one)
            found["summary"] |= one
        elif record.HasField("artifact"):
            found["artifacts"].append(record.artifact.name) if record.artifact.type == "router" else None
        elif record.HasField("request") and record.request.HasField("log_artifact"):
            artifact = record.request.log_artifact.artifact
            found["artifacts"].append(artifact.name) if artifact.type == "router" else None
    return found


def _log_records(content):
    """Yield the records of a W&B file: LevelDB's log format, blocks of 32 KiB, after a header of 7 bytes."""
    place, parts = 7, []
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        parts.append(content[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (1, 4):  # whole, or the last of several
            yield b"".join(parts)
            parts = []


def _key(item):
    return item.key or "/".join(item.nested_key)


def test_what_is_fitted_is_used_again_and_saved_runs_take_part(compared, monkeypatch, capsys):
    monkeypatch.chdir(compared.parents[2])
    names = ("ridge", "bayes", "mlp")
    files = [p for name in names for p in compared.glob(f"fits/{name}/*/router/config.json")]
    before = {p: p.stat().st_mtime_ns for p in files}
    numbers = _rows(compared)["bayes"]
    saved = str(compared / "fits/ridge/seed_7/router")
    main(_command(routers=[saved, "bayes.yaml", "mlp.yaml"]))
    assert len(files) == 4
    assert before == {p: p.stat().st_mtime_ns for p in files}
    rows = _rows(compared)
    assert len(rows) == 4
    assert next(iter(rows)).endswith("fits_ridge_seed_7")
    assert rows["bayes"]["regret"] == numbers["regret"]
    assert "written" in capsys.readouterr().out
    main(_command("--trainer.max_epochs", "2", routers=["bayes.yaml", "mlp.yaml"]))
    assert all(p.stat().st_mtime_ns > before[p] for p in files if "ridge" not in str(p)), (
        "trained otherwise: fitted anew"
    )


@pytest.mark.parametrize("more, message", [
    (["--data.block_length", "24"], "was made on other data"),
    (["--seeds", "0"], "`seeds` to be at least 1"),
    (["--routers", "[nothing]"], "Found no config `routers/nothing.yaml`"),
    (["--routers", "[ridge.yaml, ridge.yaml]"], "named twice"),
    (["--routers", "[wrong.yaml]"], "The config of the router `wrong` is none of a router's"),
    (["--routers", "[mine.yaml]"], "The config of the router `mine` is none of a router's"),
    (["--routers", "[damaged.yaml]"], "No router could be fitted: damaged: `damaged` holds no"),
    (["--routers", "[knn.yaml, missing.yaml]"], "pip install --no-deps no-such-encoder"),
    (["--experts.prices", '{"biology": 1}'], "Expected `experts.prices` for each of"),
    (["--wandb.mode", "sometimes"], "wandb.mode"),
])  # fmt: skip
def test_mistakes_end_with_a_sentence(compared, monkeypatch, capsys, more, message):
    monkeypatch.chdir(compared.parents[2])
    (compared.parents[2] / "wrong.yaml").write_text(yaml.safe_dump(LINEAR))
    with pytest.raises(SystemExit):
        main(_command(*more, routers=["ridge.yaml"], seeds="1"))
    printed = capsys.readouterr()
    assert message in " ".join((printed.err + printed.out).split())


def test_without_wandb_everything_else_works(compared, monkeypatch, capsys):
    import sys

    monkeypatch.chdir(compared.parents[2])
    monkeypatch.setitem(sys.modules, "wandb", None)
    main(_command(routers=["ridge.yaml"], seeds="1"))
    with pytest.raises(SystemExit):
        main(_command("--wandb.mode", "offline", routers=["ridge.yaml"], seeds="1"))
    assert "the package wandb is not installed" in " ".join(capsys.readouterr().err.split())


def test_test_documents_among_the_training_documents_are_refused(tmp_path, monkeypatch, capsys):
    from tests.helpers.domains import MadeUpDomains

    data = MadeUpDomains(folder=tmp_path)
    shutil.copy(tmp_path / "code.train.parquet", tmp_path / "law.test.parquet")
    with pytest.raises(ValueError, match="10 test documents of `law` are among the train documents of `code`"):
        MadeUpDomains(folder=tmp_path).check_disjoint()
    assert data.domain_names == ("code", "law", "maths")


def test_documents_of_text_are_looked_for_too(tmp_path):
    from ir3de.data.datamodule import DomainDataModule

    write_texts(tmp_path / "texts", documents=20)
    data = DomainDataModule(
        domains={name: str(tmp_path / "texts" / name) for name in DOMAINS}, cache_dir=str(tmp_path / "cache"),
        tokenizer_vocab_size=300, block_length=16,
    )  # fmt: skip
    tested = data.check_disjoint()
    assert tested == len({(d, doc) for d, doc in _documents(data)})
    monkey = data._views.document_hashes
    data._views.document_hashes = lambda split, name: monkey("train", name)
    with pytest.raises(ValueError, match="are among the train documents of `biology`"):
        data.check_disjoint()


def _documents(data):
    return [(name, one) for name in DOMAINS for one in data._views.document_hashes("test", name).tolist()]


def test_scores_are_calibrated_on_validation_data():
    from ir3de.comparison.calibration import choose_temperature, reliability

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 3, generator=generator, dtype=torch.float64) * 2
    domain = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    assert choose_temperature(logits * 5, domain) == pytest.approx(5, rel=0.3)
    found = reliability(logits * 5, domain, 5.0)
    sure, expert = logits.softmax(1).max(1)
    error, total = 0.0, 0
    for k in range(10):
        mine = ((sure * 10).long().clamp(max=9) == k).numpy()
        total += found.count[k]
        assert found.count[k] == mine.sum()
        if mine.any():
            confidence, accuracy = sure.numpy()[mine].mean(), (expert == domain).numpy()[mine].mean()
            assert found.accuracy[k] == pytest.approx(accuracy)
            error += mine.sum() * abs(confidence - accuracy) / 4000
    assert total == 4000
    assert found.error == pytest.approx(100 * error)
    assert found.error < 3 < reliability(logits * 5, domain, 1.0).error
