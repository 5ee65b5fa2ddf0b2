"""Live prompts are counted for the watch over drift: integers in memory of one size, added to files now and then."""

import asyncio
import fcntl
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from itertools import chain, count
from operator import add
from pathlib import Path
from typing import TypeVar

import numpy as np

from ir3de.files import replace_file
from ir3de.serving.compiled import CompiledRouter, Route
from ir3de.serving.drift import Drift, compare
from ir3de.serving.traffic import USUAL, Traffic

Array = np.ndarray
_Found = TypeVar("_Found")
_LOG = logging.getLogger(__name__)
_LOCK, _DAMAGED = ".lock", ".damaged"
_NAMED = 16  # characters of an identity in a file's name
_Place = tuple[str, str]  # a folder, and a router's identity


class LiveTraffic:
    """Counts prompts, and adds what was counted to one file for each router in a folder.

    It is the files that have the counts, so that they go on after a restart, a reload changes none of them, and several
    gateways may count in one folder. ``count`` is for the event loop; files are read and written in a thread.

    Counts of one router take memory for every vocabulary entry. So that routers that follow each other do not add up,
    those of the one before are saved as soon as another one's begin, and what cannot be written is kept as it would be
    in its file, which is small.
    """

    def __init__(self) -> None:
        self._counted: dict[_Place, Traffic] = {}  # since the last save
        self._unsaved: dict[_Place, list[bytes | Traffic]] = {}  # what could not be written; the saving thread's
        self._one_at_a_time = asyncio.Lock()
        self._due = asyncio.Event()

    def count(self, folder: str, router: CompiledRouter, ids_T: Array, route: Route) -> None:
        """Count a prompt that was routed with an alarm."""
        assert route.p_value is not None, "prompts are counted with an alarm"
        place = (folder, router.identity)
        counted = self._counted.get(place)
        if counted is None:
            if self._counted:
                self._due.set()
            counted = self._counted[place] = _nothing(router)
        counted.count(ids_T, expert=route.expert_index, unusual=route.p_value < USUAL)

    async def save(self) -> None:
        """Add what was counted since the last save to the files.

        Raises:
            OSError: if one cannot be written; what belongs there is kept for the next save, whatever the error.
        """
        await self._in_thread(lambda: None)

    async def save_every(self, seconds: Callable[[], float]) -> None:
        """Save for ever, and when the router was replaced; what cannot be saved is said, and tried again."""
        while True:
            timer = asyncio.get_running_loop().call_later(seconds(), self._due.set)
            try:
                await self._due.wait()
            finally:
                timer.cancel()
            self._due.clear()
            try:
                await self.save()
            except Exception as error:  # or nothing would be saved from now on
                _LOG.warning("the counts of prompts are not saved yet: %s: %s", type(error).__name__, error)

    async def drift(self, folder: str, router: CompiledRouter) -> Drift:
        """Return how all prompts that were counted for a router, which has an alarm, differ from validation sequences.

        Raises:
            ValueError: if there are too few of them.
            OSError: if the file cannot be written or read.
        """
        return await self._in_thread(lambda: _drift(folder, router))

    async def _in_thread(self, then: Callable[[], _Found]) -> _Found:
        """Save, and return what ``then`` does."""

        async def run() -> _Found:
            async with self._one_at_a_time:
                counted, self._counted = self._counted, {}
                await asyncio.to_thread(self._save, counted)
                return await asyncio.to_thread(then)

        return await asyncio.shield(asyncio.ensure_future(run()))  # or what was counted went with whoever waits

    def _save(self, counted: dict[_Place, Traffic]) -> None:
        failed = [
            self._save_one(place, counted.pop(place, None)) for place in dict.fromkeys([*self._unsaved, *counted])
        ]
        for error in failed:
            if error is not None:
                raise error

    def _save_one(self, place: _Place, new: Traffic | None) -> Exception | None:
        """Add what is new, and what could not be written before, to the file, or keep it and return why."""
        parts = [*self._unsaved.get(place, ()), *(() if new is None else (new,))]
        try:
            whole = _sum(parts)
            if len(parts) > 1:  # a single one may be small already
                parts = [whole]
            _add(place, whole)
        except Exception as error:
            self._unsaved[place] = [_small(part) for part in parts]
            return error.with_traceback(None)  # whose frames have the counts
        self._unsaved.pop(place, None)
        return None


def prepare_folder(folder: str) -> None:
    """Make the folder of counts, and see that files can be written there.

    Raises:
        OSError: if they cannot.
    """
    try:
        with _alone(Path(folder)), tempfile.NamedTemporaryFile(dir=folder, prefix="."):
            pass  # the lock alone may be left from who could make files there
    except OSError as error:
        raise OSError(
            f"Cannot write counts of prompts into `{folder}` ({error.strerror}). Set `traffic` to another folder."
        ) from error


def _drift(folder: str, router: CompiledRouter) -> Drift:
    assert router.alarm is not None, "prompts are counted with an alarm"
    path = _file((folder, router.identity))
    live = Traffic.read(path) if path.exists() else _nothing(router)
    return compare(router.alarm.usual_traffic(), live, router.alarm)


def _sum(parts: Sequence[bytes | Traffic]) -> Traffic:
    return reduce(add, (Traffic.from_bytes(one, name="memory") if isinstance(one, bytes) else one for one in parts))


def _small(part: bytes | Traffic) -> bytes | Traffic:
    """Return counts as they would be in their file, or as they are where there is no memory for that now."""
    if isinstance(part, bytes):
        return part
    try:
        return part.to_bytes()
    except MemoryError:
        return part


def _nothing(router: CompiledRouter) -> Traffic:
    assert router.alarm is not None, "prompts are counted with an alarm"
    return Traffic.none(
        vocab_size=router.alarm.config["vocab_size"], expert_names=router.expert_names, identity=router.identity
    )


def _file(place: _Place) -> Path:
    folder, identity = place
    return Path(folder) / f"{identity[:_NAMED]}.npz"


def _add(place: _Place, traffic: Traffic) -> None:
    """Add counts to their file; one that is damaged is put aside, one that cannot be read now is not."""
    path = _file(place)
    with _alone(path.parent):
        if path.exists():
            try:
                traffic = Traffic.read(path) + traffic
            except ValueError as error:
                aside = _aside(path)
                os.replace(path, aside)
                _LOG.warning("counting begins anew, the file before is now %s: %s", aside, error)
        replace_file(path, traffic.to_bytes())


def _aside(path: Path) -> Path:
    """Return a name that no file put aside before has."""
    names = (path.with_name(f"{path.name}{_DAMAGED}{number}") for number in chain([""], count(2)))
    return next(name for name in names if not os.path.lexists(name))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other gateways from adding to the files of a folder meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
