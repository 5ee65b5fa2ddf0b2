"""What is fetched is the commit that was listed, whatever becomes of the branch meanwhile."""

import io
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi

from ir3de.data.tables import HubDataset
from ir3de.hub import download as downloading
from ir3de.hub import plan as planning
from ir3de.hub.download import download
from ir3de.hub.plan import plan
from ir3de.hub.present import is_present
from ir3de.hub.requirements import Requirement, requirements
from ir3de.pretrained.locate import fetch


def _table(*texts):
    table = io.BytesIO()
    pq.write_table(pa.table({"text": list(texts)}), table)
    return table.getvalue()


@pytest.fixture
def between(monkeypatch):
    """Return the function that does something between the listing of what is to be fetched and the fetching."""

    def do(what):
        checked = downloading._check_disk
        monkeypatch.setattr(downloading, "_check_disk", lambda plans: (what(), checked(plans)))

    return do


def _record(key):
    return json.loads(Path("runs/tiny/downloads.json").read_text())[key]


def _experts(parsed, write_config):
    data = {"root": "data", "domains": {"a": "a", "b": "b"}, "tokenizer": "train"}
    config = parsed("--config", write_config(data=data, routers=["random"]))
    config.experts.bank = {"a": "some/a", "b": "some/b"}
    config.model.router = {"class_path": "ir3de.routers.RandomRouter"}
    return config


def test_a_branch_that_moves_while_files_are_fetched_changes_nothing(hub, parsed, write_config, between, offline):
    files = {"config.json": b'{"first": 1}', "model.safetensors": b"first"}
    listed = {name: hub.add(name, files) for name in ("some/a", "some/b")}
    config = _experts(parsed, write_config)
    moved = {"config.json": b'{"second": 2}', "model.safetensors": b"second", "adapter_config.json": b"{}"}
    between(lambda: hub.add("some/a", moved))
    download(config, yes=True)
    assert _record("model:some/a:expert")["commit"] == listed["some/a"].commit
    offline()
    assert fetch("some/a", "config.json").read_bytes() == b'{"first": 1}'
    assert fetch("some/a", "model.safetensors").read_bytes() == b"first"
    assert fetch("some/a", "adapter_config.json") is None  # the commit that is here has none
    assert not [one for one in requirements(config) if one.on_the_hub and not is_present(one)]


def test_a_commit_that_is_here_already_is_the_one_that_runs_read(hub, parsed, write_config, offline):
    hub.add("some/b", {"config.json": b"{}", "model.safetensors": b"b"})
    hub.add("some/a", {"config.json": b"{}", "model.safetensors": b"first"})
    config = _experts(parsed, write_config)
    download(config, yes=True)
    hub.add("some/a", {"config.json": b"{}", "model.safetensors": b"second"})
    download(config, yes=True)
    hub.add("some/a", {"config.json": b"{}", "model.safetensors": b"first"})  # put back: nothing is to be fetched
    download(config)
    offline()
    assert fetch("some/a", "model.safetensors").read_bytes() == b"first"


def _texts(parsed, write_config, revision):
    source = {"class_path": "HubDataset", "init_args": {"name": "some/Texts", "revision": revision}}
    return parsed("--config", write_config(data={"domains": {"a": source, "b": "b"}, "root": "data"}))


def test_the_revision_that_a_config_names_is_listed_fetched_and_recorded(hub, parsed, write_config, offline):
    hub.add("some/Texts", {"README.md": b"#", "data/train.parquet": _table("of main")}, repo_type="dataset")
    other = {"README.md": b"#", "data/train-0.parquet": _table("of v1"), "data/train-1.parquet": _table("of v1 too")}
    branch = hub.add("some/Texts", other, repo_type="dataset", branch="v1")
    download(_texts(parsed, write_config, "v1"), yes=True, only=["datasets"])
    record = _record("dataset:some/Texts:data set")
    assert record["commit"] == branch.commit
    assert sorted(record["files"]) == ["data/train-0.parquet", "data/train-1.parquet"]
    download(_texts(parsed, write_config, "v1"), only=["datasets"])  # nothing to agree to
    here = {
        revision: [
            is_present(one) for one in requirements(_texts(parsed, write_config, revision)) if one.kind == "data set"
        ]
        for revision in ("v1", branch.commit, "v2")
    }
    assert here == {"v1": [True], branch.commit: [True], "v2": [False]}
    offline()
    assert list(HubDataset("some/Texts", revision="v1").documents()) == ["of v1", "of v1 too"]


def test_a_data_set_that_changes_while_it_is_fetched_is_the_one_that_was_listed(
    hub, parsed, write_config, between, offline
):
    first = hub.add("some/Texts", {"README.md": b"#", "data/train.parquet": _table("first")}, repo_type="dataset")
    second = {"README.md": b"#", "data/train.parquet": _table("second"), "data/train-1.parquet": _table("third")}
    between(lambda: hub.add("some/Texts", second, repo_type="dataset"))
    config = _texts(parsed, write_config, None)
    download(config, yes=True, only=["datasets"])
    assert _record("dataset:some/Texts:data set")["commit"] == first.commit
    offline()
    assert [is_present(one) for one in requirements(config) if one.kind == "data set"] == [True]
    assert list(HubDataset("some/Texts").documents()) == ["first"]


