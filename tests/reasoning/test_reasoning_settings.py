"""The key ``reasoning``: what is refused, and the shipped benchmarks."""

from pathlib import Path

import lm_eval.tasks
import pytest
from jsonargparse import ArgumentParser

from ir3de.configs import built, load_config
from ir3de.data.tables import HubDataset
from ir3de.experts.expert_tokenizer import load_expert_tokenizer
from ir3de.reasoning.settings import Reasoning
from tests.helpers.settings import save_tokenizer

GOOD = {"tasks": {"a": ["x"], "b": ["y"]}, "metric": {"a": "m,f", "b": "m,f"}, "prompt_field": {"a": "q", "b": "q"}}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"tasks": {"a": ["x"]}}, r"`reasoning.tasks` to have each of the domains \['a', 'b'\], but got \['a'\]"),
        ({"tasks": {"a": ["x"], "b": ["x"]}}, r"\['x'\] stand twice"),
        ({"tasks": {"a": ["x"], "b": []}}, "a domain has none"),
        ({"metric": {"a": "m", "b": "m,f"}}, "Expected `reasoning.metric.a` to name a metric and a filter"),
        ({"num_fewshot": {"c": 1}}, r"`reasoning.num_fewshot` to name domains of \['a', 'b'\], but got \['c'\]"),
        ({"limit": 0}, "`reasoning.limit` to be at least 1 or null"),
        ({"temperature": -1.0}, "`reasoning.temperature` to be at least 0"),
        ({"chat_template": True, "bare_prompts": True}, "exclude each other"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Reasoning(**GOOD | changes).check(["a", "b"])


def test_the_shipped_benchmarks_are_tasks_of_lm_eval():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Reasoning, "reasoning")
    config = load_config("reasoning.yaml")
    settings = built(Reasoning, "reasoning", parser.parse_object({"reasoning": config["reasoning"]})["reasoning"])
    settings.check(list(config["data"]["domains"]))
    assert isinstance(settings.training["coding"], HubDataset)
    folder = Path(lm_eval.tasks.__file__).parent
    languages = settings.tasks["multilingual"]
    there = {path.stem for path in (folder / "okapi/arc_multilingual").glob("arc_*.yaml")}
    assert len(languages) == len(set(languages)) == 30
    assert there - set(languages) == {"arc_da"}
    for domain, path in (("math", "gsm8k/gsm8k"), ("coding", "humaneval/humaneval"), ("instruction", "ifeval/ifeval")):
        text = (folder / f"{path}.yaml").read_text()
        metric, name = settings.metric[domain].split(",")
        assert f"task: {settings.tasks[domain][0]}" in text
        assert metric.replace("@1", "_at_k").replace("pass_at_k", "pass") in text
        assert name == "none" or f'name: "{name}"' in text


def test_experts_without_a_tokenizer_take_the_datas(tmp_path):
    save_tokenizer(tmp_path / "ours", ["math"])  # as train-experts saves it
    (tmp_path / "bare").mkdir()
    ours = load_expert_tokenizer(str(tmp_path / "ours"), fallback=None)
    for source in (str(tmp_path / "bare"), "owner/name:weights.pth"):
        found = load_expert_tokenizer(source, fallback=str(tmp_path / "ours"))
        assert found.encode("the of maths") == ours.encode("the of maths")
        assert found.decode(found.encode("the of maths")) == "the of maths"
        assert found.eos_token == "<|endoftext|>"
        with pytest.raises(ValueError, match="comes without a tokenizer. Set `data.tokenizer`"):
            load_expert_tokenizer(source, fallback="train")
