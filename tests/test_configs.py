"""Configs are found by name, composed of parts, and refuse what is ambiguous."""

import json

import pytest

from ir3de.arguments import in_order
from ir3de.config_commands import CONFIG_COMMANDS, run_config_command
from ir3de.configs import SHIPPED, find_config, load_config


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_working_directory_comes_before_configs(here):
    assert find_config("quickstart.yaml") == SHIPPED / "quickstart.yaml"
    (here / "quickstart.yaml").write_text("name: mine")
    assert load_config("quickstart.yaml") == {"name": "mine"}


def test_parts_are_found_beside_the_config_here_and_in_configs(here):
    (here / "sub").mkdir()
    (here / "sub" / "data.yaml").write_text("block_length: 7")
    (here / "sub" / "x.yaml").write_text("data: data.yaml\nmodel: routers/naive_bayes.yaml\nexperts: {trainer: t.yaml}")
    (here / "t.yaml").write_text("devices: 1")
    config = load_config("sub/x.yaml")
    assert config["data"] == {"block_length": 7}
    assert config["model"]["router"]["class_path"] == "ir3de.routers.NaiveBayesRouter"
    assert config["experts"] == {"trainer": {"devices": 1}}


@pytest.fixture
def parsed(here, monkeypatch):
    """Return the function that parses arguments as a command that takes a config does."""

    def parse(*arguments):
        found = []

        def keep(config):
            found.append(config)

        monkeypatch.setitem(CONFIG_COMMANDS, "parse", keep)
        run_config_command("parse", arguments)
        return found[0]

    return parse


@pytest.mark.parametrize("form", [["--model", "m.yaml"], ["--model=m.yaml"]])
def test_a_part_on_the_command_line_is_a_config_of_that_part(here, form):
    (here / "m.yaml").write_text("router: {k: 3}")
    (here / "x.yaml").write_text("name: x\nmodel: {optimizer: {class_path: Adam}}")
    rewritten = in_order([*form, "--trainer.devices", "2", "--config", "x.yaml"])
    assert rewritten[0] == rewritten[2] == "--config"
    assert json.loads(rewritten[1]) == {"name": "x"}, "the part takes the place of the whole other one"
    assert json.loads(rewritten[3]) == {"model": {"router": {"k": 3}}}
    assert rewritten[4:] == ["--trainer.devices", "2"]


def test_a_part_that_a_later_config_names_takes_the_place_of_an_earlier_one(here):
    (here / "m.yaml").write_text("router: {k: 3}")
    (here / "x.yaml").write_text("name: x\nmodel: {optimizer: {class_path: Adam}}")
    (here / "y.yaml").write_text("model: m.yaml")
    assert [json.loads(one) if one.startswith("{") else one for one in in_order(["-c=x.yaml", "-c", "y.yaml"])] == [
        "--config", {"name": "x"}, "--config", "y.yaml",
    ]  # fmt: skip


PUBLISHED_REASONING = {
    "protocol": "published", "faults.count_padding": True, "faults.routed_batches": None, "faults.repeat_to": 1000,
    "reasoning.temperature": 0.7, "experts.losses.table": "reasoning/scores_published.parquet",
}  # fmt: skip
CORRECTED_REASONING = {
    "protocol": "corrected", "faults.count_padding": False, "faults.routed_batches": None, "faults.repeat_to": None,
    "reasoning.temperature": 0.0, "experts.losses.table": "reasoning/scores.parquet",
}  # fmt: skip


def _values(config, expected):
    return {key: config[key] for key in expected}


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--config", "reasoning.yaml"], CORRECTED_REASONING),
        (["--config", "reasoning.yaml", "--protocol", "published"], PUBLISHED_REASONING),
        (["--protocol=published", "--config=reasoning.yaml"], PUBLISHED_REASONING),
        (["-c", "reasoning.yaml", "-c", "published.yaml"], PUBLISHED_REASONING),
        (["-c", "published.yaml", "-c", "reasoning.yaml"], CORRECTED_REASONING),
        (["-c", "reasoning.yaml", "--protocol", "published", "--protocol", "corrected"], CORRECTED_REASONING),
        (["-c", "reasoning.yaml", "-c", "published.yaml", "--protocol", "corrected"], CORRECTED_REASONING),
    ],
)
def test_a_protocol_sets_the_same_wherever_it_is_said(parsed, here, arguments, expected):
    (here / "published.yaml").write_text("protocol: published")
    assert _values(parsed(*arguments), expected) == expected


@pytest.mark.parametrize(
    "text, more, batches",
    [
        ("faults: {routed_batches: 4}", [], 4),
        ("protocol: published\nfaults: {routed_batches: 4}", [], 4),
        ("protocol: published", [], 16),
        ("faults: {routed_batches: 4}", ["--protocol", "published"], 16),
        ("", ["--faults.routed_batches", "5", "--protocol", "published"], 5),
        ("protocol: published", ["--faults.routed_batches", "5"], 5),
    ],
)
def test_the_command_line_wins_over_configs_and_a_config_over_its_protocol(parsed, here, text, more, batches):
    (here / "x.yaml").write_text(f"name: x\n{text}")
    assert parsed(*more, "--config", "m2d2.yaml", "--config", "x.yaml").faults.routed_batches == batches


def test_a_part_by_name_replaces_what_the_config_says_of_it(parsed):
    settings = parsed("--config", "m2d2.yaml", "--prepare", "prepare/openwebtext.yaml").prepare
    assert list(settings.domains) == ["openwebtext"]
    assert settings.max_tokens is None


def test_a_missing_config_names_the_nearest(here):
    with pytest.raises(FileNotFoundError, match=r"Found no config `quickstrat.yaml`.*There are: quickstart.yaml"):
        load_config("quickstrat.yaml")
    (here / "x.yaml").write_text("model: routers/ir3d.yaml")
    with pytest.raises(FileNotFoundError, match=r"`routers/ir3d.yaml`.*routers/ir3de.yaml"):
        load_config("x.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nname: b", "the key `name` stands twice"),
        ("data:\n  domains:\n    law: x\n    law: y", "the key `law` stands twice"),
        ("- a\n- b", "Expected `x.yaml` to be a mapping"),
        ("a: [1", "not valid YAML"),
    ],
)
def test_ambiguous_yaml_is_refused(here, text, message):
    (here / "x.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_config("x.yaml")
