"""bubblewrap's command line: all that the program sees is the interpreter, the system's libraries and an empty /tmp."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from ir3de.isolation.outcome import Limits

INTERPRETER = Path(sys.executable).resolve()
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
IN_USER_NAMESPACE = ("--unshare-user", "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL")
# The kernel takes both capabilities away when the user changes.
CAN_CHANGE_USER = ("--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID")


def command(bwrap: str, limits: Limits, *, filter_fd: int, user: int | None) -> list[str]:
    """Return the command that runs the interpreter as process 1 of namespaces of its own; code and arguments follow.

    With a ``user`` it can change to that one; without, it is nobody in a namespace of users that has no other.
    """
    return [
        bwrap,
        *("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
        *(IN_USER_NAMESPACE if user is None else CAN_CHANGE_USER),
        *("--hostname", "isolated", "--new-session", "--die-with-parent", "--as-pid-1"),
        *("--clearenv", "--setenv", "HOME", "/tmp", "--setenv", "LANG", "C.UTF-8"),
        *("--setenv", "PYTHONHASHSEED", "0"),  # the order of a set decides some verdicts: the same one every time
        *("--setenv", "MALLOC_ARENA_MAX", "1"),  # otherwise each thread reserves 64 MiB of address space
        *_libraries(),
        *("--perms", "0755", "--dir", "/dev"),
        *(word for path in DEVICES for word in ("--dev-bind", path, path)),
        *("--perms", "1777", "--size", str(limits.file_bytes), "--tmpfs", "/tmp"),
        *("--symlink", "/tmp", "/dev/shm"),  # multiprocessing's locks are files there
        *("--remount-ro", "/"),  # otherwise a second place to write, without a limit
        *("--chdir", "/tmp"),
        *("--seccomp", str(filter_fd)),
        *(str(INTERPRETER), "-s", "-S", "-P", "-B"),  # the standard library alone, whatever is installed here
    ]


def spare_user() -> int | None:
    """Return a user id that root can give the program; None where this process is not root, or has no id to give.

    Root is exempt from the limit on processes, even without capabilities. A random id of the upper half of those that
    this user namespace has belongs to nobody, and two runs at a time do not share their count of processes.
    """
    if os.geteuid() != 0:
        return None
    first, _, count = map(int, Path("/proc/self/uid_map").read_text().splitlines()[-1].split())
    upper_half = count // 2
    return first + upper_half + int.from_bytes(os.urandom(4)) % upper_half if upper_half else None


def _libraries() -> list[str]:
    prefix = Path(sys.base_prefix).resolve()
    words: list[str] = []
    shown = [INTERPRETER, Path("/etc/ld.so.cache")]
    shown += [folder / name for folder in dict.fromkeys((Path("/usr"), prefix)) for name in ("lib", "lib64")]
    for path in (Path("/lib"), Path("/lib64")):
        if path.is_symlink():
            words += ["--symlink", os.readlink(path), str(path)]
        else:
            shown.append(path)
    shown = [path for path in shown if path.exists()]
    for folder in dict.fromkeys(_folders_above(shown)):
        words += ["--perms", "0755", "--dir", str(folder)]  # bubblewrap's own would be for root alone
    for path in shown:
        words += ["--ro-bind", str(path), str(path)]
    return words


def _folders_above(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        yield from reversed(path.parents[:-1])
