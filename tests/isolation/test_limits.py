"""Time, memory, disk and files have an end."""

import shutil

import pytest

from ir3de.isolation import Limits, Status, run_isolated
from tests.helpers.isolation import needs_bwrap
from tests.helpers.processes import our_processes

pytestmark = needs_bwrap


@pytest.mark.parametrize(
    ("program", "limits", "status", "detail", "exit_status"),
    [
        (
            "while True: pass",
            {"cpu_seconds": 1},
            Status.TIMED_OUT,
            "a process used more than 1 s of processor time",
            152,
        ),
        ("import time; time.sleep(60)", {"wall_seconds": 0.5}, Status.TIMED_OUT, "ran for more than 0.5 s", None),
        (
            "import signal, time\nfor number in set(signal.Signals) - {9, 19}: signal.signal(number, signal.SIG_IGN)\n"
            "while True: time.sleep(1)",
            {"wall_seconds": 0.5},
            Status.TIMED_OUT,
            "ran for more than 0.5 s",
            None,
        ),
        (
            "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
            {"cpu_seconds": 1},
            Status.FAILED,
            "ended by SIGKILL",
            137,
        ),
    ],
    ids=["loops", "sleeps", "ignores signals", "ignores the end of its processor time"],
)
def test_no_program_runs_for_ever(program, limits, status, detail, exit_status):
    outcome = run_isolated(program, limits=Limits(**{"wall_seconds": 30, **limits}))
    assert (outcome.status, outcome.detail, outcome.exit_status) == (status, detail, exit_status)
    assert outcome.seconds < 25
    assert our_processes() == []


def test_one_process_cannot_take_more_memory():
    limits = Limits(memory_bytes=200 * 2**20)
    outcome = run_isolated("x = [bytearray(2**20) for _ in range(1000)]", limits=limits)
    assert (outcome.status, outcome.exit_status) == (Status.OUT_OF_MEMORY, 1)
    assert outcome.detail == "a process asked for more than 209,715,200 bytes"


MANY = """
import os, time, mmap
{shared}
for _ in range(4):
    if os.fork() == 0:
        {own}
        time.sleep({seconds})
        os._exit(0)
for _ in range(4):
    os.wait()
"""


@pytest.mark.parametrize(
    "own",
    [
        "x = b'x' * (90 * 2**20)",
        "x = mmap.mmap(-1, 90 * 2**20); x.write(b'x' * (90 * 2**20))",
        "import ctypes; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0); x = b'x' * (90 * 2**20)",
    ],
    ids=["own", "shared with children", "hidden (PR_SET_DUMPABLE)"],
)
def test_many_processes_cannot_take_more_memory_together(way, own):
    limits = Limits(memory_bytes=250 * 2**20, wall_seconds=20)
    outcome = run_isolated(MANY.format(shared="", own=own, seconds=60), limits=limits)
    assert (outcome.status, outcome.exit_status) == (Status.OUT_OF_MEMORY, None)
    assert outcome.detail == "all processes together used more than 262,144,000 bytes"
    assert our_processes() == []


def test_memory_that_processes_share_is_counted_once(way):
    limits = Limits(memory_bytes=250 * 2**20, wall_seconds=20)
    program = MANY.format(shared="x = b'x' * (90 * 2**20)", own="", seconds=0.5)
    outcome = run_isolated(program, limits=limits)
    assert (outcome.status, outcome.detail) == (Status.PASSED, "")


def test_files_in_memory_count_as_memory():
    limits = Limits(memory_bytes=100 * 2**20, file_bytes=400 * 2**20, wall_seconds=20)
    fill = "with open('/tmp/x', 'wb') as file:\n    while True: file.write(bytes(2**20))"
    outcome = run_isolated(fill, limits=limits)
    assert (outcome.status, outcome.exit_status) == (Status.OUT_OF_MEMORY, None)


def test_the_disk_cannot_be_filled(way):
    fill = """
import os
written = 0
while True:
    with open(f"/tmp/{written}", "wb", buffering=0) as file:
        try:
            while True:
                written += file.write(bytes(2**16))
        except OSError as error:
            print(error.strerror, written)
            if "space" in error.strerror:
                break
"""
    free = shutil.disk_usage("/").free
    outcome = run_isolated(fill, limits=Limits(file_bytes=8 * 2**20))
    assert outcome.status is Status.PASSED
    assert max(int(line.split()[-1]) for line in outcome.output.splitlines()) <= 8 * 2**20
    assert free - shutil.disk_usage("/").free < 2**30


def test_one_file_has_a_largest_size():
    program = "import os\nos.truncate(os.open('/tmp/x', os.O_CREAT | os.O_RDWR), 9 * 2**20)"
    assert run_isolated(program, limits=Limits(file_bytes=8 * 2**20)).detail == "OSError: [Errno 27] File too large"
    assert run_isolated(program, limits=Limits(file_bytes=10 * 2**20)).status is Status.PASSED


@pytest.mark.parametrize(
    "make", ["open(f'/tmp/{i}', 'w').close()", "os.mkdir(f'/tmp/{i}')", "os.symlink('x', f'/tmp/{i}')"]
)
def test_there_is_a_largest_number_of_files(make):
    program = f"import os, time\nfor i in range(1000): {make}\ntime.sleep(0.3)"
    outcome = run_isolated(program, limits=Limits(files=999))
    assert (outcome.status, outcome.detail, outcome.exit_status) == (
        Status.TOO_MANY_FILES,
        "made more than 999 files",
        None,
    )
    assert run_isolated(program, limits=Limits(files=1000)).status is Status.PASSED
