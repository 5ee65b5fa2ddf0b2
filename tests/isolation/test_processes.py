"""Fork bombs, kills and daemons stay inside, and end with the run."""

import os
import signal
import subprocess
import sys
import threading
import time

import psutil

from ir3de.isolation import Limits, Status, run_isolated
from tests.helpers.isolation import LIMITS, needs_bwrap
from tests.helpers.processes import our_processes
from tests.helpers.waiting import wait_until

pytestmark = needs_bwrap


def _alive(marker):
    """Return the processes of this machine that have the marker among their arguments."""
    found = []
    for process in psutil.process_iter():
        try:
            if marker in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_fork_bomb_has_a_few_processes_and_an_end():
    bomb = """
import os, signal
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
while True:
    try:
        os.fork()
    except OSError:
        pass
"""
    most, over = 0, threading.Event()

    def count():
        nonlocal most
        while not over.wait(0.02):
            most = max(most, len(our_processes()))

    counter = threading.Thread(target=count)
    counter.start()
    outcome = run_isolated(bomb, limits=Limits(wall_seconds=1, processes=6))
    over.set()
    counter.join()
    assert (outcome.status, outcome.detail, outcome.exit_status) == (Status.TIMED_OUT, "ran for more than 1 s", None)
    assert 3 <= most <= 6 + 3  # bubblewrap and its first process, which waits; all are one's children for a moment
    assert our_processes() == []


def test_threads_count_as_processes():
    program = """
import threading
for _ in range(20):
    threading.Thread(target=threading.Event().wait, args=(5,), daemon=True).start()
"""
    outcome = run_isolated(program, limits=Limits(processes=5))
    assert (outcome.status, outcome.detail) == (Status.FAILED, "RuntimeError: can't start new thread")
    assert run_isolated(program, limits=Limits(processes=30)).status is Status.PASSED


def test_other_processes_are_out_of_reach(way):
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        program = f"""
import os, signal
for process in ({sleeper.pid}, {os.getpid()}, {os.getppid()}):
    try:
        os.kill(process, signal.SIGKILL)
        print("killed")
    except ProcessLookupError:
        print("nobody there")
for number in set(signal.Signals) - {{signal.SIGINT}}:
    try:
        os.kill(1, number)  # the first process is deaf to all of them, or another user's
    except PermissionError:
        pass
try:
    os.kill(-1, signal.SIGKILL)
except (ProcessLookupError, PermissionError):
    pass
"""
        outcome = run_isolated(program, limits=LIMITS)
        alive = sleeper.poll() is None
        sleeper.kill()
    assert alive
    assert (outcome.status, outcome.detail) == (Status.PASSED, "")
    assert outcome.output == "nobody there\n" * 3


DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for descriptor in range(3):
            os.dup2(os.open("/dev/null", os.O_RDWR), descriptor)
        code = "open('/tmp/up', 'w'); import time; time.sleep(600)"
        os.execv(sys.executable, [sys.executable, "-c", code, {marker!r}])
    os._exit(0)
while not os.path.exists("/tmp/up"):
    time.sleep(0.01)
time.sleep({seconds})
"""


def test_no_process_outlives_the_run(way):
    marker = f"daemon-{os.getpid()}-{time.monotonic_ns()}"
    seen, over = [], threading.Event()

    def look():
        while not over.wait(0.05):
            seen.extend(_alive(marker))

    looking = threading.Thread(target=look)
    looking.start()
    outcome = run_isolated(DAEMON.format(marker=marker, seconds=0.5), limits=LIMITS)
    left = _alive(marker)
    over.set()
    looking.join()
    assert (outcome.status, outcome.detail) == (Status.PASSED, "")
    assert seen, "the daemon was never there"
    assert left == []
    assert our_processes() == []


def test_no_process_outlives_ours():
    marker = f"daemon-{os.getpid()}-{time.monotonic_ns()}"
    program = DAEMON.format(marker=marker, seconds=600)
    code = f"from ir3de.isolation import *; run_isolated({program!r}, limits=Limits(wall_seconds=600))"
    with subprocess.Popen([sys.executable, "-c", code]) as ours:
        wait_until(lambda: _alive(marker))
        ours.kill()
        wait_until(lambda: not _alive(marker))
    assert ours.returncode == -signal.SIGKILL, "it did not end by itself"
