"""What odd upstreams answer: pages, half answers, calls that they do not have, endless comments, lost connections."""

import asyncio
import json

import aiohttp
import openai
import pytest
from aiohttp import web

from ir3de.gateway import upstream as upstream_module
from tests.gateway.running import NAMES, chunk, settings, whole
from tests.gateway.test_interface import chat, streamed


def says(value, *, status=200):
    """Return what answers with a value as JSON, or a page."""

    async def answer(request, body):
        if isinstance(value, str):
            return web.Response(text=value, status=status, content_type="text/html")
        return web.json_response(value, status=status)

    return answer


@pytest.mark.parametrize("status", [400, 413, 415, 422])
@pytest.mark.parametrize("content", ["<html>too large</html>", ["a list"]])
def test_a_refusal_that_is_no_json_object_stays_the_requests_fault(client, upstream, word, status, content):
    upstream.behaviour = dict.fromkeys(NAMES, says(content, status=status))
    for _ in range(4):
        with pytest.raises(openai.APIStatusError, match=f"refuses the request with status {status}") as caught:
            chat(client, word["law"])
        assert caught.value.status_code == status
        assert caught.value.response.headers["x-ir3de-attempts"] == "1"
    upstream.behaviour = {}
    raw = client.chat.completions.with_raw_response
    answer = raw.create(model="auto", messages=[{"role": "user", "content": word["law"]}])
    assert answer.headers["x-ir3de-expert"] == "law", "it does not rest"


@pytest.mark.parametrize("status", [404, 405])
def test_a_call_that_an_upstream_does_not_have_does_not_let_the_expert_rest(client, upstream, word, status):
    upstream.behaviour = {"law": says({"detail": "Not Found"}, status=status)}
    raw = client.completions.with_raw_response
    for _ in range(4):
        answer = raw.create(model="auto", prompt=word["law"])
        assert (answer.headers["x-ir3de-first"], answer.headers["x-ir3de-attempts"]) == ("law", "2")
    with pytest.raises(openai.InternalServerError, match="no such call"):
        chat(client, "w1", model="law")


@pytest.mark.parametrize(
    "value",
    [{"choices": None, "error": {"message": "boom"}}, {"choices": [{}], "error": {"message": "boom"}},
     {"choices": "no"}, {"choices": []}, {"choices": ["no"]}, {"choices": None}, {"detail": "no"}],
)  # fmt: skip
def test_what_is_no_answer_does_not_pass_as_one(client, upstream, word, value):
    upstream.behaviour = {"law": says(value)}
    raw = client.chat.completions.with_raw_response
    answer = raw.create(model="auto", messages=[{"role": "user", "content": word["law"]}])
    assert answer.headers["x-ir3de-attempts"] == "2"
    with pytest.raises(openai.InternalServerError, match="error" if "error" in value else "garbage"):
        chat(client, "w1", model="law")


def test_comments_before_the_answer_are_not_kept(client, upstream):
    async def comments(request, body):
        response = await upstream._begun(request, body, [])
        for _ in range(40):
            await response.write(b": wait" + b"." * 10_000 + b"\n\n")
        await asyncio.sleep(0.05)
        await response.write(chunk(body, "at last") + b"data: [DONE]\n\n")
        return response

    upstream.behaviour = {"law": comments}
    asked = {"model": "law", "messages": [{"role": "user", "content": "w1"}], "stream": True}
    with client.chat.completions.with_streaming_response.create(**asked) as answer:
        content = b"".join(answer.iter_bytes())
    assert b"at last" in content
    assert len(content) < 200_000


def test_a_stream_that_ends_without_a_blank_line_is_whole(client, upstream):
    async def short_end(request, body):
        response = await upstream._begun(request, body, ["one", "two"])
        await response.write(b"data: [DONE]")
        return response

    upstream.behaviour = {"law": short_end}
    assert streamed(chat(client, "w1", model="law", stream=True)) == "onetwo"


def test_an_expert_whose_streams_break_off_is_asked_last(running_loop, router, upstream, word):
    limits = {"rest_after": 2, "rest_seconds": 600}
    gateway = running_loop.gateway(settings(router, upstream, limits=limits))
    upstream.behaviour = {"law": "end_early"}
    with openai.OpenAI(base_url=f"{gateway.address}/v1", api_key="any", max_retries=0) as client:
        for _ in range(2):
            with pytest.raises(openai.APIError, match="breaks off here"):
                streamed(chat(client, word["law"], stream=True))
        assert not streamed(chat(client, word["law"], stream=True)).startswith("law")


