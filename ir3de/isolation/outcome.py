"""What a program may use, and what became of it."""

from dataclasses import dataclass, fields
from enum import StrEnum


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one program may use; the defaults are ample for a benchmark's function and its tests.

    Args:
        wall_seconds: Time from the program's first line to its end.
        cpu_seconds: Processor time of each process.
        memory_bytes: Memory of all processes together, files in ``/tmp`` included; each process may also reserve this
            much address space at most.
        file_bytes: Size of each file in ``/tmp``, the only place to write, and of all of them together.
        files: Number of files and folders in ``/tmp``.
        processes: Processes and threads at one time.
        output_bytes: What is kept of standard output and standard error together; the last bytes are kept.

    Raises:
        ValueError: If a limit is not positive.
    """

    wall_seconds: float = 10.0
    cpu_seconds: int = 3
    memory_bytes: int = 512 * 2**20
    file_bytes: int = 64 * 2**20
    files: int = 1000
    processes: int = 8
    output_bytes: int = 64 * 2**10

    def __post_init__(self) -> None:
        """Refuse limits under which nothing could run."""
        for field in fields(self):
            if getattr(self, field.name) <= 0:
                raise ValueError(f"Expected a positive `{field.name}`, but got {getattr(self, field.name)}.")


class Status(StrEnum):
    """How a program ended."""

    PASSED = "passed"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    OUT_OF_MEMORY = "out of memory"
    TOO_MANY_FILES = "too many files"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a program.

    Args:
        status: ``passed`` if the program was run to its last line and exited with 0.
        detail: Why it is not: the error's last line, the signal, or the limit.
        exit_status: As a shell counts, 128 + n for signal n; None where a limit ended the program from outside.
        output: The last bytes of standard output and standard error; what is not UTF-8 is replaced.
        cut_bytes: Output before those that was not kept.
        seconds: Time from the program's first line to its end.
    """

    status: Status
    detail: str
    exit_status: int | None
    output: str
    cut_bytes: int
    seconds: float
