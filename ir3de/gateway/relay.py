"""Passing a stream on to a client: at the client's pace, whole events only, with an error where it breaks off."""

import asyncio
from contextlib import suppress

from aiohttp import web

from ir3de.gateway.answers import ExpertFailed, Stream
from ir3de.gateway.errors import ApiError

_ERROR_SECONDS = 1.0  # to tell a client that the stream broke off


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
            await response.prepare(request)
            await _write(request, response, answer.first, silence)
            while (piece := await _next(answer, silence)) is not None:
                await _write(request, response, piece, silence)
            await response.write_eof()
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


async def _write(request: web.Request, response: web.StreamResponse, piece: bytes, silence: float) -> None:
    try:
        async with asyncio.timeout(silence):
            await response.write(piece)
    except TimeoutError:
        _abort(request)
        raise ConnectionResetError("the client took nothing") from None


def _abort(request: web.Request) -> None:
    with suppress(AttributeError):  # gone already
        request.transport.abort()  # type: ignore[union-attr]
