"""Files, secrets and the network are out of a hostile program's sight."""

import ast
import os
import socket
import sys
import time
from pathlib import Path

import pytest

from ir3de.isolation import Status, execute, run_isolated
from tests.helpers.isolation import LIMITS, needs_bwrap

pytestmark = needs_bwrap

ENVIRONMENT = {
    "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "MALLOC_ARENA_MAX": "1", "PWD": "/tmp",
}  # fmt: skip


def test_files_cannot_be_deleted_or_changed(tmp_path, way):
    mine = tmp_path / "precious"
    mine.write_text("precious")
    mine.chmod(0o666)
    tmp_path.chmod(0o777)
    program = f"""
import os, shutil
mine = {str(mine)!r}
os.symlink(mine, "/tmp/link")
for change in (
    lambda: os.remove(mine), lambda: open(mine, "w"), lambda: open("/tmp/link", "w"), lambda: os.chmod(mine, 0),
    lambda: open(os.__file__, "a"), lambda: os.remove(os.__file__), lambda: os.rename("/usr", "/tmp/usr"),
):
    try:
        change()
    except OSError as error:
        print(type(error).__name__)
    else:
        print("changed")
shutil.rmtree("/", ignore_errors=True)
print(os.path.exists(os.__file__))
"""
    before = os.stat(os.__file__)
    outcome = run_isolated(program, limits=LIMITS)
    assert outcome.status is Status.PASSED
    assert "changed" not in outcome.output
    assert outcome.output.endswith("True\n")
    assert mine.read_text() == "precious"
    assert os.stat(os.__file__) == before


CONNECT = """
import socket
for family, address in (
    (socket.AF_INET, ("127.0.0.1", {port})), (socket.AF_UNIX, "\\0{name}"), (socket.AF_UNIX, {path!r}),
):
    try:
        connection = socket.socket(family)
        connection.settimeout(2)
        connection.connect(address)
        connection.send(b"hello")
        print("reached")
    except OSError as error:
        print(type(error).__name__)
"""


@pytest.mark.parametrize("layer", ["both", "namespace alone", "filter alone"])
def test_nobody_is_reached_over_the_network(tmp_path, monkeypatch, layer, way):
    name = f"ir3de-{os.getpid()}-{time.monotonic_ns()}"
    path = str(tmp_path / "s")
    if layer == "namespace alone":
        allow_all = bytes.fromhex("0600 0000 0000 ff7f".replace(" ", ""))
        monkeypatch.setattr(execute, "seccomp_filter", lambda: allow_all)
    if layer == "filter alone":
        original = execute.command
        monkeypatch.setattr(
            execute, "command", lambda *a, **k: [word for word in original(*a, **k) if word != "--unshare-net"]
        )
    with socket.socket() as inet, socket.socket(socket.AF_UNIX) as abstract, socket.socket(socket.AF_UNIX) as named:
        inet.bind(("127.0.0.1", 0))
        abstract.bind(f"\0{name}")
        named.bind(path)
        os.chmod(path, 0o777)
        tmp_path.chmod(0o777)
        for listening in (inet, abstract, named):
            listening.listen()
            listening.setblocking(False)
        program = CONNECT.format(port=inet.getsockname()[1], name=name, path=path)
        exec(program, {})  # from here all three are reached
        for listening in (inet, abstract, named):
            listening.accept()[0].close()
        outcome = run_isolated(program, limits=LIMITS)
        for listening in (inet, abstract, named):
            with pytest.raises(BlockingIOError):
                listening.accept()
    assert outcome.status is Status.PASSED
    assert "reached" not in outcome.output
    if layer != "namespace alone":
        assert outcome.output == "PermissionError\n" * 3


def test_tmp_is_the_only_place_to_write(way):
    program = """
import os, sys
for folder, *_ in os.walk("/"):
    try:
        open(os.path.join(folder, "mine"), "w").close()
        print(folder)
    except OSError:
        pass
"""
    outcome = run_isolated(program, limits=LIMITS)
    assert (outcome.status, outcome.output) == (Status.PASSED, "/tmp\n")


def test_secrets_are_out_of_sight(tmp_path, monkeypatch, way):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    secret = tmp_path / "secret"
    secret.write_text("secret of a file")
    secret.chmod(0o644)
    tmp_path.chmod(0o755)
    places = [str(secret), __file__, "/etc/shadow", "/etc/passwd", "/sys", "/dev/mem", "/proc/self/mounts"]
    places += [f"/proc/{process}/{name}" for process in (1, "self", os.getpid()) for name in ("environ", "mem", "fd")]
    program = f"""
import os
print(dict(os.environ), os.uname().nodename)
for place in {places!r}:
    os.symlink(place, "/tmp/link")
    assert not os.path.lexists(place) and not os.path.exists("/tmp/link"), place
    os.remove("/tmp/link")
for folder in ("/", "/tmp", "/dev", "/etc", {str(Path.home())!r}):
    print(sorted(os.listdir(folder)) if os.path.exists(folder) else [])
"""
    outcome = run_isolated(program, limits=LIMITS)
    assert (outcome.status, outcome.detail) == (Status.PASSED, "")
    environment, *folders = outcome.output.splitlines()
    assert environment == f"{ENVIRONMENT} isolated"
    top, tmp, devices, settings, home = map(ast.literal_eval, folders)
    interpreter = Path(sys.base_prefix).resolve()
    assert set(top) <= {"dev", "etc", "lib", "lib64", "tmp", "usr", interpreter.parts[1]}
    assert (tmp, devices) == ([], ["null", "random", "shm", "urandom", "zero"])
    assert settings in ([], ["ld.so.cache"])
    at_home = interpreter.is_relative_to(Path.home())
    assert home == ([interpreter.relative_to(Path.home()).parts[0]] if at_home else [])


def test_open_files_are_not_handed_down(tmp_path, way):
    path = tmp_path / "open"
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
    os.set_inheritable(descriptor, True)
    program = """
import os
for descriptor in range(3, 1024):
    try:
        os.write(descriptor, b"mine")
    except OSError:
        pass
"""
    try:
        outcome = run_isolated(program, limits=LIMITS)
    finally:
        os.close(descriptor)
    assert path.read_bytes() == b""
    assert (outcome.status, outcome.detail) == (Status.PASSED, "")
