"""Several who compile, write and read one folder at once: each gets a whole router, and the one that is said."""

import fcntl
import io
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from ir3de.compiling import router as compiling
from ir3de.compiling.router import compile_router
from ir3de.files import alone_in, replace_file
from ir3de.routers import load_closed_form, load_router
from ir3de.serving import CompiledRouter, artifact
from ir3de.serving.artifact import read_compiled, write_compiled
from ir3de.serving.source import compiled_folder
from tests.helpers.counts import NAMES, random_share
from tests.helpers.waiting import wait_until
from tests.serving.routers import byte_pair_router, random_prompts, saved

ROOT = Path(__file__).parents[2]
_WRITES = 8  # of each of two writers: fewer together than the attempts of a reader, of which each fails at most once
_WRITER = """
import sys; from pathlib import Path; from ir3de.serving.artifact import read_compiled, write_compiled
source, folder, number = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
found = read_compiled(source)
config = {key: value for key, value in found.config.items() if key not in ("format", "files")}
files = {name: file.read_bytes() for name, file in found.files.items()}
print("ready", flush=True); sys.stdin.readline()
for _ in range(number):
    write_compiled(folder, config, files)
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Return the folders of two compiled routers with other experts."""
    base = tmp_path_factory.mktemp("two")
    return [
        compile_router(str(saved(base / name, "entropy_top_7", names=names)))
        for name, names in (("one", NAMES), ("other", ("a", "b")))
    ]


def written(compiled, folder):
    found = read_compiled(compiled)
    config = {key: value for key, value in found.config.items() if key not in ("format", "files")}
    write_compiled(folder, config, {name: file.read_bytes() for name, file in found.files.items()})


def begun(function, *arguments):
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


@pytest.fixture
def asked(monkeypatch):
    """Return the threads that asked for a lock."""
    threads, flock = [], fcntl.flock
    monkeypatch.setattr(fcntl, "flock", lambda *given: (threads.append(threading.current_thread()), flock(*given))[1])
    return threads


def test_a_router_that_is_changed_while_it_is_compiled_is_compiled_again(tmp_path, quick_check, monkeypatch):
    folder, check = byte_pair_router(tmp_path / "router"), compiling.check_same_ids

    def check_and_change(*given):
        changed = load_closed_form(folder)
        changed.add_expert("zoology", random_share(9, num_words=changed.statistics.vocab_size))
        changed.save_pretrained(folder)
        return check(*given)

    before = load_router(folder).identity_hash()
    monkeypatch.setattr(compiling, "check_same_ids", check_and_change)
    compiled = CompiledRouter.load(compile_router(str(folder)))
    assert (compiled.identity, compiled.expert_names) == (before, ("code", "prose"))
    assert compiled_folder(folder) is None, "it is another one by now"
    compiled = CompiledRouter.load(compile_router(str(folder)))
    assert compiled.identity == load_router(folder).identity_hash() != before
    assert compiled.expert_names == ("code", "prose", "zoology")


def test_a_writer_waits_for_another_one(two, tmp_path, monkeypatch, asked):
    """Without that, it would remove the files that the other one has not named yet."""
    folder, first, go_on = tmp_path / "compiled", threading.Event(), threading.Event()

    def replace(path, content):
        replace_file(path, content)
        if not first.is_set():
            first.set()
            assert go_on.wait(30)

    monkeypatch.setattr(artifact, "replace_file", replace)
    one = begun(written, two[0], folder)
    wait_until(first.is_set)
    other = begun(written, two[1], folder)
    wait_until(lambda: other in asked or not other.is_alive())
    go_on.set()
    one.join(30)
    other.join(30)
    assert CompiledRouter.load(folder, alarm=0.0).expert_names == ("a", "b"), "the one that came last"
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in two[1].iterdir())


def test_processes_that_write_and_read_one_folder_do_not_break_each_other(two, tmp_path):
    folder = tmp_path / "compiled"
    written(two[0], folder)
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(compiled), str(folder), str(_WRITES)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        )
        for compiled in two
    ]  # fmt: skip
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    seen = set()
    while any(writer.poll() is None for writer in writers):
        seen.add(CompiledRouter.load(folder, alarm=0.0).expert_names)
    assert [writer.communicate()[1] for writer in writers] == ["", ""]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen <= {NAMES, ("a", "b")}
    assert CompiledRouter.load(folder, alarm=0.0).expert_names in (NAMES, ("a", "b"))


