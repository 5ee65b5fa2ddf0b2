"""Refuse where programs cannot be isolated; run them where they can."""

import functools
import shutil
import sys
from pathlib import Path

from ir3de.isolation.execute import IsolationFailed, execute
from ir3de.isolation.outcome import Limits, Outcome, Status
from ir3de.isolation.view import INTERPRETER, spare_user

# It forks, writes, imports what the interpreter has not read yet, and lasts long enough to be looked at.
TRIVIAL = """
import json, os, random, time
if os.fork() == 0:
    os._exit(0)
os.wait()
open("/tmp/x", "w").close()
time.sleep(0.05)
"""
# What switches unprivileged user namespaces off: file below /proc/sys, value, what to do about it.
SWITCHES = (
    ("kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
    ("user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=10000"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl kernel.apparmor_restrict_unprivileged_userns=0"),
)


def check_isolation() -> None:
    """Run a trivial program in isolation, once for each process of this project.

    Raises:
        ValueError: If that is not possible; it says why, and what to do.
    """
    if sys.platform != "linux":
        raise ValueError(
            f"Model-written code is run in isolation only, which needs Linux, and this is {sys.platform}."
            " Run this part in a Linux container or on another machine."
        )
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise ValueError(
            "Model-written code is run in isolation only, and `bwrap` is not on the PATH."
            " Install bubblewrap with the system's package manager, such as `apt install bubblewrap`."
        )
    _check(bwrap)


def run_isolated(program: str, *, limits: Limits) -> Outcome:
    """Run Python source as a module, and say how it ended.

    Raises:
        ValueError: If it cannot be isolated; then it is not run.
    """
    check_isolation()
    return execute(program, limits, bwrap=str(shutil.which("bwrap")))


def advice(settings: Path = Path("/proc/sys"), *, as_root: bool) -> str:
    """Return what to do about namespaces that the system refuses; root needs none of users."""
    for name, value, remedy in SWITCHES:
        file = settings / name
        if not as_root and file.exists() and file.read_text().strip() == value:
            return f"Unprivileged user namespaces are switched off here: as root, `{remedy}`."
    return (
        "In a container, namespaces may be what it refuses: start it with `--privileged`, or with `--cap-add SYS_ADMIN"
        " --security-opt seccomp=unconfined --security-opt apparmor=unconfined`, or run this part outside of it."
    )


@functools.cache
def _check(bwrap: str) -> None:
    if not Path("/proc/thread-self/children").exists():
        raise ValueError(
            "Programs cannot be isolated here: /proc is not mounted, or the kernel does not list the children of a"
            " process there (CONFIG_PROC_CHILDREN), so their memory could not be watched. Run this part elsewhere."
        )
    try:
        outcome = execute(TRIVIAL, Limits(), bwrap=bwrap)
    except IsolationFailed as error:
        too_old = "Unknown option" in str(error)
        remedy = "Install bubblewrap 0.7 or newer." if too_old else advice(as_root=spare_user() is not None)
        raise ValueError(f"{error} {remedy}") from error
    except PermissionError as error:
        raise ValueError(f"Isolated programs cannot be watched here: {error}. Run this part elsewhere.") from error
    if outcome.status is not Status.PASSED:
        raise ValueError(
            f"A trivial program did not pass in isolation ({outcome.status}: {outcome.detail}), so no other is run."
            f" Expected Linux 5.14 or newer, and an interpreter that every user may read, but got {INTERPRETER}."
        )
