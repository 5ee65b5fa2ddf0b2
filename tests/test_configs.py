"""Configs are found by name, composed of parts, and refuse what is ambiguous."""

import json

import pytest

from ir3de.configs import SHIPPED, find_config, inline_parts, load_config


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


@pytest.mark.parametrize("form", [["--model", "m.yaml"], ["--model=m.yaml"]])
def test_a_part_on_the_command_line_is_a_config_of_that_part(here, form):
    (here / "m.yaml").write_text("router: {k: 3}")
    rewritten = inline_parts(["fit", "--config", "x.yaml", *form, "--trainer.devices", "2"])
    assert rewritten[:4] == ["fit", "--config", "x.yaml", "--config"]
    assert json.loads(rewritten[4]) == {"model": {"router": {"k": 3}}}
    assert rewritten[5:] == ["--trainer.devices", "2"]


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