def test_what_was_checked_is_what_is_read(two, tmp_path):
    """A router that is replaced after the check is read as it was checked."""
    folder = tmp_path / "compiled"
    written(two[0], folder)
    found = read_compiled(folder)
    expected = {name: np.load(file.path) for name, file in found.files.items() if name.endswith(".npy")}
    written(two[1], folder)
    assert len(expected) > 10
    for name, array in expected.items():
        read = found.array(name.removesuffix(".npy"))
        assert (read.dtype, read.shape, read.tobytes()) == (array.dtype, array.shape, array.tobytes())
        assert not read.flags.writeable


def test_a_router_that_is_replaced_and_comes_back_is_read(two, tmp_path, monkeypatch):
    folder, opened = tmp_path / "compiled", Path.open
    written(two[0], folder)
    left = [two[1], two[0]]

    def replaced(path, *given, **more):
        if left and path.parent == folder and path.suffix == ".npy":
            written(left.pop(0), folder)
            if left:
                with pytest.raises(FileNotFoundError):
                    opened(path, *given, **more)
                written(left.pop(), folder)
                raise FileNotFoundError
        return opened(path, *given, **more)

    monkeypatch.setattr(Path, "open", replaced)
    assert CompiledRouter.load(folder).expert_names == NAMES
    assert not left


def test_of_two_who_compile_one_router_one_does_it(tmp_path, quick_check, monkeypatch, asked):
    folder, made = byte_pair_router(tmp_path / "router"), []
    first, go_on, alarm = threading.Event(), threading.Event(), compiling.compile_alarm

    def compile_alarm(*given, **more):
        made.append(threading.current_thread())
        first.set()
        assert go_on.wait(30)
        return alarm(*given, **more)

    monkeypatch.setattr(compiling, "compile_alarm", compile_alarm)
    one = begun(compile_router, str(folder))
    wait_until(first.is_set)
    other = begun(compile_router, str(folder))
    wait_until(lambda: other in asked or len(made) > 1)
    go_on.set()
    one.join(30)
    other.join(30)
    assert made == [one]
    assert CompiledRouter.load(folder / "compiled").expert_names == ("code", "prose")
    compile_router(str(folder))
    assert len(made) == 2, "who asks for it afterwards gets it"


def test_one_that_is_killed_keeps_nobody_waiting(two, tmp_path):
    folder = tmp_path / "compiled"
    program = (
        "import sys, time; from pathlib import Path; from ir3de.files import alone_in\n"
        "with alone_in(Path(sys.argv[1])): print('alone', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, cwd=ROOT)
    assert holder.stdout.readline() == b"alone\n"
    waiting = begun(written, two[0], folder)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    waiting.join(30)
    assert CompiledRouter.load(folder).expert_names == NAMES


def test_a_folder_that_is_taken_away_while_one_waits_for_it_is_made_again(two, tmp_path, asked):
    folder = tmp_path / "compiled"
    with alone_in(folder):
        waiting = begun(written, two[0], folder)
        wait_until(lambda: waiting in asked)
        folder.rmdir()
    waiting.join(30)
    assert CompiledRouter.load(folder).expert_names == NAMES


def test_reading_takes_no_lock(two, monkeypatch):
    """The folder of a router that others serve can be one that is not to be written."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: pytest.fail("it asked for a lock"))
    router = CompiledRouter.load(two[0], alarm=0.0)
    assert len(router.route_many(random_prompts(10))) == 10


def test_what_cannot_be_compiled_leaves_no_folder(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="Expected a saved router"):
        compile_router(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()
    folder = saved(tmp_path / "router", "mean")
    next(folder.glob("router-*")).unlink()
    with pytest.raises(ValueError, match="is missing"):
        compile_router(str(folder))
    assert not (folder / "compiled").exists()


@pytest.mark.parametrize("content", [
    b"{}", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x01\x00\x02\x00{}", "objects", "of another version", "cut",
])  # fmt: skip
def test_a_file_that_holds_no_array_is_refused(two, tmp_path, content):
    found, file = read_compiled(two[0]), io.BytesIO()
    match content:
        case "objects":
            np.save(file, np.array([{}]), allow_pickle=True)
        case "of another version":
            np.lib.format.write_array(file, np.arange(9), version=(2, 0))
        case "cut":
            np.save(file, np.arange(9))
            file.truncate(150)
        case _:
            file.write(content)
    config = {key: value for key, value in found.config.items() if key not in ("format", "files")}
    files = {name: one.read_bytes() for name, one in found.files.items()}
    write_compiled(tmp_path, config, {**files, "rank.npy": file.getvalue()})
    with pytest.raises(ValueError, match=r"Expected an array in `.*rank-.*Compile the router again"):
        CompiledRouter.load(tmp_path)
    assert json.loads((tmp_path / "compiled.json").read_text())["files"].keys() == found.config["files"].keys()
