"""An expert behind an OpenAI-compatible endpoint: asked over HTTP, its answer checked before anything is passed on."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

import aiohttp

from ir3de.gateway.answers import Ask, AskRefused, Expert, ExpertFailed, Stream, Whole
from ir3de.gateway.events import EventSplitter, Kind, kind_of
from ir3de.gateway.settings import Limits

_CLIENTS_FAULT = (400, 413, 415, 422)
_KEPT_SECONDS = 3  # for which an unused connection stays open: less than the 5 after which servers close theirs
_LAST_BYTES_SECONDS = 0.25  # for the end of the response after the end of the stream, to use the connection again
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
        content = json.dumps({**ask.body, "model": self._model}).encode()
        try:
            try:
                response = await self._post(ask, content)
            except _GONE:  # the upstream may have closed the connection just when it was to be used again
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
                raise AskRefused(response.status, await self._whole(response, None))
            raise ExpertFailed("status", str(response.status))  # its text may quote a key: it goes nowhere
        if not ask.stream:
            return Whole(await self._whole(response, "choices"))
        events = self._events(response)
        first = b""
        async for piece, answers in events:
            first += piece
            if answers:
                return Stream(first, self._rest(events))
        raise ExpertFailed("garbage", "a stream without an answer")

    async def _whole(self, response: aiohttp.ClientResponse, expected: str | None) -> bytes:
        """Return a JSON object, which has the expected key, as it came."""
        content, most = bytearray(), self._limits().answer_bytes
        async for chunk in response.content.iter_any():
            content += chunk
            if len(content) > most:
                raise ExpertFailed("too long", f"more than {most} bytes")
        try:
            value = json.loads(content)
        except (ValueError, RecursionError):
            raise ExpertFailed("garbage", "what is not JSON") from None
        if not isinstance(value, dict) or (expected is not None and expected not in value):
            raise ExpertFailed("garbage", f"JSON without `{expected}`")
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
        try:
            while True:
                events = splitter.feed(await self._read(response))
                good, kinds, failed = 0, set(), None
                for event in events:
                    try:
                        kinds.add(kind_of(event))
                    except ExpertFailed as error:
                        failed = error
                        break
                    good += len(event)
                    if Kind.END in kinds:
                        break
                if good:  # what is good goes out before what is not is reported
                    yield b"".join(events)[:good], Kind.PART in kinds
                if failed is not None:
                    raise failed
                if Kind.END in kinds:
                    with suppress(TimeoutError, aiohttp.ClientError):
                        async with asyncio.timeout(_LAST_BYTES_SECONDS):
                            await response.content.readany()
                    return
        finally:
            response.release() if response.content.at_eof() else response.close()

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        try:
            chunk = await response.content.readany()
        except (aiohttp.ClientError, ConnectionError) as error:
            raise ExpertFailed("broken off", type(error).__name__) from None
        if not chunk:
            raise ExpertFailed("broken off", "a stream without its end")
        return chunk
