"""Server-sent events: bytes as they come are cut into whole events, each of which is checked."""

import json
import re
from enum import Enum
from typing import Any

from ir3de.gateway.answers import ExpertFailed

_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LOOK_BACK = 3  # bytes of an end that may have come before


class Kind(Enum):
    """What an event is: a part of the answer, its end, or a comment that keeps the connection awake."""

    PART = 0
    END = 1
    COMMENT = 2


class EventSplitter:
    """Cuts a stream of bytes into whole events of at most ``limit`` bytes each."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest: list[bytes] = []  # of an event that has no end yet; put together once it has
        self._length = 0
        self._last = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the events that ``chunk`` completes, each with the blank line that ends it.

        Raises:
            ExpertFailed: if an event is longer than the limit.
        """
        events: list[bytes] = []
        around = self._last + chunk
        self._rest.append(chunk)
        self._length += len(chunk)
        if _END.search(around):
            buffer, begin = b"".join(self._rest), 0
            for end in _END.finditer(buffer, len(buffer) - len(around)):
                events.append(buffer[begin : end.end()])
                begin = end.end()
            around = buffer[begin:]
            self._rest, self._length = [around], len(around)
        self._last = around[-_LOOK_BACK:]
        if self._length > self._limit:
            raise ExpertFailed("too long", f"an event of more than {self._limit} bytes")
        return events

    def end(self) -> list[bytes]:
        """Return what is left when the stream is over, as an event; it may be half of one."""
        return self.feed(b"\n\n") if self._length else []


def kind_of(event: bytes) -> Kind:
    """Return what an event is.

    Raises:
        ExpertFailed: if it is no part of an answer: an error, or garbage.
    """
    lines = [line for line in event.splitlines() if line]
    data = b"\n".join(line[5:] for line in lines if line.startswith(b"data:")).strip()
    if not data:
        if all(line.startswith((b":", b"data:", b"event:", b"id:", b"retry:")) for line in lines):
            return Kind.COMMENT
        raise ExpertFailed("garbage", "what is no event")
    if data == b"[DONE]":
        return Kind.END
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise ExpertFailed("garbage", "an event that is not JSON") from None
    check_part(value)
    return Kind.PART


def check_part(value: Any) -> None:
    """Refuse what is no part of an answer: an object with ``choices``, and without an error.

    Raises:
        ExpertFailed: if it is none.
    """
    if isinstance(value, dict) and value.get("error") is not None:
        raise ExpertFailed("error", "an error in the place of an answer")
    choices = value.get("choices") if isinstance(value, dict) else None
    if not isinstance(choices, list) or not all(isinstance(one, dict) for one in choices):
        raise ExpertFailed("garbage", "JSON without choices")
