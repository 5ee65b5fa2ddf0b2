"""A hub of the tests' own, and configs as the command line parses them."""

import datasets
import pytest
import yaml
from huggingface_hub import constants

import callbacks  # noqa: F401 - as main.py does
from ir3de import config_commands
from tests.helpers.hub import FakeHub


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with FakeHub() as served:
        served.install(monkeypatch, tmp_path / "home")
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)  # what comes is written in such pieces
        monkeypatch.chdir(tmp_path)
        yield served


@pytest.fixture
def offline(monkeypatch):
    """Return the function after which no library asks a hub."""

    def go():
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)

    return go


@pytest.fixture
def parsed(monkeypatch):
    """Return the function that parses options as a command that takes a config does."""

    def parse(*options):
        found = []

        def keep(config):
            found.append(config)

        monkeypatch.setitem(config_commands.CONFIG_COMMANDS, "parse", keep)
        config_commands.run_config_command("parse", options)
        return found[0]

    return parse


@pytest.fixture
def write_config(tmp_path):
    """Return the function that writes a config of two experts of a hub; options go over it."""

    def write(name="tiny.yaml", **over):
        ridge = {"class_path": "ir3de.routers.RidgeRouter", "init_args": {"embeddings": "expert:first"}}
        config = {
            "name": "tiny",
            "data": {"root": "data", "domains": {"a": "a", "b": "b"}, "tokenizer": "some/tokenizer"},
            "experts": {"bank": {"a": "some/experts:a.pth", "b": "some/expert-b"}},
            "model": {"router": ridge},
            "routers": ["encoding.yaml"],
        }
        encoder = {"class_path": "ir3de.routers.HiddenStates", "init_args": {"model": "some/encoder"}}
        router = {"class_path": "ir3de.routers.KNNRouter", "init_args": {"features": encoder}}
        (tmp_path / "encoding.yaml").write_text(yaml.safe_dump({"router": router}))
        (tmp_path / name).write_text(yaml.safe_dump(config | over))
        return name

    return write