def test_a_revision_that_is_not_there_is_named_and_the_rest_goes_on(hub, parsed, write_config):
    hub.add("some/Texts", {"README.md": b"#", "data/train.parquet": _table("a")}, repo_type="dataset")
    with pytest.raises(ValueError, match="some/Texts: it has no revision `v2`"):
        download(_texts(parsed, write_config, "v2"), yes=True, only=["datasets"])


def test_whatever_a_data_set_cannot_be_listed_for_is_its_problem(hub, monkeypatch):
    hub.add("some/Texts", {"README.md": b"#", "data/train.parquet": _table("a")}, repo_type="dataset")
    monkeypatch.setattr(planning, "wanted", lambda *_: ["data/not-listed.parquet"])
    found = plan(Requirement("data set", "some/Texts", ()), HfApi(endpoint=hub.endpoint))
    assert "data/not-listed.parquet" in found.problem


def _read(revision=None, **more):
    return list(HubDataset("some/Texts", revision=revision, **more).documents())


@pytest.fixture
def three(hub):
    """Return the commits of the data set on three branches."""
    return {
        branch: hub.add(
            "some/Texts", {"README.md": b"#", "train.parquet": _table(branch)}, repo_type="dataset", branch=branch
        ).commit
        for branch in ("main", "v1", "v2")
    }


@pytest.mark.parametrize("order", [("v1", "v2", "main"), ("main", "v2", "v1")])
def test_without_a_hub_each_revision_is_still_itself(three, offline, order):
    for branch in order:
        assert _read(branch) == [branch]
    offline()
    for branch in ("v2", "main", "v1"):
        assert _read(branch) == [branch]
        assert _read(three[branch]) == [branch]
    assert _read() == ["main"]


def test_without_a_hub_another_revision_is_not_taken_in_its_place(three, offline):
    assert (_read("v1"), _read("v2")) == (["v1"], ["v2"])
    offline()
    with pytest.raises(ValueError, match=f"the cache has the commits .* but not {three['main']}"):
        _read(three["main"])
    with pytest.raises(ValueError, match="which commit `main` is was not noted"):
        _read()
    with pytest.raises(ValueError, match="which commit `v3` is was not noted"):
        _read("v3")


def test_revisions_are_noted_without_a_readme_too(hub, offline):
    for branch in ("main", "v1"):
        hub.add("some/Texts", {"train.parquet": _table(branch)}, repo_type="dataset", branch=branch)
        assert _read(branch) == [branch]
    offline()
    assert (_read("main"), _read("v1"), _read()) == (["main"], ["v1"], ["main"])


def test_without_a_hub_and_a_note_the_only_commit_that_is_here_is_taken(hub, offline, tmp_path):
    hub.add("some/Texts", {"train.parquet": _table("first")}, repo_type="dataset")
    assert _read() == ["first"]
    offline()
    shutil.rmtree(tmp_path / "home" / "hub")  # the prepared table is in another cache
    assert _read() == ["first"]
    with pytest.raises(ValueError, match="which commit `v1` is was not noted"):
        _read("v1")


def test_without_a_hub_the_commit_that_main_was_last_is_read(three, hub, offline):
    assert _read() == ["main"]
    assert _read("v1") == ["v1"]
    hub.add("some/Texts", {"README.md": b"#", "train.parquet": _table("moved")}, repo_type="dataset")
    assert _read() == ["moved"]
    assert _read(three["main"]) == ["main"]
    offline()
    assert _read() == ["moved"]
    assert _read(three["main"]) == ["main"]


def test_without_a_hub_configurations_are_told_apart(hub, offline):
    card = b"---\nconfigs:\n- config_name: a\n  data_files: a.parquet\n- config_name: b\n  data_files: b.parquet\n---\n"
    for branch in ("v1", "v2"):
        files = {"README.md": card, **{f"{name}.parquet": _table(f"{name} of {branch}") for name in "ab"}}
        hub.add("some/Texts", files, repo_type="dataset", branch=branch)
        assert [_read(branch, config=name) for name in "ab"] == [[f"a of {branch}"], [f"b of {branch}"]]
    offline()
    assert [_read("v1", config=name) for name in "ba"] == [["b of v1"], ["a of v1"]]
    with pytest.raises(ValueError, match="configurations"):
        _read("v1")


def test_a_split_is_sliced_without_a_hub_as_with_one(hub, offline):
    for branch in ("v1", "v2"):
        files = {"README.md": b"#", "train.parquet": _table(*(f"{branch} {i}" for i in range(4)))}
        hub.add("some/Texts", files, repo_type="dataset", branch=branch)
    there = [_read(branch, split="train[1:3]") for branch in ("v1", "v2")]
    assert there == [["v1 1", "v1 2"], ["v2 1", "v2 2"]]
    offline()
    assert [_read(branch, split="train[1:3]") for branch in ("v1", "v2")] == there
