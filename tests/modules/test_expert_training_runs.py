"""The driver: trunk and branches, stopping and going on, finished experts, and what does not fit."""

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Callback, Trainer
from safetensors.torch import load_file

from ir3de.experts import presets
from ir3de.experts.bank import ExpertBank
from ir3de.modules import train_experts as driver
from ir3de.modules.train_experts import ExpertRecipe, Stage, train_experts
from ir3de.pretrained.tokenizer import TextTokenizer
from tests.experts.fakes import VOCABULARY, FakeBlocks, blocks, tokenizer

DOMAINS = ("law", "maths")


def recipe(**changes) -> ExpertRecipe:
    settings = {
        "preset": "tiny",
        "context_length": 8,
        "batch_size": 4,
        "trunk": Stage(steps=8, learning_rate=1e-2, warmup_steps=2),
        "branch": Stage(steps=6, learning_rate=1e-2, warmup_steps=1, frozen=["self_attn"]),
        "checkpoint_every_n_steps": 3,
    }
    return ExpertRecipe(**{**settings, **changes})


def tiny_preset() -> None:
    presets.PRESETS["tiny"] = presets.Preset(hidden=16, layers=1, heads=2, mlp=32, key_value_heads=2)


@pytest.fixture(autouse=True)
def tiny(monkeypatch) -> None:
    monkeypatch.setattr(presets, "PRESETS", dict(presets.PRESETS))
    tiny_preset()


class Stop(Callback):
    """Ends the process, or the run, after a step of the trunk or of a branch."""

    def __init__(self, *, steps_of_stage: int, after: int, kill: bool) -> None:
        self.steps_of_stage, self.after, self.kill = steps_of_stage, after, kill

    def on_train_batch_end(self, trainer, *args) -> None:
        if trainer.max_steps == self.steps_of_stage and trainer.global_step == self.after:
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("stopped by the test")


def trainers(*extra: Callback, **settings):
    def make_trainer(*, callbacks=(), **given) -> Trainer:
        return Trainer(
            accelerator="cpu", devices=1, enable_progress_bar=False, enable_model_summary=False,
            gradient_clip_val=1.0, callbacks=[*callbacks, *extra], **given, **settings,
        )  # fmt: skip

    return make_trainer


def splits(domains=DOMAINS, *, seed: int = 0) -> dict[str, FakeBlocks]:
    return {domain: blocks(place, rows=9 + place, seed=seed) for place, domain in enumerate(domains)}


def run(folder: Path, *extra: Callback, recipe_: ExpertRecipe | None = None, domains=DOMAINS, **changes) -> None:
    arguments = {
        "train": splits(domains),
        "validation": splits(domains, seed=1),
        "tokenizer": tokenizer(),
        "folder": folder,
        "make_trainer": trainers(*extra),
    }
    train_experts(recipe_ or recipe(), **{**arguments, **changes})


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder / name / "model.safetensors")


def same(left: Path, right: Path, name: str) -> bool:
    mine, theirs = weights(left, name), weights(right, name)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.fixture(scope="module")
def bank(tmp_path_factory) -> Path:
    """A finished, uninterrupted run."""
    folder = tmp_path_factory.mktemp("bank")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(presets, "PRESETS", dict(presets.PRESETS))
        tiny_preset()
        run(folder)
    return folder


def test_leaves_a_bank_in_transformers_format(bank):
    loaded = ExpertBank.from_folder(bank, list(DOMAINS))
    assert loaded.load("law").config.vocab_size == VOCABULARY
    loaded.check_tokenizer(tokenizer())
    assert TextTokenizer.from_folder(bank / "maths").fingerprint == tokenizer().fingerprint
    record = json.loads((bank / "law" / "training.json").read_text())
    assert record["steps"] == 6
    assert record["identity"]["stage.frozen"] == ["self_attn"]
    assert record["identity"]["data.law"] == splits()["law"].fingerprint
    assert record["validation_perplexity"]["law"] > 1
    assert set(json.loads((bank / "trunk" / "training.json").read_text())["validation_perplexity"]) == set(DOMAINS)
    left = sorted(path.name for path in bank.iterdir())
    assert left == ["law", "logs", "maths", "trunk"]


