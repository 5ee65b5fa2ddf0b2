"""An expert behind an OpenAI-compatible endpoint: asked over HTTP, its answer checked before anything is passed on."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from typing import Any

import aiohttp

from ir3de.gateway.answers import Ask, AskRefused, Expert, ExpertFailed, Reason, Stream, Whole
from ir3de.gateway.errors import ApiError
from ir3de.gateway.events import EventSplitter, Kind, check_part, kind_of
from ir3de.gateway.settings import Limits

_CLIENTS_FAULT = (400, 413, 415, 422)
_NO_SUCH_CALL = (404, 405)  # an upstream has chats and no completions, or calls the model by another name
_KEPT_SECONDS = 3  # for which an unused connection stays open: less than the 5 after which servers close theirs
_LAST_BYTES_SECONDS = 0.25  # for the end of the response after the end of the stream, to use the connection again
_LOST_SECONDS = 0.2  # after which a connection that ends was not closed by chance: there may have been work done
_GONE = (aiohttp.ServerDisconnectedError, ConnectionResetError, BrokenPipeError)


def open_session() -> aiohttp.ClientSession:
    """Return what all upstreams are asked through: no proxies, cookies or limits of its own."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEPT_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Content-Type": "application/json", "Accept-Encoding": "identity", "User-Agent": "ir3de"},
    )


class UpstreamExpert(Expert):
    """A model of an upstream.

    Args:
        session: What is asked through.
        url: The upstream's address, up to and with ``/v1``.
        model: What the upstream calls the model.
        key: The upstream's key.
        limits: Returns the limits as they are now: a reload changes them while the expert stays.
    """

    def __init__(
        self, session: aiohttp.ClientSession, *, url: str, model: str, key: str | None, limits: Callable[[], Limits]
    ) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._model = model
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._limits = limits

    async def answer(self, ask: Ask) -> Whole | Stream:
        content = _as_json({**ask.body, "model": self._model})
        begun = time.monotonic()
        try:
            try:
                response = await self._post(ask, content)
            except _GONE:  # at once: the upstream closed the connection just when it was to be used again
                if time.monotonic() > begun + _LOST_SECONDS:
                    raise
                response = await self._post(ask, content)
            try:
                return await self._checked(ask, response)
            except BaseException:
                response.close()
                raise
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise ExpertFailed("connect", type(error).__name__) from None
        except (*_GONE, aiohttp.ClientPayloadError, aiohttp.ClientOSError) as error:
            raise ExpertFailed("broken off", type(error).__name__) from None
        except aiohttp.ClientError as error:  # what is no HTTP
            raise ExpertFailed("garbage", type(error).__name__) from None

    async def _post(self, ask: Ask, content: bytes) -> aiohttp.ClientResponse:
        return await self._session.post(
            f"{self._url}/{ask.endpoint}",
            data=content,
            headers={**self._headers, "X-Request-ID": ask.request_id},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._limits().connect_seconds),
            allow_redirects=False,  # an address that is not the config's
        )

    async def _checked(self, ask: Ask, response: aiohttp.ClientResponse) -> Whole | Stream:
        if response.status != 200:
            if response.status in _CLIENTS_FAULT:
                raise AskRefused(response.status, await self._refusal(response))
            reason: Reason = "no such call" if response.status in _NO_SUCH_CALL else "status"
            raise ExpertFailed(reason, str(response.status))  # its text may quote a key: it goes nowhere
        if not ask.stream:
            content = await self._whole(response)
            value = _json(content)
            check_part(value)
            if not value["choices"]:
                raise ExpertFailed("garbage", "an answer without choices")
            return Whole(content)
        events = self._events(response)
        async for piece, answers in events:
            if answers:  # what comes before is comments, for which no client waits
                return Stream(piece, self._rest(events))
        raise ExpertFailed("garbage", "a stream without an answer")

    async def _refusal(self, response: aiohttp.ClientResponse) -> bytes:
        """Return why the request is at fault: as the upstream says it, if it says so in JSON."""
        try:
            content = await self._whole(response)
            if not isinstance(_json(content), dict):
                raise ExpertFailed("garbage", "JSON that is no object")
        except ExpertFailed:  # a page of a proxy that stands before it, say
            sentence = f"The expert's server refuses the request with status {response.status}."
            return ApiError(response.status, "refused", sentence).content()
        return content

    async def _whole(self, response: aiohttp.ClientResponse) -> bytes:
        """Return all that comes."""
        content, most = bytearray(), self._limits().answer_bytes
        async for chunk in response.content.iter_any():
            content += chunk
            if len(content) > most:
                raise ExpertFailed("too long", f"more than {most} bytes")
        return bytes(content)

    async def _rest(self, events: AsyncGenerator[tuple[bytes, bool], None]) -> AsyncGenerator[bytes, None]:
        try:
            async for piece, _ in events:
                yield piece
        finally:
            await events.aclose()

    async def _events(self, response: aiohttp.ClientResponse) -> AsyncGenerator[tuple[bytes, bool], None]:
        """Yield whole events as they come, together what came together, and whether a part of the answer is in them."""
        splitter = EventSplitter(self._limits().answer_bytes)
        over = ExpertFailed("broken off", "a stream without its end")
        try:
            while True:
                chunk = await self._read(response)
                events = splitter.feed(chunk) if chunk else splitter.end()
                good, kinds, failed = 0, set(), None if chunk else over
                for event in events:
                    try:
                        kinds.add(kind_of(event))
                    except ExpertFailed as error:
                        failed = error if chunk else over  # half an event is none
                        break
                    good += len(event)
                    if Kind.END in kinds:
                        break
                if good:  # what is good goes out before what is not is reported
                    yield b"".join(events)[:good], Kind.PART in kinds
                if Kind.END in kinds:
                    with suppress(TimeoutError, aiohttp.ClientError):
                        async with asyncio.timeout(_LAST_BYTES_SECONDS):
                            await response.content.readany()
                    return
                if failed is not None:
                    raise failed
        finally:
            response.release() if response.content.at_eof() else response.close()

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        try:
            return await response.content.readany()
        except (aiohttp.ClientError, ConnectionError) as error:
            raise ExpertFailed("broken off", type(error).__name__) from None


def _as_json(value: Mapping[str, Any]) -> bytes:
    """Return a body as JSON in UTF-8.

    Raises:
        AskRefused: if it has a number that JSON cannot write.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:  # half of a surrogate pair has to stay an escape
        return json.dumps(value, allow_nan=False).encode()
    except ValueError:
        error = ApiError(400, "invalid_json", "Expected numbers that JSON has, but one is infinite or none.")
        raise AskRefused(error.status, error.content()) from None


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise ExpertFailed("garbage", "what is not JSON") from None
