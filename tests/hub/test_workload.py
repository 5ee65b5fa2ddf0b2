"""How much there is to do: held against what commands write and run, and against lm-eval's own tasks."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml

from ir3de.cli import main
from ir3de.hub.facts import LLAMA_3B
from ir3de.hub.passes import answers, fit_passes, loss_passes
from ir3de.hub.tasks import known_task, runs_code
from ir3de.hub.workload import domain_sizes, planned_sizes, prepared_text
from ir3de.modules import make_loss_table as making
from tests.helpers.settings import BLOCK, M2D2, save_checkpoints, save_packed, save_tokenizer


def _planned(config):
    return {name: planned_sizes(config, name) for name in config.data.domains}


def test_documents_that_prepare_writes_are_counted(parsed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = parsed("--config", "clm2.yaml")
    sizes = _planned(config)["legal"]
    assert sizes.sequences == {"train": 7000, "validation": 1000, "test": 2000}
    assert sizes.tokens == {"train": 7_168_000, "validation": 1_024_000, "test": 2_048_000}  # rows of 1,024 at most
    assert (sizes.bound, sizes.basis) == ("at most", "prepare.documents")
    assert prepared_text(config, ["math", "legal"]) == "at most 164 MB"
    fewer = parsed("--config", "clm2.yaml", "--prepare.documents", '{"train": 10, "validation": 10, "test": 10}')
    assert prepared_text(fewer, list(fewer.data.domains)) == "at most 983 kB"  # 4 · 30 · 1,024 · 8
    by_tokens = parsed("--config", "clm2.yaml", "--prepare.max_tokens", '{"train": 2050}')
    assert _planned(by_tokens)["bio"].sequences["train"] == 3


def test_what_prepare_does_not_limit_is_at_least_what_the_paper_reads(parsed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = parsed("--config", "m2d2.yaml")
    sizes = _planned(config)["cs_l1"]
    assert sizes.tokens == {"train": 16_384_000, "validation": 262_144, "test": 262_144}
    assert (sizes.bound, sizes.basis) == ("at least", "prepare.max_tokens, the paper's sizes")
    halved = parsed("--config", "m2d2.yaml", "--prepare.max_tokens", '{"train": 8192000}')
    assert _planned(halved)["cs_l1"].sequences["train"] == 8000
    elsewhere = parsed("--config", "m2d2.yaml", "--prepare", "prepare/openwebtext.yaml")
    assert _planned(elsewhere)["cs_l1"].basis == "the paper's sizes"
    assert prepared_text(elsewhere, list(M2D2)) == "about 676 MB"


def test_text_of_no_setting_and_no_limit_is_not_known(parsed, write_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = parsed("--config", write_config())
    assert _planned(config) == {"a": None, "b": None}
    assert prepared_text(config, ["a"]) == "size unknown"
    limits = {"documents": {"train": 4, "validation": 1, "test": 1}, "domains": {"a": "a.jsonl"}}
    config = parsed("--config", write_config(prepare=limits), "--data.pack", "false", "--data.block_length", "8")
    assert prepared_text(config, ["a"]) == "at most 384 B"  # 6 rows of 8 tokens, two int32 each
    assert prepared_text(config, ["a", "b"]) == "size unknown"


def test_benchmarks_are_as_large_as_is_public(parsed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = _planned(parsed("--config", "reasoning.yaml"))
    assert {name: one.sequences["test"] for name, one in sizes.items()} == {
        "math": 1319, "multilingual": 30 * 1170, "coding": 164, "instruction": 541,
    }  # fmt: skip
    assert {(one.sequences["train"], one.sequences["validation"]) for one in sizes.values()} == {(1000, 200)}
    smaller = parsed("--config", "reasoning.yaml", "--reasoning.limit", "10")
    assert {name: one.sequences["test"] for name, one in _planned(smaller).items()} == {
        "math": 10, "multilingual": 300, "coding": 10, "instruction": 10,
    }  # fmt: skip
    own = parsed("--config", "reasoning.yaml", "--reasoning.tasks.math", '["gsm8k", "my_sums"]')
    assert _planned(own)["math"] is None


@pytest.mark.parametrize(
    ("name", "file"),
    [("gsm8k", "gsm8k/gsm8k"), ("humaneval", "humaneval/humaneval"), ("ifeval", "ifeval/ifeval"),
     ("arc_de", "okapi/arc_multilingual/arc_de")],
)  # fmt: skip
def test_what_is_public_of_a_task_is_what_lm_eval_says(name, file):
    class Loader(yaml.SafeLoader):
        """YAML with lm-eval's references to functions, which nothing here needs."""

    Loader.add_constructor("!function", lambda loader, node: node.value)
    path = Path(find_spec("lm_eval").origin).parent / "tasks" / f"{file}.yaml"
    said, task = yaml.load(path.read_text(), Loader=Loader), known_task(name)
    assert task.data == said["dataset_path"]
    assert task.shots == said.get("num_fewshot")
    assert runs_code(name) == said.get("unsafe_code", False)
    if not task.options:
        assert task.answer == said["generation_kwargs"].get("max_gen_toks", 256)  # the model's own where it says none


