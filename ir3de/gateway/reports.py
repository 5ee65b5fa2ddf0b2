"""The same warning again and again is one line, with how often it came."""

import logging
import time
from collections.abc import Hashable

_EVERY_SECONDS = 10.0


class Reports:
    """Writes each kind of warning at most once in ten seconds."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._last: dict[Hashable, float] = {}
        self._unsaid: dict[Hashable, int] = {}

    def warn(self, kind: Hashable, sentence: str) -> None:
        """Write ``sentence``, unless one of its kind was written just now."""
        now = time.monotonic()
        if now - self._last.get(kind, -_EVERY_SECONDS) < _EVERY_SECONDS:
            self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
            return
        unsaid = self._unsaid.pop(kind, 0)
        self._last[kind] = now
        self._log.warning("%s%s", sentence, f"; {unsaid} more like this before" if unsaid else "")
