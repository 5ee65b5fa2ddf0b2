"""``download`` against a hub of the test's own: sizes first, gone on with, checked, and every failure named."""

import hashlib
import io
import json
import shutil
from collections import namedtuple
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from ir3de.configs import built
from ir3de.hub import present
from ir3de.hub.check import check_requirements
from ir3de.hub.download import download
from ir3de.hub.present import cached, is_present
from ir3de.hub.requirements import Requirement, requirements
from ir3de.hub.transfer import PARTIAL
from ir3de.pretrained.locate import fetch
from ir3de.reasoning.prompts import check_sources
from ir3de.reasoning.settings import KEY, Reasoning
from tests.helpers.hub import TOKEN

CHECKPOINT = bytes(range(256)) * 1200  # 307 kB: a large file in small
WEIGHTS = b"weights" * 1000


@pytest.fixture
def config(hub, parsed, write_config):
    """A config of four repositories, each of which also has what is not needed."""
    hub.add("some/tokenizer", {"tokenizer.json": b"{}", "config.json": b"{}", "model.safetensors": b"not needed"})
    hub.add("some/experts", {"a.pth": CHECKPOINT, "other.pth": b"not needed"})
    hub.add("some/expert-b", {"config.json": b"{}", "model.safetensors": WEIGHTS, "README.md": b"not needed"})
    encoder = {"config.json": b"{}", "pytorch_model.bin": b"bin", "spm.model": b"spm", "tf_model.h5": b"not needed"}
    hub.add("some/encoder", encoder)
    return parsed("--config", write_config())


def _cached(repository, file, repo_type="models"):
    (path,) = Path(constants.HF_HUB_CACHE).glob(f"{repo_type}--{repository.replace('/', '--')}/snapshots/*/{file}")
    return path.read_bytes()


def _fails(config, match, **arguments):
    with pytest.raises(ValueError, match=match) as error:
        download(config, **{"yes": True, **arguments})
    return str(error.value)


def test_sizes_come_first_and_nothing_is_fetched_without_a_yes(hub, config, capsys):
    _fails(config, "no terminal to ask at: say `--yes true` to fetch 314 kB", yes=False)
    shown = capsys.readouterr().out
    for size in ("307 kB", "7 kB", "314 kB"):
        assert size in shown
    assert not [path for method, path, _ in hub.requests if "/resolve/" in path]


def test_what_is_needed_is_fetched_and_recorded(hub, config, capsys):
    download(config, yes=True)
    assert _cached("some/experts", "a.pth") == CHECKPOINT
    assert _cached("some/expert-b", "model.safetensors") == WEIGHTS
    assert _cached("some/encoder", "pytorch_model.bin") == b"bin"
    asked = {path.rsplit("/", 1)[-1] for method, path, _ in hub.requests if method == "GET" and "/resolve/" in path}
    assert asked == {"a.pth", "config.json", "model.safetensors", "pytorch_model.bin", "spm.model", "tokenizer.json"}
    assert not cached("some/tokenizer", "model.safetensors")
    assert not [one for one in requirements(config) if one.on_the_hub and not is_present(one)]
    record = json.loads(Path("runs/tiny/downloads.json").read_text())["model:some/experts:a.pth:expert"]
    commit = hub.repositories["model", "some/experts"].commit
    assert record == {
        "commit": commit, "bytes": len(CHECKPOINT), "files": {"a.pth": hashlib.sha256(CHECKPOINT).hexdigest()},
    }  # fmt: skip
    assert f"some/experts:a.pth at commit {commit}" in capsys.readouterr().out


def test_a_second_call_fetches_nothing(hub, config):
    download(config, yes=True)
    hub.requests.clear()
    download(config)  # nothing to agree to
    assert not [path for _, path, _ in hub.requests if "/resolve/" in path]


def test_a_stopped_transfer_goes_on_where_it_was(hub, config):
    hub.cut("a.pth", after=100_000, times=1)
    hub.fail("a.pth", after=1)
    message = _fails(config, "1 could not be fetched")
    assert "some/experts:a.pth" in message
    assert _cached("some/expert-b", "model.safetensors") == WEIGHTS  # the others went on
    (part,) = Path(constants.HF_HUB_CACHE).rglob(f"*{PARTIAL}")
    assert part.read_bytes() == CHECKPOINT[:100_000]
    hub.mend()
    hub.requests.clear()
    _fails(config, "to fetch 207 kB", yes=False)  # what is left of 307
    download(config, yes=True)
    assert hub.downloads("a.pth") == ["bytes=100000-"]
    assert _cached("some/experts", "a.pth") == CHECKPOINT
    assert not part.exists()


def test_an_interruption_is_survived_within_one_call(hub, config):
    hub.cut("a.pth", after=200_000, times=1)
    download(config, yes=True)
    assert hub.downloads("a.pth") == [None, "bytes=200000-"]
    assert _cached("some/experts", "a.pth") == CHECKPOINT


@pytest.mark.parametrize("file", ["a.pth", "config.json"])  # by SHA-256, and by git's hash
def test_content_that_is_not_what_the_hub_promises_is_deleted(hub, config, file):
    hub.faults.corrupt.add(file)
    message = _fails(config, "could not be fetched")
    assert "the hub promises" in message
    assert not list(Path(constants.HF_HUB_CACHE).rglob(f"*{PARTIAL}"))
    hub.mend()
    download(config, yes=True)
    assert _cached("some/experts", "a.pth") == CHECKPOINT
    assert _cached("some/expert-b", "config.json") == b"{}"


