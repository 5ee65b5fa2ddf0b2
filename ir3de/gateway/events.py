"""Server-sent events: bytes as they come are cut into whole events, each of which is checked."""

import json
import re
from enum import Enum

from ir3de.gateway.answers import ExpertFailed

_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")


class Kind(Enum):
    """What an event is: a part of the answer, its end, or a comment that keeps the connection awake."""

    PART = 0
    END = 1
    COMMENT = 2


class EventSplitter:
    """Cuts a stream of bytes into whole events of at most ``limit`` bytes each."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the events that ``chunk`` completes, each with the blank line that ends it.

        Raises:
            ExpertFailed: if an event is longer than the limit.
        """
        buffer = self._rest + chunk
        events, begin = [], 0
        for end in _END.finditer(buffer, max(0, len(self._rest) - 3)):
            events.append(buffer[begin : end.end()])
            begin = end.end()
        self._rest = buffer[begin:]
        if len(self._rest) > self._limit:
            raise ExpertFailed("too long", f"an event of more than {self._limit} bytes")
        return events


def kind_of(event: bytes) -> Kind:
    """Return what an event is.

    Raises:
        ExpertFailed: if it is no part of an answer: an error, or garbage.
    """
    lines = [line for line in event.splitlines() if line]
    data = b"\n".join(line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:"))
    if not data:
        if all(line.startswith((b":", b"event:", b"id:", b"retry:")) for line in lines):
            return Kind.COMMENT
        raise ExpertFailed("garbage", "what is no event")
    if data == b"[DONE]":
        return Kind.END
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise ExpertFailed("garbage", "an event that is not JSON") from None
    if isinstance(value, dict) and isinstance(value.get("choices"), list):
        return Kind.PART
    if isinstance(value, dict) and "error" in value:
        raise ExpertFailed("error", "an error in the stream")
    raise ExpertFailed("garbage", "an event without choices")
