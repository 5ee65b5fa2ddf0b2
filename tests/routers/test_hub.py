"""Routers on a hub of the tests' own: pushed as one commit, read at a revision, and refused with a reason."""

import json
from pathlib import Path

import pytest
import torch

from ir3de.routers import NaiveBayesRouter, RidgeRouter, load_router
from ir3de.routers.card import metadata_of
from ir3de.routers.hub import push_files, router_folder
from tests.helpers.counts import share
from tests.helpers.hub import TOKEN
from tests.helpers.pushed import hub as hub  # noqa: PLC0414 - a fixture
from tests.helpers.pushed import router as router  # noqa: PLC0414 - a fixture
from tests.helpers.text import word_tokenizer


def _files(hub, name="me/router"):
    return hub.repositories["model", name].files


def test_a_pushed_router_comes_back(hub, router):
    address = router.push_to_hub("me/router")
    assert address.startswith(f"{hub.endpoint}/me/router/commit/")
    for loaded in (RidgeRouter.from_pretrained("me/router"), load_router("me/router")):
        assert loaded.identity_hash() == router.identity_hash()
        assert torch.equal(loaded.scores_VE, router.scores_VE)
        assert loaded.route(["w1 w2"]).names == router.route(["w1 w2"]).names


def test_what_is_pushed_is_what_is_saved(hub, router, tmp_path):
    router.push_to_hub("me/router")
    router.save_pretrained(tmp_path / "here")
    saved = {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()}
    pushed = dict(_files(hub))
    card = pushed.pop("README.md").decode()
    assert pushed.pop(".gitattributes") == b""
    assert pushed == saved
    assert 'RidgeRouter.from_pretrained("me/router")' in card
    assert metadata_of(card)["library_name"] == "ir3de"
    assert "model-index" not in metadata_of(card)


def test_a_push_replaces_the_router_and_leaves_the_rest(hub, router):
    router.push_to_hub("me/router", message="first")
    before = set(_files(hub))
    hub.add("me/router", {**_files(hub), "notes.txt": b"mine"})
    router.add_expert("zoology", share([9] * 20))
    router.push_to_hub("me/router", message="one expert more")
    files = set(_files(hub))
    assert len(files) == len(before) + 1
    assert "notes.txt" in files
    assert load_router("me/router").expert_names == router.expert_names
    assert hub.uploads.messages == ["first", "one expert more"]  # a commit each


def test_any_revision_can_be_read(hub, router):
    first = router.push_to_hub("me/router").rsplit("/", 1)[-1]
    names = router.expert_names
    router.add_expert("zoology", share([9] * 20))
    router.push_to_hub("me/router")
    assert load_router("me/router", revision=first).expert_names == names
    assert RidgeRouter.from_pretrained("me/router", revision="main").expert_names == router.expert_names
    with pytest.raises(FileNotFoundError, match="no revision `v9`"):
        load_router("me/router", revision="v9")


def test_only_what_the_router_names_is_fetched(hub, router):
    router.push_to_hub("me/router")
    hub.add("me/router", {**_files(hub), "large.safetensors": b"0" * 99, "code.py": b"0"})
    load_router("me/router")
    assert hub.downloads("config.json")
    assert not hub.downloads("large.safetensors")
    assert not hub.downloads("code.py")
    assert not hub.downloads("README.md")


def test_a_private_router_needs_the_token(hub, router, monkeypatch):
    router.push_to_hub("me/router", private=True)
    assert hub.repositories["model", "me/router"].private
    assert load_router("me/router").expert_names == router.expert_names
    monkeypatch.delenv("HF_TOKEN")
    hub.install(monkeypatch, Path("another"))
    with pytest.raises(FileNotFoundError, match="HF_TOKEN if it is private"):
        load_router("me/router")


def test_nothing_private_goes_into_what_is_public(hub, router):
    hub.add("me/router", {"README.md": b"#"})
    with pytest.raises(ValueError, match="is public"):
        router.push_to_hub("me/router", private=True)
    assert set(_files(hub)) == {"README.md"}


