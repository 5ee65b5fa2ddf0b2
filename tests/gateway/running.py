"""A gateway and its upstreams on real sockets, in a thread of their own, for tests that block."""

import asyncio
import json
import logging
import threading
from contextlib import contextmanager, suppress

import aiohttp
from aiohttp import web

from ir3de.gateway.keys import Keys
from ir3de.gateway.server import Gateway
from ir3de.gateway.settings import GatewaySettings, Limits, Place, Upstream

NAMES = ("code", "law", "maths")


class FakeUpstream:
    """Speaks OpenAI's interface: its answer to any prompt is ``MODEL: PROMPT``, unless the model misbehaves.

    ``behaviour`` maps a model to what it does, by name or as a function; ``asked`` are the requests that came,
    ``cancelled`` those whose client went away; ``go_on`` ends the behaviour ``wait``.
    """

    def __init__(self, key=None):
        self.behaviour = {}
        self.asked = []
        self.cancelled = []
        self.key = key
        self.url = ""
        self.delay = 0.0
        self.go_on = threading.Event()
        self.runner = None

    async def start(self):
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.answer)
        app.router.add_post("/v1/completions", self.answer)
        self.runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}/v1"

    async def answer(self, request):
        body = await request.json()
        self.asked.append((request.headers.copy(), body))
        if self.key is not None and request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.json_response({"error": {"message": f"Incorrect key, not {self.key}"}}, status=401)
        behaviour = self.behaviour.get(body["model"], "answer")
        try:
            await asyncio.sleep(self.delay)
            do = getattr(self, f"do_{behaviour}") if isinstance(behaviour, str) else behaviour
            return await do(request, body)
        except (asyncio.CancelledError, ConnectionError):
            self.cancelled.append(body["model"])
            raise

    async def do_answer(self, request, body):
        if body.get("stream"):
            return await self._stream(request, body, pieces=text_of(body).split(" "))
        return web.json_response(whole(body, text_of(body)))

    async def do_wait(self, request, body):
        while not self.go_on.is_set():
            await asyncio.sleep(0.01)
        return await self.do_answer(request, body)

    async def do_hang(self, request, body):
        await asyncio.sleep(60)

    async def do_fail(self, request, body):
        return web.json_response({"error": {"message": "no memory left"}}, status=500)

    async def do_refuse(self, request, body):
        return web.json_response({"error": {"message": "temperature is too high"}}, status=400)

    async def do_redirect(self, request, body):
        raise web.HTTPTemporaryRedirect("http://127.0.0.1:1/v1/chat/completions")

    async def do_garbage(self, request, body):
        return web.Response(body=b"<html>\xff\x00 it works!</html>", content_type="text/html")

    async def do_other_json(self, request, body):
        return web.json_response(["choices"])

    async def do_huge(self, request, body):
        if body.get("stream"):
            return await self._stream(request, body, pieces=["x" * 500_000])
        return web.json_response(whole(body, "x" * 500_000))

    async def do_close(self, request, body):
        request.transport.abort()
        return web.Response()

    async def do_die(self, request, body):
        """Die in the middle of an event, after some good ones."""
        response = await self._begun(request, body, ["one", "two"])
        await response.write(b'data: {"choices": [{"del')
        await asyncio.sleep(0.05)
        request.transport.abort()
        return response

    async def do_end_early(self, request, body):
        return await self._begun(request, body, ["one", "two"])

    async def do_turn_bad(self, request, body):
        response = await self._begun(request, body, ["one", "two"])
        await response.write(b"data: }}} not JSON\n\n" + chunk(body, "three"))
        return response

    async def do_error_event(self, request, body):
        response = await self._begun(request, body, ["one"])
        await response.write(b'data: {"error": {"message": "out of memory"}}\n\n')
        return response

    async def do_first_error(self, request, body):
        response = await self._begun(request, body, [])
        await response.write(b'data: {"error": {"message": "out of memory"}}\n\n')
        return response

    async def do_fall_silent(self, request, body):
        response = await self._begun(request, body, ["one"])
        await asyncio.sleep(60)
        return response

    async def do_slowly(self, request, body):
        """A comment, then a byte at a time, whatever the borders of events."""
        response = await self._begun(request, body, [])
        for byte in b": wait\r\n\r\n" + chunk(body, "slow ") + chunk(body, "answer") + b"data: [DONE]\r\n\r\n":
            await response.write(bytes([byte]))
        return response

    async def do_without_end(self, request, body):
        response = await self._begun(request, body, [])
        for number in range(1_000_000):
            await response.write(chunk(body, f"{number} " * 100))
            await asyncio.sleep(0)
        return response

    async def _stream(self, request, body, *, pieces):
        response = await self._begun(request, body, [])
        for number, piece in enumerate(pieces):
            await response.write(chunk(body, piece if number == 0 else f" {piece}"))
            await asyncio.sleep(0)
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _begun(self, request, body, pieces):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece in pieces:
            await response.write(chunk(body, piece))
        return response