def test_an_expert_that_fails_again_after_its_rest_rests_at_once(running_loop, router, upstream, word):
    gateway = running_loop.gateway(settings(router, upstream, limits={"rest_after": 3, "rest_seconds": 600}))
    upstream.behaviour = {"law": "fail"}
    with openai.OpenAI(base_url=f"{gateway.address}/v1", api_key="any", max_retries=0) as client:
        for _ in range(3):
            chat(client, word["law"])
        member = gateway._answering._roster.served.members["law"]
        for _ in range(2):
            member.rests_until = 0.0  # as when its rest is over
            before = len(upstream.asked)
            for _ in range(4):
                chat(client, word["law"])
            assert [body["model"] for _, body in upstream.asked[before:]].count("law") == 1


def test_a_request_is_not_asked_twice_of_an_upstream_that_cuts_it_off(client, upstream, monkeypatch):
    monkeypatch.setattr(upstream_module, "_LOST_SECONDS", 0.0)

    async def cut(request, body):
        request.transport.abort()
        return web.Response()

    upstream.behaviour = {"law": cut}
    with pytest.raises(openai.InternalServerError, match="broken off"):
        chat(client, "w1", model="law")
    assert len(upstream.asked) == 1


def test_a_kept_connection_that_was_closed_meanwhile_is_no_failure(client, upstream, monkeypatch):
    """The upstream ends a connection just when it is to be used again."""
    monkeypatch.setattr(upstream_module, "_LOST_SECONDS", 60.0)
    assert chat(client, "w1", model="law")

    async def cut_once(request, body):
        upstream.behaviour = {}
        request.transport.abort()
        return web.Response()

    upstream.behaviour = {"law": cut_once}
    assert chat(client, "w1", model="law")
    assert len(upstream.asked) == 3


def test_bodies_are_passed_on_in_utf_8(client, upstream):
    sizes = []

    async def measure(request, body):
        sizes.append(request.content_length)
        return web.json_response(whole(body, "ok"))

    upstream.behaviour = {"law": measure}
    text = "法律" * 10_000
    chat(client, text, model="law")
    assert sizes[0] < len(text.encode()) + 200
    assert upstream.asked[0][1]["messages"][0]["content"] == text


@pytest.mark.parametrize("number", [b"1e999", b"NaN", b"-Infinity"])
def test_numbers_that_json_cannot_write_are_refused(gateway, running_loop, upstream, number):
    content = b'{"model": "law", "messages": [{"role": "user", "content": "w1"}], "temperature": ' + number + b"}"

    async def post():
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{gateway.address}/v1/chat/completions", data=content) as response,
        ):
            return response.status, (await response.json())["error"]["message"]

    status, message = running_loop.call(post())
    assert (status, "one is infinite" in message) == (400, True)
    assert not upstream.asked


def test_every_answer_has_the_request_id(gateway, running_loop, upstream):
    good = {"model": "law", "messages": [{"role": "user", "content": "w1"}]}
    calls = [
        ("POST", "/v1/chat/completions", json.dumps(good)), ("POST", "/v1/chat/completions", "{"),
        ("POST", "/v1/chat/completions", " " * 200_000), ("POST", "/v1/route", json.dumps({"prompt": "w1"})),
        ("POST", "/v1/route", "{"), ("GET", "/v1/models", None), ("GET", "/v1/models/none", None), ("GET", "/no", None),
        ("GET", "/v1/chat/completions", None), ("POST", "/admin/reload", None), ("GET", "/health", None),
    ]  # fmt: skip

    async def call():
        found = []
        async with aiohttp.ClientSession(gateway.address) as session:
            for given in ("mine-7", "not one!"):
                for method, path, content in calls:
                    headers = {"X-Request-ID": given}
                    async with session.request(method, path, data=content, headers=headers) as response:
                        found.append((given, path, response.status, response.headers["X-Request-ID"]))
                        if response.status == 405:
                            assert response.headers["Allow"] == "POST"
        return found

    for given, path, status, told in running_loop.call(call()):
        assert (told == given) if given == "mine-7" else len(told) == 24, (path, status)
    assert upstream.asked[0][0]["X-Request-ID"] == "mine-7"