@pytest.mark.parametrize("token", [None, "hf_wrong"])
def test_without_a_token_nothing_is_pushed(hub, router, token, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    said = "Set HF_TOKEN" if token is None else "did not take"
    with pytest.raises(ValueError, match=said) as refused:
        router.push_to_hub("me/router", token=token)
    assert "hf_wrong" not in str(refused.value)
    assert not hub.repositories


def test_a_given_token_is_taken(hub, router, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    router.push_to_hub("me/router", token=TOKEN)
    assert "config.json" in _files(hub)


def test_a_hub_that_fails_leaves_the_router_that_was_there(hub, router):
    router.push_to_hub("me/router")
    before = dict(_files(hub))
    router.add_expert("zoology", share([9] * 20))
    hub.uploads.refuses = 500
    with pytest.raises(ValueError, match="did not take the router for `me/router`"):
        router.push_to_hub("me/router")
    assert _files(hub) == before


@pytest.mark.parametrize("name", ["router", "a/b/c", "../router", "me/", ""])
def test_what_is_no_repository_is_refused(hub, router, name):
    with pytest.raises(ValueError, match="owner/name"):
        router.push_to_hub(name)


def test_an_unfitted_router_is_not_pushed(hub):
    with pytest.raises(ValueError, match="Expected a fitted router"):
        NaiveBayesRouter(tokenizer=word_tokenizer()).push_to_hub("me/router")
    assert not hub.repositories


def test_a_folder_goes_before_the_hub(hub, router, tmp_path):
    router.push_to_hub("me/router")
    router.add_expert("zoology", share([9] * 20))
    router.save_pretrained(tmp_path / "me" / "router")
    assert "zoology" in load_router("me/router").expert_names
    with pytest.raises(ValueError, match="is a folder here"):
        load_router("me/router", revision="main")


def test_where_nothing_is_both_places_are_named(hub, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder here, and the hub did not give it"):
        load_router("runs/missing")
    with pytest.raises(FileNotFoundError, match="there is no config.json"):
        load_router(tmp_path / "missing")
    asked = len(hub.requests)
    with pytest.raises(FileNotFoundError, match="there is no config.json"):
        load_router(Path("runs/missing"))
    assert len(hub.requests) == asked
    hub.add("me/other", {"README.md": b"#"})
    with pytest.raises(FileNotFoundError, match="has no config.json"):
        load_router("me/other")


@pytest.mark.parametrize("name", ["../secret.safetensors", "router.pt", "code.py", "a/b.json"])
def test_a_router_that_names_other_files_is_refused(hub, router, name):
    router.push_to_hub("me/router")
    config = json.loads(_files(hub)["config.json"])
    config["files"][name] = "0" * 64
    hub.add("me/router", {**_files(hub), "config.json": json.dumps(config).encode(), name: b""})
    with pytest.raises(ValueError, match="tensors and JSON"):
        load_router("me/router")


def test_what_came_damaged_is_refused(hub, router):
    router.push_to_hub("me/router")
    name = next(name for name in _files(hub) if name.startswith("router-"))
    hub.add("me/router", {**_files(hub), name: _files(hub)[name][:-8]})
    with pytest.raises(ValueError, match="truncated or was changed"):
        load_router("me/router")


def test_what_was_fetched_is_read_without_the_hub(hub, router, monkeypatch):
    from huggingface_hub import constants

    router.push_to_hub("me/router")
    load_router("me/router")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.requests)
    assert load_router("me/router").expert_names == router.expert_names
    assert len(hub.requests) == asked


def test_files_of_a_router_before_go(hub):
    old, new = (f"router-{digit * 16}.safetensors" for digit in "ab")
    hub.add("me/router", {old: b"0", "config.json": b"{}"})
    push_files("me/router", {new: b"1", "config.json": b"[]"}, message="new")
    assert _files(hub) == {new: b"1", "config.json": b"[]"}


def test_a_path_that_is_no_name_is_a_folder(tmp_path):
    assert router_folder("./some/where") == Path("some/where")
    assert router_folder(str(tmp_path)) == tmp_path
