"""A request as an expert gets it, and what an expert gives back: an answer in one piece, a stream, or a failure."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Literal

Endpoint = Literal["chat/completions", "completions"]
Reason = Literal["connect", "timeout", "status", "garbage", "broken off", "too long", "busy", "error", "no such call"]


@dataclass(frozen=True)
class Ask:
    """A request: its ``body`` as the client sent it, and the identifier under which it is passed on."""

    endpoint: Endpoint
    body: dict[str, Any]
    request_id: str

    @property
    def stream(self) -> bool:
        """Whether the answer is to be streamed."""
        return self.body.get("stream") is True


@dataclass(frozen=True)
class Whole:
    """An answer in one piece: JSON."""

    content: bytes


@dataclass(frozen=True)
class Stream:
    """A stream of server-sent events that has begun: ``first`` was checked; ``rest`` yields whole, checked events.

    ``rest`` raises ``ExpertFailed`` if the stream breaks off, and is to be closed by whoever takes the answer.
    """

    first: bytes
    rest: AsyncGenerator[bytes, None]


class ExpertFailed(Exception):
    """An expert gave no answer that can be used; another one may."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason

    @property
    def speaks_against_it(self) -> bool:
        """Whether the next request, too, would better be asked of another one."""
        return self.reason not in ("busy", "no such call")


class AskRefused(Exception):
    """The request itself is at fault: no other expert is asked; ``content`` is JSON that says why."""

    def __init__(self, status: int, content: bytes) -> None:
        super().__init__(f"refused with status {status}")
        self.status = status
        self.content = content


class Expert(ABC):
    """Answers requests."""

    @abstractmethod
    async def answer(self, ask: Ask) -> Whole | Stream:
        """Return the answer.

        Raises:
            ExpertFailed: if there is none, and another expert may be asked.
            AskRefused: if the request is at fault.
        """
