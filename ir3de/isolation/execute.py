"""One program in bubblewrap: started, watched, ended with all that it started."""

import os
import selectors
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from ir3de.isolation import inside
from ir3de.isolation.filter import seccomp_filter
from ir3de.isolation.outcome import Limits, Outcome, Status
from ir3de.isolation.usage import children, memory_and_files
from ir3de.isolation.view import command, spare_user

START_SECONDS = 60.0  # for namespaces and interpreter on a busy machine, before the program's own time begins
WATCH_SECONDS = 0.02
REPORT_BYTES = 4096
CHUNK_BYTES = 2**16


class IsolationFailed(ValueError):
    """The isolation could not be built, so the program was not run."""


def execute(program: str, limits: Limits, *, bwrap: str) -> Outcome:
    """Run ``program`` under ``limits`` and wait until nothing of it is left.

    Raises:
        IsolationFailed: If the isolation cannot be built.
    """
    run = _Run(program, limits, bwrap)
    try:
        run.watch()
    finally:
        run.end()
    return run.outcome()


class _Tail:
    """The last bytes of a stream, and how many there were before them."""

    def __init__(self, keep: int) -> None:
        self.keep, self.total, self.kept = keep, 0, b""

    def add(self, chunk: bytes) -> None:
        self.total += len(chunk)
        self.kept = (self.kept + chunk)[-self.keep :]


class _Run:
    """A running program: its processes, what it wrote, and why it was ended if it was."""

    def __init__(self, program: str, limits: Limits, bwrap: str) -> None:
        self.limits = limits
        self.secret = os.urandom(inside.SECRET_BYTES // 2).hex().encode()
        self.output, self.report = _Tail(limits.output_bytes), b""
        self.init: int | None = None  # a handle of the namespace's first process, with which all others end
        self.init_id: int | None = None
        self.begun = time.monotonic()
        self.started = False
        self.stopped: tuple[Status, str] | None = None

        source = _memory_file(program.encode("utf-8", "surrogatepass"))
        filter_fd = _memory_file(seccomp_filter())
        self.output_fd, output_fd = os.pipe()
        self.report_fd, report_fd = os.pipe()
        secret_fd, secret_source = os.pipe()
        os.write(secret_source, self.secret)
        user = spare_user()
        arguments = (
            -1 if user is None else user, limits.cpu_seconds, limits.memory_bytes, limits.file_bytes,
            limits.processes, secret_fd, report_fd,
        )  # fmt: skip
        try:
            self.process = subprocess.Popen(
                [
                    *command(bwrap, limits, filter_fd=filter_fd, user=user),
                    *("-c", Path(inside.__file__).read_text()),
                    *map(str, arguments),
                ],
                stdin=source,
                stdout=output_fd,
                stderr=output_fd,
                pass_fds=(filter_fd, secret_fd, report_fd),
                env={},
                cwd="/",
                start_new_session=True,  # Ctrl-C is for us; we end it in order
            )
        except BaseException:
            os.close(self.output_fd)
            os.close(self.report_fd)
            raise
        finally:
            for fd in (source, filter_fd, output_fd, report_fd, secret_fd, secret_source):
                os.close(fd)

    def watch(self) -> None:
        """Read what the program writes until it ends, or end it at a limit."""
        ended = os.pidfd_open(self.process.pid)
        with selectors.DefaultSelector() as selector:
            for fd in (ended, self.output_fd, self.report_fd):
                selector.register(fd, selectors.EVENT_READ)
            looked = 0.0
            try:
                while True:
                    ready = {key.fd for key, _ in selector.select(WATCH_SECONDS)}
                    for fd in ready & {self.output_fd, self.report_fd}:
                        if not self._read(fd):
                            selector.unregister(fd)
                    if ended in ready:
                        return
                    if time.monotonic() - looked >= WATCH_SECONDS:  # a flood of output must not make this busy
                        self.stopped = self._limit_reached()
                        if self.stopped:
                            return
                        looked = time.monotonic()
            finally:
                os.close(ended)

    def end(self) -> None:
        """End whatever still runs, wait for it, and read the rest."""
        if self.init is None:
            self.process.kill()
        else:
            with suppress(ProcessLookupError):  # it has ended by itself
                signal.pidfd_send_signal(self.init, signal.SIGKILL)
            os.close(self.init)
        self.process.wait()
        for fd in (self.output_fd, self.report_fd):
            os.set_blocking(fd, False)  # a process that this one forked meanwhile may hold the other end open
            with suppress(BlockingIOError):
                while self._read(fd):
                    pass
            os.close(fd)
        self.seconds = time.monotonic() - self.begun

    def outcome(self) -> Outcome:
        """Say how it ended.

        Raises:
            IsolationFailed: If the program was never reached.
        """
        text = self.output.kept.decode("utf-8", "replace")
        lines = text.strip().splitlines()
        last = lines[-1] if lines else ""
        if not self.started:
            raise IsolationFailed(f"Programs cannot be isolated here: {last or 'none was started in time'}.")
        code = self.process.returncode
        status, detail = self.stopped or self._verdict(code, last)
        return Outcome(
            status=status,
            detail=detail,
            exit_status=None if self.stopped else code,
            output=text,
            cut_bytes=self.output.total - len(self.output.kept),
            seconds=self.seconds,
        )

    def _verdict(self, code: int, last: str) -> tuple[Status, str]:
        if code == 0:
            if self.secret in self.report:
                return Status.PASSED, ""
            return Status.FAILED, "exited with 0 before its end"
        if code == 128 + signal.SIGXCPU:
            return Status.TIMED_OUT, f"a process used more than {self.limits.cpu_seconds} s of processor time"
        if code - 128 in set(signal.Signals):
            return Status.FAILED, f"ended by {signal.Signals(code - 128).name}"
        if last.startswith("MemoryError"):
            return Status.OUT_OF_MEMORY, f"a process asked for more than {self.limits.memory_bytes:,} bytes"
        return Status.FAILED, last or f"exited with {code}"

    def _read(self, fd: int) -> bool:
        chunk = os.read(fd, CHUNK_BYTES)
        if fd == self.output_fd:
            self.output.add(chunk)
        else:
            self.report = (self.report + chunk)[:REPORT_BYTES]
            if not self.started and self.report:
                self._begin()
        return bool(chunk)

    def _begin(self) -> None:
        self.started, self.begun = True, time.monotonic()
        if self.process.returncode is None:
            with suppress(ProcessLookupError):  # a short program may be over already
                for process in children(self.process.pid):  # one at most
                    self.init, self.init_id = os.pidfd_open(process), process

    def _limit_reached(self) -> tuple[Status, str] | None:
        seconds = time.monotonic() - self.begun
        if not self.started:
            return (Status.TIMED_OUT, "") if seconds > START_SECONDS else None
        if seconds > self.limits.wall_seconds:
            return Status.TIMED_OUT, f"ran for more than {self.limits.wall_seconds:g} s"
        memory, files = (0, 0) if self.init_id is None else memory_and_files(self.init_id, self.limits.memory_bytes)
        if memory > self.limits.memory_bytes:
            return Status.OUT_OF_MEMORY, f"all processes together used more than {self.limits.memory_bytes:,} bytes"
        if files > self.limits.files:
            return Status.TOO_MANY_FILES, f"made more than {self.limits.files:,} files"
        return None


def _memory_file(content: bytes) -> int:
    fd = os.memfd_create("ir3de")
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
