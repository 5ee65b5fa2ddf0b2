"""Ends a run of several processes when one of them dies, with a sentence that names its rank.

Without it the others wait in a collective until a timeout of half an hour. Every process tells a store on rank 0's host
that it lives, through a connection of its own (the process group's is locked while it waits).
"""

import atexit
import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from torch.distributed import DistNetworkError, TCPStore  # type: ignore[attr-defined]

PERIOD_S = 0.5  # Lightning's own observer, which names a process number only, looks every 5 s
SILENCE_S = 30.0  # another host may be slow, but not for so long
FAREWELL_S = 5.0  # what a rank that failed gives the others to read why
_LOST = (RuntimeError, DistNetworkError)


class RankWatch(threading.Thread):
    """A thread beside the main one; ``before_exit`` is called before a run is ended.

    Args:
        rank: this process's rank.
        world_size: how many ranks there are.
        before_exit: stops what this process has started.
    """

    _runs = 0

    def __init__(self, *, rank: int, world_size: int, before_exit: Callable[[], None]) -> None:
        super().__init__(daemon=True, name="rank-watch")
        self._rank = rank
        self._others = [other for other in range(world_size) if other != rank]
        self._before_exit = before_exit
        self._stopped = threading.Event()
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self._store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=SILENCE_S))
        RankWatch._runs += 1
        self._run_number = RankWatch._runs  # `fit` and then `test` in one program share the store
        self._host = socket.gethostname()
        self._store.set(self._key("process", rank), json.dumps([self._host, os.getpid()]))
        self._seen: dict[int, tuple[str, float]] = {}
        # a thread that is inside the store when the interpreter ends takes the process down with it
        atexit.register(self._end_watch)

    def run(self) -> None:
        """Beat, and look at the others, until the run ends."""
        beats = 0
        while self._others and not self._stopped.wait(PERIOD_S):
            beats += 1
            try:
                self._store.set(self._key("beat", self._rank), str(beats))
                for other in list(self._others):
                    if self._store.check([self._key("done", other)]):
                        self._others.remove(other)
                    elif problem := self._problem(other):
                        self._end(problem)
            except _LOST:
                if 0 in self._others and not self._stopped.is_set():
                    self._end("rank 0, which holds the run together, died")
                return  # rank 0 has ended, and so has the run

    def finish(self) -> None:
        """Say that this rank has come to its end; rank 0, which may hold the store, waits for the others' ends."""
        if self._tell("done", "yes") and self._rank == 0:
            self.join()  # it goes on looking until the others are done, and ends the run if one dies
        self._end_watch()

    def wait_for_cause(self) -> None:
        """Give the watch time to find a rank that died, and to end the run with its name."""
        self.join(timeout=10 * PERIOD_S)

    def fail(self, reason: str) -> None:
        """Say why this rank ends the run; the others repeat it, and have a few seconds for that."""
        self._end_watch()
        if not self._tell("failed", (reason.splitlines() or ["no reason given"])[0]):
            return
        until = time.monotonic() + FAREWELL_S
        with contextlib.suppress(*_LOST):
            while time.monotonic() < until and not all(map(self._has_ended, self._others)):
                time.sleep(PERIOD_S / 10)

    def _tell(self, what: str, message: str) -> bool:
        try:
            self._store.set(self._key(what, self._rank), message)
        except _LOST:
            return False  # nobody is left to be told
        return True

    def _end_watch(self) -> None:
        self._stopped.set()
        if threading.current_thread() is not self:
            self.join()
        atexit.unregister(self._end_watch)

    def _has_ended(self, other: int) -> bool:
        return any(self._store.check([self._key(what, other)]) for what in ("done", "failed", "ended"))

    def _key(self, what: str, rank: int) -> str:
        return f"ir3de/{self._run_number}/{what}/{rank}"

    def _problem(self, other: int) -> str | None:
        if self._store.check([self._key("failed", other)]):
            return f"rank {other} failed: {self._store.get(self._key('failed', other)).decode()}"
        if not self._store.check([self._key("process", other)]):
            return None  # not started yet; the process group waits for it
        host, pid = json.loads(self._store.get(self._key("process", other)))
        dead = not _alive(pid) if host == self._host else self._silent(other)
        return f"rank {other} (process {pid} on {host}) died" if dead else None

    def _silent(self, other: int) -> bool:
        key, now = self._key("beat", other), time.monotonic()
        beat = self._store.get(key).decode() if self._store.check([key]) else ""
        before, since = self._seen.get(other, ("", now))
        if beat != before:
            since = now
        self._seen[other] = (beat, since)
        return now - since > SILENCE_S

    def _end(self, problem: str) -> None:
        message = f"error: {problem}. The run ends without its result; the same command again goes on where it was."
        print(message, file=sys.stderr, flush=True)
        self._tell("ended", "yes")
        self._before_exit()
        os._exit(1)  # the main thread waits in a collective, and cannot be woken


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, so a process
        return True
    stat = Path(f"/proc/{pid}/stat")
    # a dead child stays a zombie until its parent looks
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
