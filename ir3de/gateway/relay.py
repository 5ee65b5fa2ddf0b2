"""Passing an answer on to a client at the client's pace: of a stream whole events, and an error where it breaks off."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from aiohttp import web

from ir3de.gateway.answers import ExpertFailed, Stream
from ir3de.gateway.errors import ApiError

_ERROR_SECONDS = 1.0  # to tell a client that the stream broke off
PIECE = 1 << 16  # bytes that are handed over at once


async def send(
    request: web.Request, response: web.StreamResponse, content: bytes, *, silence: float, deadline: float
) -> None:
    """Send a response with ``content`` after its own; a client that takes nothing for ``silence`` seconds is let go.

    Raises:
        ConnectionError: if the client is gone, or was let go.
    """
    try:
        async with asyncio.timeout_at(deadline):
            await _begin(request, response)
            for first in range(0, len(content), PIECE):
                await _write(request, response, content[first : first + PIECE], silence)
            await _end(request, response, silence)
    except TimeoutError:
        _abort(request)
        raise ConnectionResetError("the client took too long") from None


async def relay(
    request: web.Request, response: web.StreamResponse, answer: Stream, *, silence: float, deadline: float
) -> None:
    """Pass a stream on until its end; a client that takes nothing for ``silence`` seconds is let go.

    Raises:
        ExpertFailed: if the stream broke off; the client has been told.
        ConnectionError: if the client is gone.
    """
    try:
        async with asyncio.timeout_at(deadline):
            await _begin(request, response)
            await _write(request, response, answer.first, silence)
            while (piece := await _next(answer, silence)) is not None:
                await _write(request, response, piece, silence)
            await _end(request, response, silence)
    except (ExpertFailed, TimeoutError) as error:
        failed = (
            error if isinstance(error, ExpertFailed) else ExpertFailed("timeout", "the whole request took too long")
        )
        event = ApiError(502, "expert_failed", f"The answer breaks off here ({failed.reason}).").event()
        try:
            async with asyncio.timeout(_ERROR_SECONDS):
                await response.write(event)
                await response.write_eof()
        except TimeoutError:
            _abort(request)
        raise failed from None


async def _next(answer: Stream, silence: float) -> bytes | None:
    try:
        async with asyncio.timeout(silence):
            return await anext(answer.rest, None)
    except TimeoutError:
        raise ExpertFailed("timeout", f"silent for {silence:g} s") from None


async def _begin(request: web.Request, response: web.StreamResponse) -> None:
    await response.prepare(request)
    if request.transport is not None:
        request.transport.set_write_buffer_limits(0)  # the end then waits for all of it, and a stop for the end


async def _write(request: web.Request, response: web.StreamResponse, piece: bytes, silence: float) -> None:
    await _taken(request, response.write(piece), silence)


async def _end(request: web.Request, response: web.StreamResponse, silence: float) -> None:
    await _taken(request, response.write_eof(), silence)


async def _taken(request: web.Request, writing: Coroutine[Any, Any, None], silence: float) -> None:
    try:
        async with asyncio.timeout(silence):
            await writing
    except TimeoutError:
        _abort(request)
        raise ConnectionResetError("the client took nothing") from None


def _abort(request: web.Request) -> None:
    with suppress(AttributeError):  # gone already
        request.transport.abort()  # type: ignore[union-attr]