def test_branches_keep_the_trunks_attention_and_change_the_rest(bank):
    trunk = weights(bank, "trunk")
    for domain in DOMAINS:
        for name, value in weights(bank, domain).items():
            assert torch.equal(value, trunk[name]) == ("self_attn" in name), name


def test_each_expert_is_the_best_on_its_own_domain(bank):
    record = {name: json.loads((bank / name / "training.json").read_text()) for name in ("trunk", *DOMAINS)}
    for domain in DOMAINS:
        own = record[domain]["validation_perplexity"][domain]
        assert own < record["trunk"]["validation_perplexity"][domain]


@pytest.mark.parametrize("steps_of_stage", [8, 6], ids=["in the trunk", "in a branch"])
def test_a_stopped_run_goes_on_to_the_same_weights(bank, tmp_path, steps_of_stage):
    with pytest.raises(RuntimeError, match="stopped by the test"):
        run(tmp_path, Stop(steps_of_stage=steps_of_stage, after=5, kill=False))
    assert list(tmp_path.glob(".*/last.ckpt"))
    run(tmp_path)
    for name in ("trunk", *DOMAINS):
        assert same(bank, tmp_path, name), name
    assert not list(tmp_path.glob(".*"))


def test_a_killed_process_goes_on_to_the_same_weights(bank, tmp_path):
    script = (
        "import sys; from pathlib import Path\n"
        "from tests.modules.test_expert_training_runs import Stop, run, tiny_preset\n"
        "tiny_preset(); run(Path(sys.argv[1]), Stop(steps_of_stage=8, after=5, kill=True))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.run(
        [sys.executable, "-c", script, tmp_path], check=False, env=environment, timeout=120, capture_output=True
    )
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()[-500:]
    assert (tmp_path / ".trunk" / "last.ckpt").is_file()
    run(tmp_path)
    for name in ("trunk", *DOMAINS):
        assert same(bank, tmp_path, name), name


def test_a_resumed_run_draws_only_what_is_left(tmp_path):
    with pytest.raises(RuntimeError, match="stopped by the test"):
        run(tmp_path, Stop(steps_of_stage=8, after=4, kill=False), only="law")
    train = splits()
    run(tmp_path, train=train, only="law")
    drawn = len(train["law"].asked) + len(train["maths"].asked)
    steps = (8 - 3) + 6  # from the checkpoint at step 3, then the branch
    assert steps * 4 <= drawn <= (steps + 2 * 2) * 4  # Lightning fetches ahead


def test_accumulated_batches_resume_too(tmp_path):
    settings = {"make_trainer": trainers(accumulate_grad_batches=2), "only": "law"}
    run(tmp_path / "whole", **settings)
    stopping = trainers(Stop(steps_of_stage=8, after=5, kill=False), accumulate_grad_batches=2)
    with pytest.raises(RuntimeError, match="stopped by the test"):
        run(tmp_path / "stopped", **{**settings, "make_trainer": stopping})
    run(tmp_path / "stopped", **settings)
    assert same(tmp_path / "whole", tmp_path / "stopped", "law")


