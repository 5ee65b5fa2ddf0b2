"""Files and folders are whole or absent."""

import os
import signal
import subprocess
import sys
import time

import pytest

from ir3de.files import cache_folder, check_writable, replace_file, replace_folder


def test_a_file_is_replaced_in_one_step(tmp_path):
    replace_file(tmp_path / "deep" / "x", b"old")
    replace_file(tmp_path / "deep" / "x", b"new")
    assert (tmp_path / "deep" / "x").read_bytes() == b"new"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["x"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    replace_file(tmp_path / "x", b"old")

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        replace_file(tmp_path / "x", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize("place", ["x", "more/and/more/x"])
def test_whether_a_file_can_be_written_is_found_out_without_a_trace(tmp_path, place):
    check_writable(tmp_path / place, option="--html", such_as="x")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_fails_half_way_leaves_the_old_one(tmp_path):
    with replace_folder(tmp_path / "f") as folder:
        (folder / "x").write_text("old")

    def fail_half_way():
        with replace_folder(tmp_path / "f") as folder:
            (folder / "x").write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert (tmp_path / "f" / "x").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_killed_writer_leaves_the_old_folder(tmp_path):
    with replace_folder(tmp_path / "f") as folder:
        (folder / "x").write_text("old")
    code = (
        "import sys, time; from pathlib import Path; from ir3de.files import replace_folder\n"
        "with replace_folder(Path(sys.argv[1])) as f:\n"
        "    (f / 'x').write_text('new'); print('writing', flush=True); time.sleep(60)"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "f")], stdout=subprocess.PIPE)
    assert writer.stdout.readline().strip() == b"writing"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    time.sleep(0.01)
    assert (tmp_path / "f" / "x").read_text() == "old"


def test_of_two_who_fill_a_cache_the_first_stays(tmp_path):
    with cache_folder(tmp_path / "f") as late:
        (late / "x").write_text("late")
        with cache_folder(tmp_path / "f") as early:
            (early / "x").write_text("early")
    assert (tmp_path / "f" / "x").read_text() == "early"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_cache_that_fails_half_way_is_not_there(tmp_path):
    def fail_half_way():
        with cache_folder(tmp_path / "f") as folder:
            (folder / "x").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert list(tmp_path.iterdir()) == []
