"""A run of `prepare` that is killed goes on where it stopped, and ends with the same bytes."""

import fcntl
import json
import multiprocessing
import os
import signal
import time

import psutil
import pytest

from ir3de.prepare import domain
from ir3de.prepare.journal import locked
from ir3de.prepare.rows import SplitWriter
from ir3de.prepare.run import prepare
from tests.helpers.processes import only_new_processes as only_new_processes  # noqa: PLC0414 - a fixture
from tests.helpers.processes import our_processes
from tests.prepare.texts import config, documents, tokenizer_in, tree, write_jsonl

FORK = multiprocessing.get_context("fork")  # a process of its own that need not import everything again


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a function that gives the config for a root, and the bytes of a run that nobody killed."""
    folder = tmp_path_factory.mktemp("killed")
    name = tokenizer_in(folder)[1]
    source = write_jsonl(folder / "raw.jsonl", documents("maths", 900))

    def config_for(root, **settings):
        settings = {"rows_per_file": 100, "documents": {"train": 500, "validation": 100, "test": 150}} | settings
        return config(root, name, {"maths": source}, **settings)

    def undisturbed(root, **settings):
        prepare(config_for(root, **settings))
        return tree(root)

    return config_for, undisturbed


def kill_after(given, root, *, files):
    """Run `prepare` in a process and kill it once it has written so many files; return its children."""
    process = FORK.Process(target=prepare, args=(given,))
    process.start()
    deadline = time.monotonic() + 60
    while len(list(root.glob(".maths.unfinished/*/data_*.parquet"))) < files and process.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL, "it was done before it could be killed"
    return children


@pytest.mark.parametrize("settings", [{}, {"pack": False, "block_length": 24}, {"max_tokens": {"train": 4000}}])
def test_a_killed_run_ends_with_the_same_bytes(tmp_path, made, settings):
    config_for, undisturbed = made
    whole = undisturbed(tmp_path / "whole", **settings)
    killed = tmp_path / "killed"
    for files in (1, 2, 4):
        kill_after(config_for(killed, **settings), killed, files=files)
        assert not (killed / "maths").exists(), "a domain is there when it is whole"
    (killed / ".maths.unfinished/train/.data_00099.parquet.half").write_bytes(b"half")
    kept = {path: path.stat().st_mtime_ns for path in killed.glob(".maths.unfinished/*/data_*.parquet")}
    journal = json.loads((killed / ".maths.unfinished/prepare.json").read_text())
    named = sum(len(state["files"]) for state in journal["splits"].values())
    prepare(config_for(killed, **settings))
    assert tree(killed) == whole
    unchanged = [
        p
        for p, written in kept.items()
        if (killed / "maths" / p.relative_to(p.parents[1])).stat().st_mtime_ns == written
    ]
    assert len(unchanged) >= named, "what was written is kept"


def test_processes_end_with_a_main_process_that_was_killed(tmp_path, made):
    config_for, undisturbed = made
    given = config_for(tmp_path / "killed", processes=2)
    children = kill_after(given, tmp_path / "killed", files=2)
    assert len(children) >= 2
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    prepare(given)
    assert tree(tmp_path / "killed") == undisturbed(tmp_path / "whole")


def test_a_process_that_is_killed_ends_the_run_with_a_sentence(tmp_path, made, monkeypatch, only_new_processes):
    config_for, undisturbed = made
    write = SplitWriter.add

    def kill_one(writer, document, ids):
        if document == 300:
            our_processes()[0].kill()
        write(writer, document, ids)

    monkeypatch.setattr(SplitWriter, "add", kill_one)
    monkeypatch.setattr("ir3de.prepare.encode._DOCUMENTS_AT_ONCE", 4)
    with pytest.raises(ValueError, match="A process that tokenizes ended before its time"):
        prepare(config_for(tmp_path / "killed", processes=2))
    assert not our_processes()
    monkeypatch.undo()
    prepare(config_for(tmp_path / "killed"))
    assert tree(tmp_path / "killed") == undisturbed(tmp_path / "whole")


def test_an_unfinished_folder_of_other_settings_is_named(tmp_path, made):
    config_for, _ = made
    kill_after(config_for(tmp_path), tmp_path, files=2)
    with pytest.raises(ValueError, match=r"unfinished .* was made with other settings: `separator` was end_of_text"):
        prepare(config_for(tmp_path, separator="none"))


def test_two_processes_do_not_make_the_same_domain(tmp_path, made):
    config_for, _ = made
    process = FORK.Process(target=prepare, args=(config_for(tmp_path),))
    process.start()
    while not list(tmp_path.glob(".maths.unfinished/*/data_*.parquet")):
        time.sleep(0.002)
    with pytest.raises(ValueError, match="Another process is preparing"):
        prepare(config_for(tmp_path))
    process.join()
    assert process.exitcode == 0


def test_a_domain_that_another_process_finishes_meanwhile_is_not_made_again(tmp_path, made, monkeypatch):
    """The other one ends after this one has looked for the folder, and before it has the lock."""
    config_for, undisturbed = made
    given = config_for(tmp_path / "both")
    lock, fill, filled = domain.locked, domain.DomainPlan._fill, []

    def locked_afterwards(folder):
        with monkeypatch.context() as other:
            other.setattr(domain, "locked", lock)
            prepare(given)
        monkeypatch.setattr(domain.DomainPlan, "_fill", lambda *given: filled.append(folder) or fill(*given))
        return lock(folder)

    monkeypatch.setattr(domain, "locked", locked_afterwards)
    prepare(given)
    assert not filled
    monkeypatch.undo()
    assert tree(tmp_path / "both") == undisturbed(tmp_path / "whole")
    assert [path.name for path in (tmp_path / "both").iterdir()] == ["maths"]


@pytest.mark.parametrize("put_in_place", [True, False])
def test_what_is_locked_is_the_folder_that_is_there(tmp_path, monkeypatch, put_in_place):
    """Another process renames the folder, or removes an empty one, after this one has opened it."""
    folder, lock = tmp_path / "unfinished", fcntl.flock

    def flock_afterwards(handle, operation):
        monkeypatch.setattr(fcntl, "flock", lock)
        if put_in_place:
            folder.rename(tmp_path / "finished")
        else:
            folder.rmdir()
        lock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", flock_afterwards)
    with locked(folder), pytest.raises(ValueError, match="Another process"), locked(folder):
        pass
    assert not folder.exists(), "nothing was begun in it"


def test_a_folder_in_which_something_was_begun_stays(tmp_path):
    with locked(tmp_path / "unfinished"):
        (tmp_path / "unfinished/prepare.json").write_text("{}")
    assert (tmp_path / "unfinished/prepare.json").is_file()
