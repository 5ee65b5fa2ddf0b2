"""What a run says of a program, and that it leaves nothing behind here."""

import os
import subprocess
import sys

import psutil
import pytest

from ir3de.isolation import Limits, Status, run_isolated
from tests.helpers.isolation import LIMITS, needs_bwrap

pytestmark = needs_bwrap


def test_a_program_passes_that_comes_to_its_end(way):
    outcome = run_isolated("print('done')", limits=LIMITS)
    assert (outcome.status, outcome.detail, outcome.exit_status) == (Status.PASSED, "", 0)
    assert (outcome.output, outcome.cut_bytes) == ("done\n", 0)
    assert outcome.seconds < 10


@pytest.mark.parametrize(
    ("program", "detail", "exit_status"),
    [
        ("assert 1 == 2, 'unequal'", "AssertionError: unequal", 1),
        ("def f(:", "SyntaxError: invalid syntax", 1),
        ("'\udc80'", "UnicodeDecodeError", 1),
        ("a\0b", "null bytes", 1),
        ("input()", "EOFError", 1),
        ("import sys; sys.exit(7)", "exited with 7", 7),
        ("import os; os.abort()", "ended by SIGABRT", 134),
        ("import os; os.kill(os.getpid(), 9)", "ended by SIGKILL", 137),
    ],
)
def test_a_program_fails_and_the_outcome_says_why(program, detail, exit_status):
    outcome = run_isolated(program, limits=LIMITS)
    assert outcome.status is Status.FAILED
    assert detail in outcome.detail
    assert outcome.exit_status == exit_status


@pytest.mark.parametrize(
    "leave",
    [
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "raise SystemExit",
        "import os; os.execv('/proc/self/exe', ['x'])",
        "import os, sys; os.execv(sys.executable, [sys.executable, '-c', ''])",
    ],
)
def test_who_leaves_before_the_tests_has_not_passed_them(leave):
    outcome = run_isolated(f"{leave}\nassert False", limits=LIMITS)
    assert outcome.status is Status.FAILED
    assert not outcome.detail.startswith("AssertionError")


def test_a_program_cannot_find_the_proof_of_its_end_in_the_interpreter():
    search = """
import gc, os, sys
seen = [sys.argv, sys.orig_argv, dict(os.environ)] + gc.get_objects()
frame = sys._getframe()
while frame:
    seen += [frame.f_locals, frame.f_globals]
    frame = frame.f_back
text = repr(seen).encode(errors="replace")
for descriptor in range(3, 64):
    try:
        for start in range(0, len(text), 2000):
            os.write(descriptor, text[start:start + 2000])
    except OSError:
        pass
os._exit(0)
"""
    outcome = run_isolated(search, limits=LIMITS)
    assert (outcome.status, outcome.detail) == (Status.FAILED, "exited with 0 before its end")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_endless_output_is_cut_and_the_outcome_says_so(stream):
    program = f"import sys\nwhile True: sys.{stream}.write('spam' * 2**14)"
    before = psutil.Process().memory_info().rss
    outcome = run_isolated(program, limits=Limits(wall_seconds=1, output_bytes=1000))
    assert outcome.status is Status.TIMED_OUT
    assert outcome.output == "spam" * 250
    assert outcome.cut_bytes > 2**26
    assert psutil.Process().memory_info().rss - before < 2**24


def test_long_output_does_not_fail_a_program():
    outcome = run_isolated("print('x' * 10**6)\nprint('end')", limits=Limits(output_bytes=10))
    assert (outcome.status, outcome.output, outcome.cut_bytes) == (Status.PASSED, "xxxxx\nend\n", 10**6 - 5)


def test_output_may_be_any_bytes():
    outcome = run_isolated(r"import os; os.write(1, b'\xff\x00ok\n')", limits=LIMITS)
    assert (outcome.status, outcome.output) == (Status.PASSED, "�\0ok\n")


def test_what_ordinary_programs_do_works():
    program = """
import asyncio, dataclasses, decimal, hashlib, multiprocessing, pickle, sqlite3, ssl, tempfile, typing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

@dataclasses.dataclass
class Point:
    x: "int"

def double(x):
    return 2 * x

assert typing.get_type_hints(Point) == {"x": int}
assert pickle.loads(pickle.dumps(Point(1))) == Point(1)
assert asyncio.run(asyncio.sleep(0, "slept")) == "slept"
for pool in (ThreadPoolExecutor(2), ProcessPoolExecutor(2)):
    with pool:
        assert list(pool.map(double, [1, 2])) == [2, 4]
with tempfile.TemporaryFile() as file:
    file.write(b"x")
assert hash("order") == HASH
if __name__ == "__main__":
    raise RuntimeError("run as a module")
"""
    known = subprocess.run(
        [sys.executable, "-c", "print(hash('order'))"], env={"PYTHONHASHSEED": "0"}, capture_output=True, check=True
    )
    outcome = run_isolated(program.replace("HASH", known.stdout.decode().strip()), limits=LIMITS)
    assert (outcome.status, outcome.detail, outcome.output) == (Status.PASSED, "", "")


def test_runs_leave_nothing_open_here():
    run_isolated("", limits=LIMITS)
    before = sorted(os.listdir("/proc/self/fd"))
    run_isolated("", limits=LIMITS)
    run_isolated("import time; time.sleep(9)", limits=Limits(wall_seconds=0.1))
    assert sorted(os.listdir("/proc/self/fd")) == before
