"""What an isolated program uses, counted from outside: limits of the kernel's own are for each process alone."""

import os
from pathlib import Path


def memory_and_files(init: int, enough: int) -> tuple[int, int]:
    """Return the bytes of memory of process ``init`` and all below it with their ``/tmp``, and the files there.

    Shared pages are counted for each process, which is quick; only where that comes to more than ``enough`` are they
    divided among those that share them. A process that has ended uses nothing.
    """
    try:
        disk = os.statvfs(f"/proc/{init}/root/tmp")
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    in_files = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
    processes = list(_below(init))
    memory = in_files + sum(map(_resident, processes))
    if memory > enough:
        memory = in_files + sum(map(_proportional, processes))
    return memory, disk.f_files - disk.f_ffree - 1  # the folder itself


def children(process: int) -> list[int]:
    """Return the ids of the processes that ``process`` has started or inherited; none if it has ended."""
    found: list[int] = []
    try:
        for thread in Path(f"/proc/{process}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def _below(process: int) -> list[int]:
    found = [process]
    for known in found:  # grows meanwhile
        found += children(known)
    return found


def _resident(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _proportional(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    except PermissionError:  # what a process hides counts in full
        return _resident(process)
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