def test_finished_experts_are_not_trained_again(bank, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(driver, "ExpertStage", refuse)
    before = {path: path.stat().st_mtime_ns for path in bank.rglob("*.safetensors")}
    run(bank, recipe_=recipe(checkpoint_every_n_steps=2))  # which changes no weight
    assert {path: path.stat().st_mtime_ns for path in bank.rglob("*.safetensors")} == before


def test_order_and_selection_of_domains_change_no_expert(bank, tmp_path):
    run(tmp_path, only="maths")
    assert not (tmp_path / "law").exists()
    assert same(bank, tmp_path, "maths")


def test_a_new_domain_branches_off_the_finished_trunk(bank, tmp_path):
    run(tmp_path)
    before = (tmp_path / "trunk" / "model.safetensors").stat().st_mtime_ns
    run(tmp_path, domains=(*DOMAINS, "code"))
    assert (tmp_path / "trunk" / "model.safetensors").stat().st_mtime_ns == before
    assert (tmp_path / "code" / "training.json").is_file()
    assert same(bank, tmp_path, "law")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"recipe_": recipe(seed=1)}, "seed: 42 there, 1 here"),
        ({"recipe_": recipe(trunk=Stage(steps=8, learning_rate=1e-3, warmup_steps=2))}, "stage.learning_rate: 0.01"),
        ({"train": splits(seed=3)}, "data.law"),
        ({"tokenizer": tokenizer("x")}, "tokenizer"),
        ({"make_trainer": trainers(precision="bf16-mixed")}, 'trainer.precision: "32-true" there, "bf16-mixed" here'),
    ],
)
def test_what_was_trained_differently_is_refused(bank, changes, named):
    with pytest.raises(ValueError, match=f"trunk` was trained differently.*{named}.*another experts' folder"):
        run(bank, **changes)


def test_a_branch_that_was_trained_differently_is_refused(bank):
    branch = replace(recipe().branch, steps=7)
    with pytest.raises(ValueError, match="law` was trained differently.*stage.steps: 6 there, 7 here"):
        run(bank, recipe_=recipe(branch=branch))


def test_a_stopped_run_of_another_recipe_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match="stopped by the test"):
        run(tmp_path, Stop(steps_of_stage=8, after=4, kill=False))
    with pytest.raises(ValueError, match=r"\.trunk` was trained differently.*seed"):
        run(tmp_path, recipe_=recipe(seed=1))


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "trunk").mkdir()
    (tmp_path / "trunk" / "training.json").write_text("{")
    with pytest.raises(ValueError, match=r"training.json` is damaged.*Delete"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": {}}, "at least one domain"),
        ({"domains": ("trunk",)}, "`trunk` cannot be a domain's name"),
        ({"domains": ("a/b",)}, "`a/b` cannot be a domain's name"),
        ({"validation": {}}, "`law` has no validation sequences"),
        ({"train": {"law": FakeBlocks([], [])}}, "`law` has no training sequences"),
        ({"only": "medicine"}, r"one of the domains \['law', 'maths'\], but got `medicine`"),
    ],
)
def test_domains_that_cannot_be_used(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **changes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Stage(steps=0, learning_rate=1e-3, warmup_steps=0), "`steps`.*got 0"),
        (lambda: Stage(steps=2, learning_rate=1e-3, warmup_steps=3), "`warmup_steps`.*got 3"),
        (lambda: Stage(steps=2, learning_rate=0.0, warmup_steps=1), "`learning_rate`.*got 0.0"),
        (lambda: recipe(batch_size=0), "`experts.module.batch_size`.*got 0"),
        (lambda: recipe(context_length=1), "`experts.module.context_length`.*got 1"),
        (lambda: recipe(balance="rows"), "`experts.module.balance`.*got `rows`"),
    ],
)
def test_recipes_that_make_no_sense(make, message):
    with pytest.raises(ValueError, match=message):
        make()


MEASURED = {"validate_every_n_steps": 2, "checkpoint_every_n_steps": 3}


def foreign() -> dict[str, FakeBlocks]:
    """Validation sequences of words that training never sees, so that the first measurement is the best."""
    return {domain: blocks(2, seed=place) for place, domain in enumerate(DOMAINS)}


def _perplexity(model, split: FakeBlocks) -> float:
    ids = torch.from_numpy(np.stack(split.rows))
    with torch.no_grad():
        return math.exp(float(model(ids, labels=ids).loss))