def test_a_gated_tokenizer_is_explained_with_its_stand_in(hub, config, monkeypatch):
    gated = "meta-llama/Meta-Llama-3-8B"
    hub.add(gated, {"tokenizer.json": b"{}"}, gated="manual")
    config.data.tokenizer = gated
    message = _fails(config, "1 could not be fetched")
    assert f"{gated}: it is gated, and this account has no access to it" in message
    assert f"accept its licence at {hub.endpoint}/{gated}" in message
    assert "`hf auth login` or set HF_TOKEN" in message
    assert "--data.tokenizer NousResearch/Meta-Llama-3-8B" in message
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    download(config, yes=True)
    assert _cached(gated, "tokenizer.json") == b"{}"


def test_offline_says_what_is_missing_and_asks_nothing(hub, config, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    message = _fails(config, "HF_HUB_OFFLINE is set")
    for source in ("some/tokenizer", "some/experts:a.pth", "some/expert-b", "some/encoder"):
        assert source in message
    assert not hub.requests


def test_after_a_download_a_run_needs_no_network(hub, config, monkeypatch, capsys):
    download(config, yes=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    capsys.readouterr()
    download(config)
    assert "everything is in the cache already" in capsys.readouterr().out
    assert fetch("some/expert-b", "adapter_config.json") is None  # it is known that it has none
    assert fetch("some/expert-b", "config.json").read_bytes() == b"{}"
    with pytest.raises(ValueError, match="Could not get `some/expert-b`"):
        fetch("some/expert-b", "never_asked_for.json")
    assert not hub.requests


def test_a_disk_that_is_too_small_is_refused_before_anything_is_fetched(hub, config, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 8 * 10**5, 2 * 10**5))
    _fails(config, "Expected 314 kB free in .*, but there are 200 kB")
    assert not [path for _, path, _ in hub.requests if "/resolve/" in path]


@pytest.mark.parametrize(
    ("key", "source", "reason"),
    [
        ("a", "some/experts:b.pth", "it has no file b.pth; the nearest is a.pth"),
        ("b", "some/nothing", "no such repository"),
        ("b", "some/tokenizer-only", "no weights"),
    ],
)
def test_what_the_hub_does_not_have_is_named_and_the_rest_goes_on(hub, config, key, source, reason):
    hub.add("some/tokenizer-only", {"README.md": b"#"})
    config.experts.bank[key] = source
    message = _fails(config, "1 could not be fetched")
    assert f"{source}: " in message
    assert reason in message
    assert cached("some/tokenizer", "tokenizer.json")


def test_a_tokenizer_that_no_package_reads_is_named_before_a_run(hub, config, monkeypatch, tmp_path):
    for name in "ab":
        (tmp_path / "data" / name).mkdir(parents=True)
    download(config, yes=True)
    check_requirements(config, "compare", [])
    monkeypatch.setattr(present, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"`some/encoder` is a SentencePiece model.*ir3de\[sentencepiece\]"):
        check_requirements(config, "compare", [])


def test_the_base_of_an_adapter_comes_along(hub, config):
    adapter = {"adapter_config.json": b'{"base_model_name_or_path": "some/base"}', "adapter_model.safetensors": b"lora"}
    hub.add("some/adapter", adapter)
    hub.add("some/base", {"config.json": b"{}", "model.safetensors": b"base"})
    config.experts.bank["b"] = "some/adapter"
    download(config, yes=True)
    assert _cached("some/adapter", "adapter_model.safetensors") == b"lora"
    assert _cached("some/base", "model.safetensors") == b"base"


def test_only_some_kinds_are_fetched(hub, config):
    download(config, yes=True, only=["tokenizers"])
    assert cached("some/tokenizer", "tokenizer.json")
    assert not cached("some/experts", "a.pth")


def test_after_a_download_scores_have_their_training_prompts_without_a_network(
    hub, parsed, write_config, offline, capsys
):
    table = io.BytesIO()
    pq.write_table(pa.table({"problem": ["one", "two"]}), table)
    hub.add("some/Problems", {"README.md": b"#", "data/train.parquet": table.getvalue()}, repo_type="dataset")
    source = {"class_path": "HubDataset", "init_args": {"name": "some/Problems", "field": "problem"}}
    asked = {"tasks": {"a": ["humaneval"], "b": ["ifeval"]}, "training": {"a": source}}
    config = parsed("--config", write_config(reasoning=asked))
    download(config, yes=True, only=["datasets"])
    assert "not fetched here but by `scores`: benchmark data, google/IFEval, size unknown" in capsys.readouterr().out
    offline()
    assert [is_present(one) for one in requirements(config, "scores") if one.kind == "data set"] == [True]
    settings = built(Reasoning, KEY, config.reasoning)
    check_sources(settings)
    assert list(settings.training["a"].documents()) == ["one", "two"]


def test_a_data_set_is_fetched_and_prepared(hub, parsed, write_config, monkeypatch):
    table = io.BytesIO()
    pq.write_table(pa.table({"text": ["one", "two"]}), table)
    hub.add("some/Texts", {"README.md": b"#", "data/train.parquet": table.getvalue()}, repo_type="dataset")
    source = {"class_path": "HubDataset", "init_args": {"name": "some/Texts"}}
    domains = {"domains": {"a": source, "b": "b"}, "root": "data", "tokenizer": "train"}
    config = parsed("--config", write_config(data=domains))
    (needed,) = [one for one in requirements(config) if one.kind == "data set"]
    assert not is_present(needed)
    download(config, yes=True, only=["datasets"])
    assert is_present(needed)
    assert _cached("some/Texts", "data/train.parquet", "datasets") == table.getvalue()
    assert not is_present(Requirement("data set", "some/Others", ()))
