"""Live prompts are counted for the watch over drift: integers in memory of one size, added to files now and then."""

import asyncio
import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    """

    def __init__(self) -> None:
        self._counted: dict[_Place, Traffic] = {}  # since the last save
        self._unsaved: dict[_Place, Traffic] = {}  # what could not be written; the saving thread's
        self._one_at_a_time = asyncio.Lock()

    def count(self, folder: str, router: CompiledRouter, ids_T: Array, route: Route) -> None:
        """Count a prompt that was routed with an alarm."""
        assert route.p_value is not None, "prompts are counted with an alarm"
        place = (folder, router.identity)
        counted = self._counted.get(place)
        if counted is None:
            counted = self._counted[place] = _nothing(router)
        counted.count(ids_T, expert=route.expert_index, unusual=route.p_value < USUAL)

    async def save(self) -> None:
        """Add what was counted since the last save to the files.

        Raises:
            OSError: if one cannot be written; what belongs there is kept for the next save.
        """
        await self._in_thread(lambda: None)

    async def save_every(self, seconds: Callable[[], float]) -> None:
        """Save for ever; what cannot be saved is said, and tried again."""
        while True:
            await asyncio.sleep(seconds())
            try:
                await self.save()
            except OSError as error:
                _LOG.warning("the counts of prompts are not saved yet: %s", error)

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
        for place, traffic in counted.items():
            unsaved = self._unsaved.get(place)
            self._unsaved[place] = traffic if unsaved is None else unsaved + traffic
        failed: OSError | None = None
        for place, traffic in list(self._unsaved.items()):
            try:
                _add(place, traffic)
            except OSError as error:
                failed = error
            else:
                del self._unsaved[place]
        if failed is not None:
            raise failed


def prepare_folder(folder: str) -> None:
    """Make the folder of counts, and see that files can be written there.

    Raises:
        OSError: if they cannot.
    """
    try:
        with _alone(Path(folder)):
            pass
    except OSError as error:
        raise OSError(
            f"Cannot write counts of prompts into `{folder}` ({error.strerror}). Set `traffic` to another folder."
        ) from error


def _drift(folder: str, router: CompiledRouter) -> Drift:
    assert router.alarm is not None, "prompts are counted with an alarm"
    path = _file((folder, router.identity))
    live = Traffic.read(path) if path.exists() else _nothing(router)
    return compare(router.alarm.usual_traffic(), live, router.alarm)


def _nothing(router: CompiledRouter) -> Traffic:
    assert router.alarm is not None, "prompts are counted with an alarm"
    return Traffic.none(
        vocab_size=router.alarm.config["vocab_size"], expert_names=router.expert_names, identity=router.identity
    )


def _file(place: _Place) -> Path:
    folder, identity = place
    return Path(folder) / f"{identity[:_NAMED]}.npz"


def _add(place: _Place, traffic: Traffic) -> None:
    """Add counts to their file; one that is damaged is put aside."""
    path = _file(place)
    with _alone(path.parent):
        if path.exists():
            try:
                traffic = Traffic.read(path) + traffic
            except ValueError as error:
                aside = path.with_name(path.name + _DAMAGED)
                os.replace(path, aside)
                _LOG.warning("counting begins anew, the file before is now %s: %s", aside, error)
        replace_file(path, traffic.to_bytes())


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other gateways from adding to the files of a folder meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
