"""Bodies that are too long, too slow or no JSON, and more requests than the gateway takes."""

import asyncio
import json
import socket
import time

import aiohttp
import openai
import pytest

from tests.gateway.running import settings
from tests.gateway.test_interface import chat

GOOD = {"model": "law", "messages": [{"role": "user", "content": "w1"}]}


@pytest.fixture
def post(gateway, running_loop):
    """Post bytes; return the status and the error's code."""

    def post(content, **headers):
        async def call():
            async with aiohttp.ClientSession() as session:
                url = f"{gateway.address}/v1/chat/completions"
                async with session.post(url, data=content, headers=headers) as response:
                    return response.status, (await response.json()).get("error", {}).get("code")

        return running_loop.call(call())

    return post


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 90_000, b'{"model": ' + b"9" * 5000 + b"}", b"model=auto"],
)
def test_what_is_no_json_object_is_refused(post, content):
    assert post(content) == (400, "invalid_json")


@pytest.mark.parametrize(
    "change, code",
    [({"model": 7}, "invalid_model"), ({"model": None}, "invalid_model"), ({"stream": 1}, "invalid_stream")],
)
def test_a_field_of_the_wrong_type_is_refused(post, change, code):
    assert post(json.dumps({**GOOD, **change}).encode()) == (400, code)


def test_half_of_a_surrogate_pair_is_passed_on_and_routed(post, upstream):
    content = json.dumps({"model": "auto", "messages": [{"role": "user", "content": "w1 \ud800 w2"}]}).encode()
    assert post(content)[0] == 200
    assert upstream.asked[0][1]["messages"][0]["content"] == "w1 \ud800 w2"


@pytest.mark.parametrize("size", [100_001, 5_000_000])
def test_a_body_that_is_too_long_is_refused_whether_it_says_so_or_not(post, upstream, size):
    async def pieces():
        for _ in range(0, size, 50_000):
            yield b" " * 50_000
        yield b" "

    assert post(b" " * size) == (413, "body_too_long")
    assert post(pieces()) == (413, "body_too_long")
    assert not upstream.asked


def test_a_compressed_body_is_refused_unread(post):
    assert post(b"anything", **{"Content-Encoding": "gzip"}) == (415, "content_encoding")


def test_a_body_that_does_not_arrive_is_given_up(gateway):
    with socket.create_connection(("127.0.0.1", int(gateway.address.rpartition(":")[2]))) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
        begun = time.monotonic()
        assert b"408" in connection.recv(1000).split(b"\r\n")[0]
        assert time.monotonic() - begun > 0.4


def test_what_is_no_http_gets_400_and_the_gateway_goes_on(gateway, client):
    for nonsense in (
        b"\x16\x03\x01 hello\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
        b"POST /v1/x HTTP/1.1\r\nContent-Length: -3\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", int(gateway.address.rpartition(":")[2]))) as connection:
            connection.sendall(nonsense)
            assert b" 400 " in connection.recv(1000).split(b"\r\n")[0]
    assert chat(client, "w1", model="law")


@pytest.mark.parametrize(
    "method, path, status", [("GET", "/v1/chat/completions", 405), ("POST", "/v1/embeddings", 404)]
)
def test_other_paths_and_methods_get_an_error_in_json(gateway, running_loop, method, path, status):
    async def call():
        async with aiohttp.ClientSession() as session, session.request(method, gateway.address + path) as response:
            return response.status, (await response.json())["error"]["type"]

    assert running_loop.call(call()) == (status, "not_found_error" if status == 404 else "invalid_request_error")


def test_more_requests_than_the_limit_are_told_to_come_again(running_loop, router, upstream):
    gateway = running_loop.gateway(settings(router, upstream, limits={"running": 5}))
    upstream.behaviour = {"law": "wait"}

    async def calls():
        async with aiohttp.ClientSession() as session:

            async def call():
                async with session.post(f"{gateway.address}/v1/chat/completions", json=GOOD) as response:
                    return response.status, response.headers.get("Retry-After")

            calls = [asyncio.create_task(call()) for _ in range(12)]
            while sum(one.done() for one in calls) < 7:
                await asyncio.sleep(0.01)
            upstream.go_on.set()
            return await asyncio.gather(*calls)

    found = running_loop.call(calls())
    assert sorted(found, key=str) == [(200, None)] * 5 + [(503, "1")] * 7
    with openai.OpenAI(base_url=f"{gateway.address}/v1", api_key="any", max_retries=0) as client:
        assert chat(client, "w1", model="law")


def test_a_whole_request_has_a_limit_too(running_loop, router, upstream):
    gateway = running_loop.gateway(settings(router, upstream, limits={"total_seconds": 0.5, "answer_seconds": 9}))
    upstream.behaviour = {"law": "hang", "maths": "without_end"}
    with openai.OpenAI(base_url=f"{gateway.address}/v1", api_key="any", max_retries=0) as client:
        with pytest.raises(openai.InternalServerError, match=r"No answer within 0\.5 s"):
            chat(client, "w1", model="law")
        with pytest.raises(openai.APIError, match="breaks off here"):
            for _ in chat(client, "w1", model="maths", stream=True):
                pass


def test_a_long_prompt_does_not_keep_others_waiting(running_loop, router, upstream, word):
    gateway = running_loop.gateway(settings(router, upstream, limits={"body_bytes": 20_000_000}))
    long = {"model": "auto", "messages": [{"role": "user", "content": f"{word['law']} " * 1_000_000}]}

    async def calls():
        async with aiohttp.ClientSession() as session:

            async def call(body):
                begun = time.perf_counter()
                async with session.post(f"{gateway.address}/v1/route", json=body) as response:
                    return (await response.json())["tokens"], time.perf_counter() - begun

            slow = asyncio.create_task(call(long))
            await asyncio.sleep(0.2)
            quick = [await call({"prompt": word["code"]}) for _ in range(5)]
            return await slow, quick

    (tokens, seconds), quick = running_loop.call(calls())
    assert tokens == 1_000_000
    assert min(one for _, one in quick) < seconds / 4