def test_answers_are_counted_as_lm_eval_asks(parsed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = answers(parsed("--config", "reasoning.yaml"))
    assert asked.questions == 1319 + 35_100 + 164 + 541
    assert asked.models == [LLAMA_3B] * 5  # and the average of their weights
    options = 35_100 * 4 * (70 + 15)
    assert asked.read == 1319 * (5 * 165 + 60) + options + 164 * 140 + 541 * 50
    assert asked.written == 1319 * 256 + 164 * 1024 + 541 * 1280
    published = answers(parsed("--config", "reasoning.yaml", "--protocol", "published"))
    assert published.read == 1319 * 60 + options + 164 * 140 + 541 * 50  # bare prompts
    assert published.written == 256 * (1319 + 164 + 541)
    more = ["--reasoning.num_fewshot", '{"math": 8, "coding": 3}', "--reasoning.average", "false"]
    asked = answers(parsed("--config", "reasoning.yaml", *more))
    assert asked.read == 1319 * (8 * 165 + 60) + options + 164 * 140 + 541 * 50  # HumanEval keeps its 0
    assert len(asked.models) == 4
    assert answers(parsed("--config", "reasoning.yaml", "--reasoning.tasks.math", '["my_sums"]')) is None


@pytest.mark.parametrize(
    ("protocol", "command"),
    [("corrected", "losses"), ("published", "losses"), ("corrected", "fit"), ("corrected", "fit of losses")],
)
def test_passes_are_those_that_experts_run(parsed, tmp_path, monkeypatch, protocol, command):
    monkeypatch.chdir(tmp_path)
    tokenizer = save_tokenizer(tmp_path / "tokenizer", M2D2)
    save_packed(tmp_path / "data", tokenizer, M2D2)
    bank = save_checkpoints(tmp_path / "checkpoints", tokenizer, M2D2)
    options = ["--config", "m2d2.yaml", "--protocol", protocol, "--wandb.mode", "disabled", "--data.root", "data"]
    options += ["--data.max_test_blocks", "4"]
    options += ["--data.tokenizer", str(tmp_path / "tokenizer"), "--trainer.accelerator", "cpu"]
    options += ["--data.block_length", str(BLOCK), "--experts.trainer.accelerator", "cpu"]
    options += [part for name, source in bank.items() for part in (f"--experts.bank.{name}", source)]
    if command == "fit":
        best = '{"class_path": "ir3de.routers.SingleExpertRouter", "init_args": {"validation_sequences": 3}}'
        options += ["--model.router", best]
    if command == "fit of losses":
        options += ["--model.router.targets", "loss", "--model.router.targets_sequences", "7"]
        options += ["--model.router.selector", "mean"]
    ran, losses = [], making.ExpertLosses

    def counted(*, model, name, dataset, **others):
        ran.append((name, model.dtype, len(dataset)))
        return losses(model=model, name=name, dataset=dataset, **others)

    monkeypatch.setattr(making, "ExpertLosses", counted)
    main([command.split()[0], *options])
    config = parsed(*options)
    sizes = {name: domain_sizes(config, name) for name in M2D2}
    passes = loss_passes(config, sizes) if command == "losses" else list(fit_passes(config, sizes, "fit"))
    counted_here = [(one.dtype, one.tokens / BLOCK) for one in passes for _ in one.models]
    assert sorted(counted_here, key=str) == sorted(((dtype, number) for _, dtype, number in ran), key=str)
    assert len(ran) == (11 if protocol == "published" else 6 if command == "losses" else 5)


def test_experts_of_two_architectures_have_no_average(parsed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = parsed("--config", "m2d2.yaml", "--experts.bank.cs_l1", "meta-llama/Llama-3.2-1B")
    (one,) = loss_passes(config, _planned(config))
    assert (len(one.models), one.dtype) == (5, torch.float32)
    assert "average" not in one.why


def test_a_comparison_runs_each_sample_once(parsed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = parsed("--config", "m2d2.yaml", "--routers", "[best_single, ir3de_loss, random]")
    found = {one.why: one.tokens for one in fit_passes(config, _planned(config), "compare")}
    assert found == {
        "5 experts, 500 train sequences of each domain": 5 * 500 * 1024,
        "5 experts, 64 validation sequences of each domain": 5 * 64 * 1024,
    }