def text_of(body):
    prompt = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
    return f"{body['model']}: {prompt}"


def whole(body, text):
    said = {"message": {"role": "assistant", "content": text}} if "messages" in body else {"text": text}
    kind = "chat.completion" if "messages" in body else "text_completion"
    choice = {"index": 0, "finish_reason": "stop", **said}
    return {"id": "1", "object": kind, "created": 1, "model": body["model"], "choices": [choice]}


def chunk(body, text):
    said = {"delta": {"content": text}} if "messages" in body else {"text": text}
    kind = "chat.completion.chunk" if "messages" in body else "text_completion"
    choice = {"index": 0, "finish_reason": None, **said}
    value = {"id": "1", "object": kind, "created": 1, "model": body["model"], "choices": [choice]}
    return b"data: " + json.dumps(value).encode() + b"\n\n"


class Running:
    """An event loop in a thread, with what was started in it."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self._closing = []

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(120)

    def upstream(self, **options):
        found = FakeUpstream(**options)
        self.call(found.start())
        self._closing.append(found.runner.cleanup)
        return found

    def gateway(self, settings, *, client=(), admin=(), environment=None, read_again=None):
        gateway = Gateway(
            settings,
            keys=Keys(client, admin),
            environment=environment or {},
            read_again=read_again or (lambda: settings),
        )
        self._closing.append(gateway.stop)
        self.call(gateway.start())
        return gateway

    def close(self):
        for close in reversed(self._closing):
            with suppress(Exception):
                self.call(close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


@contextmanager
def running():
    found = Running()
    try:
        yield found
    finally:
        found.close()


def settings(router, upstream, **changes):
    """Return a config with an upstream whose models are the router's experts, and short limits."""
    limits = {"answer_seconds": 1.0, "silence_seconds": 1.0, "total_seconds": 20.0, "body_seconds": 0.5}
    limits |= {"body_bytes": 100_000, "answer_bytes": 200_000, "stop_seconds": 5.0, **changes.pop("limits", {})}
    given = {
        "router": str(router),
        "upstreams": {"up": Upstream(url=upstream.url)},
        "others": Place(upstream="up"),
        "port": 0,
        "watch_seconds": 0.05,
        "limits": Limits(**limits),
    }
    return GatewaySettings(**given | changes)


def warnings(caplog):
    """Return what was logged beyond the usual."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def caller(running_loop, gateway, key):
    """Return what makes a call with a key: a method, a path and a body to the status and the answer."""

    async def ask(method, path, body):
        async with (
            aiohttp.ClientSession(gateway.address, headers={"Authorization": f"Bearer {key}"}) as session,
            session.request(method, path, json=body) as response,
        ):
            return response.status, await response.json()

    def call(method, path, body=None):
        return running_loop.call(ask(method, path, body))

    return call