@pytest.mark.parametrize("keep, kept_step", [("last", 8), ("best", 2)])
def test_the_best_and_the_last_weights_are_both_kept(tmp_path, keep, kept_step):
    run(tmp_path, recipe_=recipe(**MEASURED, keep=keep), validation=foreign(), only="law")
    record = json.loads((tmp_path / "trunk" / "training.json").read_text())
    assert (record["steps"], record["kept_step"]) == (8, kept_step)
    other = {"last": "best", "best": "last"}[keep]
    bank = ExpertBank({"kept": tmp_path / "trunk", "left": tmp_path / "trunk" / other})
    for domain, split in foreign().items():
        kept, left = (_perplexity(bank.load(name), split) for name in ("kept", "left"))
        assert record["validation_perplexity"][domain] == pytest.approx(kept, rel=1e-4)
        assert (kept < left) == (keep == "best")


def test_a_stage_that_stops_getting_better_ends_early(tmp_path):
    settings = {"early_stopping_patience": 1, "keep": "best"}
    run(tmp_path, recipe_=recipe(**MEASURED, **settings), validation=foreign(), only="law")
    record = json.loads((tmp_path / "trunk" / "training.json").read_text())
    assert (record["steps"], record["kept_step"]) == (4, 2)
    assert "validation/perplexity" in (tmp_path / "logs/trunk/version_0/metrics.csv").read_text()


@pytest.mark.parametrize("after", [3, 5, 6, 7])
def test_a_stopped_run_that_measures_goes_on_to_the_same_weights(tmp_path, after):
    settings = {"recipe_": recipe(**MEASURED), "validation": foreign(), "only": "law"}
    run(tmp_path / "whole", **settings)
    with pytest.raises(RuntimeError, match="stopped by the test"):
        run(tmp_path / "stopped", Stop(steps_of_stage=8, after=after, kill=False), **settings)
    run(tmp_path / "stopped", **settings)
    assert same(tmp_path / "whole", tmp_path / "stopped", "trunk")
    assert same(tmp_path / "whole/trunk", tmp_path / "stopped/trunk", "best")
    measured = [(tmp_path / name / "trunk/training.json").read_text() for name in ("whole", "stopped")]
    assert len({json.dumps(json.loads(text)["validation_perplexity"]) for text in measured}) == 1


def test_two_processes_train_the_expert_of_one(tmp_path):
    """Unequal lengths and accumulation: the loss is divided by the targets of the whole step, wherever they are."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.modules.test_expert_training_runs import *\n"
        "tiny_preset()\n"
        "devices = int(sys.argv[2])\n"
        "def make_trainer(*, callbacks=(), **given):\n"
        "    return Trainer(accelerator='cpu', devices=devices, strategy='ddp' if devices > 1 else 'auto',\n"
        "        enable_progress_bar=False, enable_model_summary=False, callbacks=[*callbacks],\n"
        "        accumulate_grad_batches=2, **given)\n"
        "from tests.experts.fakes import ragged_blocks\n"
        "ragged = {name: ragged_blocks(rows=9, seed=i) for i, name in enumerate(DOMAINS)}\n"
        "run(Path(sys.argv[1]), make_trainer=make_trainer, train=ragged, validation=ragged,\n"
        "    recipe_=recipe(validate_every_n_steps=2, context_length=9), only='law')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    for devices in (1, 2):
        command = [sys.executable, script, tmp_path / str(devices), str(devices)]
        done = subprocess.run(command, check=False, env=environment, timeout=120, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    for name in ("trunk", "law"):
        one, two = weights(tmp_path / "1", name), weights(tmp_path / "2", name)
        for key in one:
            torch.testing.assert_close(one[key], two[key], rtol=1e-3, atol=1e-4)
        records = [json.loads((tmp_path / str(i) / name / "training.json").read_text()) for i in (1, 2)]
        assert records[0]["loss"] == pytest.approx(records[1]["loss"], rel=1e-4)
        assert records[0]["validation_perplexity"] == pytest.approx(records[1]["validation_perplexity"], rel=1e-4)
