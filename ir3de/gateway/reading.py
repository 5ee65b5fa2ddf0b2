"""Reading a request: within the limits, JSON, with a model."""

import asyncio
import json
import re
import secrets
from typing import Any

from aiohttp import web

from ir3de.gateway.answers import Ask, Endpoint
from ir3de.gateway.errors import ApiError
from ir3de.gateway.settings import Limits

_ID = web.RequestKey("request_id", str)
_REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)


async def read_ask(request: web.Request, endpoint: Endpoint, limits: Limits) -> Ask:
    """Return what a client asks.

    Raises:
        ApiError: if it is too long, too slow, no JSON object, or without a model.
    """
    body = await read_object(request, limits)
    if not isinstance(body.get("model"), str):
        raise ApiError(400, "invalid_model", "Expected `model` to be `auto` or the name of an expert.")
    if not isinstance(body.get("stream"), bool | None):
        raise ApiError(400, "invalid_stream", "Expected `stream` to be true or false.")
    return Ask(endpoint, body, request_id_of(request))


async def read_object(request: web.Request, limits: Limits) -> dict[str, Any]:
    """Return the JSON object in a request's body; see ``read_ask``."""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise ApiError(415, "content_encoding", "Expected a body that is not compressed.")
    try:
        async with asyncio.timeout(limits.body_seconds):
            content = await _read(request, limits.body_bytes)
    except TimeoutError:
        raise ApiError(408, "too_slow", f"The request did not arrive within {limits.body_seconds:g} s.") from None
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        raise ApiError(400, "invalid_json", "Expected the body to be JSON in UTF-8.") from None
    if not isinstance(value, dict):
        raise ApiError(400, "invalid_json", f"Expected the body to be a JSON object, but got {type(value).__name__}.")
    return value


async def _read(request: web.Request, most: int) -> bytes:
    too_long = ApiError(413, "body_too_long", f"Expected a body of at most {most} bytes, but this one is longer.")
    if (request.content_length or 0) > most:
        raise too_long
    content = bytearray()
    while chunk := await request.content.readany():
        content += chunk
        if len(content) > most:
            raise too_long
    return bytes(content)


def request_id_of(request: web.Request) -> str:
    """Return the identifier that the client gave the request, or a new one, the same for each call."""
    found: str | None = request.get(_ID)
    if found is None:
        given = request.headers.get("X-Request-ID", "")
        found = request[_ID] = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(12)
    return found
