"""The commands, end to end, on three small folders of text; and what is said of a user's mistakes."""

import hashlib
import json
import random

import pytest
import yaml

import callbacks  # noqa: F401 - as main.py does
from ir3de.cli import main
from ir3de.routers import load_router

DOMAINS = ("biology", "cooking", "history")


def write_texts(folder, *, documents=80, seed=0):
    """Write a folder of text files per domain, whose words differ; documents are not near-copies of each other."""
    rng = random.Random(seed)
    shared = ["the", "of", "and", "in", "with"]
    for domain in DOMAINS:
        words = shared + [f"{domain[:3]}{rng.choice('aeiou')}{rng.choice('bcdfg')}{i}" for i in range(60)]
        (folder / domain).mkdir(parents=True)
        for i in range(documents):
            text = " ".join(rng.choice(words) for _ in range(120))
            (folder / domain / f"{i}.txt").write_text(text)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A working directory with texts, a config, and trained experts."""
    folder = tmp_path_factory.mktemp("project")
    write_texts(folder / "texts")
    config = {
        "name": "mine",
        "seed_everything": 7,
        "data": {
            "domains": {name: f"texts/{name}" for name in DOMAINS},
            "tokenizer_vocab_size": 400,
            "block_length": 32,
            "batch_size": 16,
        },
        "experts": {
            "module": {
                "preset": "2e6",
                "context_length": 32,
                "batch_size": 8,
                "trunk": {"steps": 4, "learning_rate": 2e-3, "warmup_steps": 1},
                "branch": {"steps": 6, "learning_rate": 2e-3, "warmup_steps": 1, "frozen": ["self_attn"]},
                "validation_sequences": 8,
            },
            "trainer": {
                "accelerator": "cpu",
                "devices": 1,
                "enable_progress_bar": False,
                "enable_model_summary": False,
            },
        },
        "model": {
            "router": {
                "class_path": "ir3de.routers.RidgeRouter",
                "init_args": {"embeddings": "runs/mine/experts/trunk", "regularization": 0.01},
            }
        },
        "trainer": "trainer/router.yaml",
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["train-experts", "--config", "mine.yaml"])
    return folder


@pytest.fixture
def here(project, monkeypatch):
    monkeypatch.chdir(project)
    monkeypatch.delenv("IR3DE_RUN_FOLDER", raising=False)
    return project


def _router_bytes(folder):
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != "README.md")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_fit_test_and_predict_on_folders_of_text(here, capsys):
    main(["fit", "--config", "mine.yaml"])
    main(["test", "--config", "mine.yaml"])
    results = json.loads((here / "runs/mine/results.json").read_text())
    assert results["domains"] == list(DOMAINS)
    accuracy = {row["router"].split(" (")[0]: row["routing_accuracy_mean"] for row in results["routers"]}
    assert set(accuracy) == {"IR3DE", "IR3DE-avg", "IR3DE-all", "naive Bayes"}
    assert min(accuracy.values()) > 90, "the domains share five words only"
    for domain in DOMAINS:
        own = results["expert_quality"][domain][domain]
        assert own == min(results["expert_quality"][e][domain] for e in DOMAINS)
    main(["predict", "--config", "mine.yaml"])
    lines = (here / "runs/mine/predictions.csv").read_text().splitlines()
    assert len(lines) == 1 + sum(results["sequences"].values())
    out = capsys.readouterr().out
    assert "confusion_matrix.png" in out
    assert "next: python main.py test --config" in out
    router = load_router(here / "runs/mine/router")
    text = (here / "texts/cooking/0.txt").read_text()
    assert router.route([text]).names == ["cooking"]


def test_a_second_run_has_its_own_folder_the_same_bytes_and_a_config_that_reproduces_it(here):
    main(["fit", "--config", "mine.yaml", "--name", "twice"])
    main(["fit", "--config", "runs/twice/config.yaml"])
    first, second = (here / f"runs/twice/version_{i}" for i in (0, 1))
    assert _router_bytes(first / "router") == _router_bytes(second / "router")
    assert (here / "runs/twice/router").resolve() == (second / "router").resolve()
    assert yaml.safe_load((first / "config.yaml").read_text()) == yaml.safe_load((second / "config.yaml").read_text())


def test_finished_experts_are_not_trained_again(here):
    weights = here / "runs/mine/experts/biology/model.safetensors"
    before = weights.stat().st_mtime_ns
    main(["train-experts", "--config", "mine.yaml", "--domain", "biology"])
    assert weights.stat().st_mtime_ns == before


def test_a_router_of_another_class_goes_through_the_same_commands(here):
    (here / "bayes.yaml").write_text(
        "router:\n  class_path: NaiveBayesRouter\n  init_args:\n    tokenizer: runs/mine/experts/trunk\n"
    )
    arguments = ["--config", "mine.yaml", "--model", "bayes.yaml", "--name", "bayes"]
    main(["fit", *arguments])
    main(["validate", *arguments])
    main(["test", *arguments, "--experts.bank", "runs/mine/experts"])
    results = json.loads((here / "runs/bayes/results.json").read_text())
    assert [row["router"] for row in results["routers"]] == ["naive Bayes"]


def _error(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code in (1, 2)
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return " ".join(error.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trainer.max_epoch", "3"], "The nearest valid name is `trainer.max_epochs`"),
        (["--data.block_lenght", "3"], "The nearest valid name is `data.block_length`"),
        (["--model.router.regularisation", "3"], "The nearest valid name is `regularization`"),
        (["--model.router", "RidgRouter"], "The nearest valid name is `RidgeRouter`"),
        (["--config", "nowhere.yaml"], "Found no config `nowhere.yaml`"),
        (["--model", "routers/nowhere.yaml"], "Found no config `routers/nowhere.yaml`"),
        (["--data.domains.biology", "texts/nowhere"], "`biology`: Expected a file or a folder at `texts/nowhere`"),
        (["--model.router.regularization", "-1"], "`regularization` to be at least 0 or null, but got -1.0"),
        (["--model.router.embeddings", "./nowhere"], "`./nowhere` to be a hub id, a folder"),
        (["--trainer.callbacks", "[]"], "List callbacks.FitRouter"),
    ],
)
def test_mistakes_end_with_a_sentence(here, capsys, arguments, message):
    assert message in _error(capsys, ["fit", "--config", "mine.yaml", "--name", "mistakes", *arguments])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainer: {max_epoch: 3}", "The nearest valid name is `trainer.max_epochs`"),
        ("modle: {}", "The nearest valid name is `model`"),
        ("data: {domains: {a: x, a: y}}", "the key `a` stands twice"),
        ("data: {domains: {a: texts/biology}}", "at least two domains"),
    ],
)
def test_mistakes_in_a_config_end_with_a_sentence(here, capsys, text, message):
    (here / "wrong.yaml").write_text(text)
    assert message in _error(capsys, ["fit", "--config", "mine.yaml", "--config", "wrong.yaml"])


def test_test_before_fit_and_test_without_experts_say_what_to_run(here, capsys):
    assert "Run `python main.py fit`" in _error(capsys, ["test", "--config", "mine.yaml", "--name", "never"])
    main(["fit", "--config", "mine.yaml", "--name", "lonely"])
    assert "train-experts" in _error(capsys, ["test", "--config", "mine.yaml", "--name", "lonely"])


def test_a_setting_that_the_saved_router_does_not_have_is_refused(here, capsys):
    main(["fit", "--config", "mine.yaml", "--name", "settled"])
    error = _error(capsys, ["test", "--config", "mine.yaml", "--name", "settled", "--model.router.regularization", "1"])
    assert "`regularization` 0.01 there, 1.0 here" in error


def test_an_expert_trained_on_other_data_is_refused(here, capsys):
    error = _error(capsys, ["train-experts", "--config", "mine.yaml", "--data.block_length", "16"])
    assert "was trained differently" in error


def test_a_router_learns_from_losses_alone(here, capsys):
    arguments = [
        "--config",
        "mine.yaml",
        "--name",
        "loss",
        "--experts.bank",
        "runs/mine/experts",
        "--model.router.targets",
        "loss",
    ]
    arguments += ["--model.router.targets_sequences", "30", "--model.router.selector", "mean"]
    main(["fit", *arguments])
    main(["test", *arguments])
    results = json.loads((here / "runs/loss/results.json").read_text())
    (own, *_) = results["routers"]
    assert own["router"] == "IR3DE-avg (mean, losses as targets)"
    assert own["routing_accuracy_mean"] > 80
    with pytest.raises(SystemExit):
        main(["add-expert", "--router", "runs/loss/router", "--name", "new", "--data", "texts/history"])
    assert "only with its losses" in capsys.readouterr().err


def test_losses_prints_the_matrix_of_a_bank_from_anywhere(here, capsys):
    main(["losses", "--config", "mine.yaml"])
    out = capsys.readouterr().out
    assert "Perplexity of every expert on every domain" in out
    assert "weight_average" in out
    for bank, message in (
        ({"biology": "x", "cooking": "y"}, "The domains ['history'] have no expert in `experts.bank`"),
        (dict.fromkeys((*DOMAINS, "law"), "x"), "The experts ['law'] have no domain in `data.domains`"),
    ):
        with pytest.raises(SystemExit):
            main(["losses", "--config", "mine.yaml", "--experts.bank", json.dumps(bank)])
        assert message in " ".join(capsys.readouterr().err.split())


def test_scores_made_elsewhere_take_the_place_of_language_models(here, capsys):
    prompts = [json.loads(line) for line in _prompts()]
    for name in DOMAINS:
        rows = [json.dumps({"text": one["text"]}) for one in prompts if one["domain"] == name]
        (here / f"{name}.jsonl").write_text("\n".join(rows))
    header = ["prompt", *(f"score:{name}" for name in DOMAINS), *(f"cost:{name}" for name in DOMAINS)]
    lines = [",".join(header)]
    lines += [",".join([one["text"], *("1" if one["domain"] == name else "0.25" for name in DOMAINS), "1", "2", "3"])
              for one in prompts]  # fmt: skip
    (here / "scores.csv").write_text("\n".join(lines) + "\n")
    config = yaml.safe_load((here / "mine.yaml").read_text())
    config |= {"name": "scores", "experts": {"losses": {"table": "scores.csv"}}}
    config["data"] |= {"domains": {name: f"{name}.jsonl" for name in DOMAINS}, "pack": False}
    (here / "scores.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "--config", "scores.yaml"])
    main(["test", "--config", "scores.yaml"])
    results = json.loads((here / "runs/scores/results.json").read_text())
    assert results["measure"] == "score"
    own = results["routers"][0]
    assert own["normalized_performance"] > 90
    assert 1 < own["cost"] < 3
    assert (here / "runs/scores/expert_score.png").is_file()
    assert "regret" in capsys.readouterr().out


def _prompts():
    rng = random.Random(1)
    for domain in DOMAINS:
        words = [f"{domain[:3]}{rng.choice('aeiou')}{i}" for i in range(60)]
        for _ in range(60):
            yield json.dumps({"domain": domain, "text": " ".join(rng.choice(words) for _ in range(15))})
