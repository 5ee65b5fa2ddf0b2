"""A router's compiled form on a hub of the tests' own: fetched alone, whole, of one commit, and without torch."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from ir3de.compiling.router import compile_router
from ir3de.route_command import route
from ir3de.routers import load_router
from ir3de.serving import CompiledRouter, Window
from ir3de.serving.source import compiled_folder
from ir3de.upkeep.inspect import inspect
from ir3de.upkeep.push import push
from tests.helpers.counts import random_share
from tests.helpers.hub import TOKEN
from tests.helpers.pushed import hub as hub  # noqa: PLC0414 - a fixture
from tests.serving.alarms import router as router_with_alarm
from tests.serving.routers import random_prompts, saved

ROOT = Path(__file__).parents[2]
NAME = "me/router"
PROGRAM = (
    "import sys; sys.argv = ['main.py', *sys.argv[1:]]; sys.path.insert(0, '.');"
    "import atexit; atexit.register(lambda: print(sorted({'torch', 'transformers', 'pandas'} & set(sys.modules))));"
    "from main import run; run()"
)


@pytest.fixture
def folder(hub, tmp_path):
    """Return the folder of a saved router without an alarm, which is on the hub."""
    found = saved(tmp_path / "mine", "majority", validation=3)
    push(str(found), NAME)
    return found


@pytest.fixture
def with_alarm(hub, tmp_path):
    """Return the folder of a saved router with an alarm, which is on the hub."""
    router_with_alarm(validation=20).save_pretrained(tmp_path / "mine")
    push(str(tmp_path / "mine"), NAME)
    return tmp_path / "mine"


def files(hub):
    return hub.repositories["model", NAME].files


def asked(hub):
    """Return the files that were asked for, and forget them."""
    found = {path.split("/resolve/")[1].split("/", 1)[1] for _, path, _ in hub.requests if "/resolve/" in path}
    hub.requests.clear()
    return found


def test_it_routes_as_the_router_does(folder):
    compiled = CompiledRouter.from_pretrained(NAME)
    prompts = random_prompts(60)
    texts = [" ".join(f"w{i}" for i in ids) for ids in prompts]
    assert [one.expert for one in compiled.route_many(texts)] == load_router(folder).route(texts).names
    assert compiled.identity == load_router(folder).identity_hash()


def test_the_compiled_form_alone_is_fetched_and_only_once(hub, folder):
    strangers = {"compiled/large.bin": b"0" * 99, "compiled/notes.json": b"{}", "code.py": b"0"}
    hub.add(NAME, {**files(hub), **strangers})
    hub.requests.clear()
    CompiledRouter.from_pretrained(NAME)
    named = {name for name in files(hub) if name.startswith("compiled/")} - strangers.keys()
    assert asked(hub) == named | {"config.json"}
    CompiledRouter.from_pretrained(NAME)
    assert asked(hub) == {"compiled/compiled.json"}, "whether there is a newer commit"


def test_options_are_those_of_load(with_alarm):
    window = Window("last", 4, "tokens")
    compiled = CompiledRouter.from_pretrained(NAME, window=window, threshold=0.5, fallback="law", alarm=0.05)
    there = CompiledRouter.from_pretrained(with_alarm, window=window, threshold=0.5, fallback="law", alarm=0.05)
    here = CompiledRouter.load(
        with_alarm / "compiled", window=window, threshold=0.5, fallback="law", alarm=0.05, like=compiled
    )
    assert here.reader is compiled.reader
    for ids in random_prompts(40, vocab=190):
        expected = here.route(ids)._replace(scores=None)
        assert compiled.route(ids)._replace(scores=None) == expected
        assert there.route(ids)._replace(scores=None) == expected
    with pytest.raises(TypeError, match="treshold"):
        CompiledRouter.from_pretrained(NAME, treshold=0.5)


def test_a_router_without_an_alarm_says_so(folder):
    with pytest.raises(FileNotFoundError, match="has no alarm beside it"):
        CompiledRouter.from_pretrained(NAME, alarm=0.01)


def test_any_revision_can_be_read(hub, folder):
    first = hub.repositories["model", NAME].commit
    names = CompiledRouter.from_pretrained(NAME).expert_names
    changed = load_router(folder)
    changed.add_expert("zoology", random_share(9, num_words=60))
    changed.save_pretrained(folder)
    push(str(folder), NAME)
    assert CompiledRouter.from_pretrained(NAME, revision=first).expert_names == names
    assert CompiledRouter.from_pretrained(f"{NAME}@{first}").expert_names == names
    assert CompiledRouter.from_pretrained(f"{NAME}@main").expert_names == (*names, "zoology")
    with pytest.raises(FileNotFoundError, match="no revision `v9`"):
        CompiledRouter.from_pretrained(NAME, revision="v9")
    with pytest.raises(ValueError, match="is a folder here"):
        CompiledRouter.from_pretrained(folder, revision="main")


def test_a_folder_goes_before_the_hub(hub, folder, tmp_path):
    compile_router(str(saved(tmp_path / "me" / "router", "mean")))
    hub.requests.clear()
    assert CompiledRouter.from_pretrained(NAME).config["table"] == "mean"
    assert not hub.requests


def test_the_command_routes_without_torch(hub, folder, tmp_path):
    program = [sys.executable, "-c", PROGRAM, "route", "--router", NAME, "w1 w2", "w3"]
    environment = hub.environment(tmp_path / "other", HF_TOKEN=TOKEN)
    done = subprocess.run(program, check=False, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    *rows, loaded = done.stdout.splitlines()
    assert loaded == "[]"
    assert [json.loads(row)["expert"] for row in rows] == load_router(folder).route(["w1 w2", "w3"]).names
    assert "compiling" not in done.stderr


def test_what_was_fetched_is_read_without_the_hub(hub, folder, monkeypatch):
    expected = CompiledRouter.from_pretrained(NAME).route("w1 w2")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    found = CompiledRouter.from_pretrained(NAME).route("w1 w2")
    assert found.scores.tolist() == expected.scores.tolist()
    assert not hub.requests


def test_a_router_without_a_compiled_form_is_compiled_elsewhere(hub, tmp_path, monkeypatch, capsysbinary):
    load_router(saved(tmp_path / "mine", "majority")).push_to_hub(NAME)
    with pytest.raises(FileNotFoundError, match=r"no compiled/compiled\.json.* compile --router me/router --into DIR"):
        CompiledRouter.from_pretrained(NAME)
    with pytest.raises(ValueError, match="Say with --into"):
        compile_router(NAME)
    compile_router(NAME, into="here")
    assert inspect(NAME).identity_hash == CompiledRouter.load("here").identity
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    assert route(["--router", "here", "w1"]) == 0
    assert json.loads(capsysbinary.readouterr().out)["expert"] == load_router(NAME).route(["w1"]).names[0]


def test_a_saved_router_that_is_not_compiled_is_refused(tmp_path):
    folder = saved(tmp_path / "mine", "majority")
    with pytest.raises(ValueError, match="is not compiled"):
        CompiledRouter.from_pretrained(folder)
    with pytest.raises(FileNotFoundError, match=r"there is neither config\.json nor compiled\.json"):
        CompiledRouter.from_pretrained("runs/quikstart/router")


def test_a_compiled_form_of_another_router_is_refused(hub, folder, tmp_path):
    """As an earlier version would leave it, which knows of no compiled form."""
    other = load_router(saved(tmp_path / "other", "mean"))
    other.save_pretrained(tmp_path / "other")
    new = {path.name: path.read_bytes() for path in (tmp_path / "other").iterdir()}
    hub.add(NAME, {**files(hub), **new})
    with pytest.raises(ValueError, match="is another router's than the one beside it"):
        CompiledRouter.from_pretrained(NAME)


@pytest.mark.parametrize("which", ["scores", "alarm_surprise"])
def test_what_came_damaged_is_refused_until_it_is_fetched_again(hub, with_alarm, which):
    whole = dict(files(hub))
    name = next(name for name in whole if name.startswith(f"compiled/{which}-") and name.endswith(".npy"))
    hub.add(NAME, {**whole, name: whole[name][:-8]})
    with pytest.raises(ValueError, match=r"truncated or was changed.* remove `.*models--me--router`"):
        CompiledRouter.from_pretrained(NAME)
    hub.add(NAME, whole)
    assert CompiledRouter.from_pretrained(NAME).expert_names


@pytest.mark.parametrize("name", ["../../secret.npy", "code.py", "a/b.json", "winner.pt"])
def test_a_router_that_names_other_files_is_refused(hub, folder, name):
    config = json.loads(files(hub)["compiled/compiled.json"])
    config["files"][name] = "0" * 64
    hub.add(NAME, {**files(hub), "compiled/compiled.json": json.dumps(config).encode()})
    with pytest.raises(ValueError, match="Expected arrays and JSON"):
        compiled_folder(NAME)


@pytest.mark.parametrize("digest", ["/../../../../x" + "0" * 50, 7, None])
def test_a_hash_that_is_none_is_refused(hub, folder, digest):
    config = json.loads(files(hub)["compiled/compiled.json"])
    config["files"]["winner.npy"] = digest
    hub.add(NAME, {**files(hub), "compiled/compiled.json": json.dumps(config).encode()})
    with pytest.raises(ValueError, match=r"`files` is not an object of names and SHA-256 hashes"):
        compiled_folder(NAME)


def test_a_router_of_an_earlier_version_is_to_be_pushed_again(hub, folder):
    config = {**json.loads(files(hub)["compiled/compiled.json"]), "format": 1}
    hub.add(NAME, {**files(hub), "compiled/compiled.json": json.dumps(config).encode()})
    with pytest.raises(ValueError, match=r"Expected format 2 .* but got 1.*one of the hub is to be pushed again"):
        CompiledRouter.from_pretrained(NAME)


@pytest.mark.parametrize("changes", [{"source": None}, {"source": {}}, {"files": {}}, {"alarm": {"vocab_size": 200}}])
def test_a_config_without_what_it_needs_is_refused(hub, with_alarm, changes):
    config = {**json.loads(files(hub)["compiled/compiled.json"]), **changes}
    hub.add(NAME, {**files(hub), "compiled/compiled.json": json.dumps(config).encode()})
    with pytest.raises(ValueError, match=r"compiled\.json"):
        CompiledRouter.from_pretrained(NAME, alarm=0.0)


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b"{}", b'{"format": 9}', b'{"format": 2}', b'{"format": 2, "files": []}']
)
def test_what_is_no_compiled_router_is_refused(hub, folder, content):
    hub.add(NAME, {**files(hub), "compiled/compiled.json": content})
    with pytest.raises(ValueError, match="compiled"):
        compiled_folder(NAME)
