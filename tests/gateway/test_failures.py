"""Upstreams that hang, fail, answer garbage or die: the next-best expert answers, or the client is told."""

import asyncio
import json
import tracemalloc

import aiohttp
import openai
import psutil
import pytest

from ir3de.gateway.settings import Place, Upstream
from tests.gateway.running import settings, warnings
from tests.gateway.test_interface import chat, streamed
from tests.helpers.waiting import wait_until

NO_ANSWER = ["hang", "fail", "redirect", "garbage", "other_json", "close", "huge"]
NO_STREAM = ["hang", "fail", "redirect", "garbage", "close", "huge", "first_error"]
REASONS = {"hang": "timeout", "fail": "status", "redirect": "status", "close": "broken off", "huge": "too long"}


def order(client, text):
    return client.post("/route", cast_to=object, body={"prompt": text})["order"]


@pytest.mark.parametrize("stream", [False, True])
def test_the_next_best_expert_answers_where_one_fails(client, upstream, word, stream):
    for behaviour in NO_STREAM if stream else NO_ANSWER:
        first, second, _ = order(client, word["law"])
        upstream.behaviour = {first: behaviour}
        raw = client.chat.completions.with_raw_response
        answer = raw.create(model="auto", messages=[{"role": "user", "content": word["law"]}], stream=stream)
        text = streamed(answer.parse()) if stream else answer.parse().choices[0].message.content
        assert text == f"{second}: {word['law']}", behaviour
        assert (answer.headers["x-ir3de-first"], answer.headers["x-ir3de-expert"]) == (first, second)
        assert answer.headers["x-ir3de-attempts"] == "2"
        upstream.behaviour = {}
        chat(client, word["law"], model=first)  # an answer: its failures are forgotten


@pytest.mark.parametrize("behaviour", NO_ANSWER)
def test_a_named_expert_that_fails_is_told_and_no_other_asked(client, upstream, behaviour):
    upstream.behaviour = {"law": behaviour}
    with pytest.raises(openai.InternalServerError) as caught:
        chat(client, "w1", model="law")
    assert caught.value.status_code == (504 if behaviour == "hang" else 502)
    assert REASONS.get(behaviour, "garbage") in str(caught.value)
    assert {body["model"] for _, body in upstream.asked} == {"law"}


def test_when_all_fail_the_client_is_told_how_many_were_asked(client, upstream, word):
    upstream.behaviour = {"code": "fail", "law": "garbage", "maths": "close"}
    with pytest.raises(openai.InternalServerError, match="from 3 experts"):
        chat(client, word["law"])


def test_a_request_that_is_at_fault_is_asked_once(client, upstream, word):
    upstream.behaviour = {"law": "refuse"}
    with pytest.raises(openai.BadRequestError, match="temperature is too high"):
        chat(client, word["law"])
    assert len(upstream.asked) == 1


def test_an_upstream_that_is_not_there_is_passed_over(running_loop, router, upstream, word):
    upstreams = {"up": Upstream(url=upstream.url), "gone": Upstream(url="http://127.0.0.1:9/v1")}
    gateway = running_loop.gateway(
        settings(router, upstream, upstreams=upstreams, experts={"law": Place(upstream="gone")})
    )
    with openai.OpenAI(base_url=f"{gateway.address}/v1", api_key="any", max_retries=0) as client:
        second = order(client, word["law"])[1]
        assert chat(client, word["law"]).choices[0].message.content == f"{second}: {word['law']}"
        with pytest.raises(openai.InternalServerError, match="connect"):
            chat(client, "w1", model="law")


@pytest.mark.parametrize("rest_seconds, asked", [(600, 2), (1e-6, 5)])
def test_an_expert_that_goes_on_failing_is_asked_last_for_a_while(
    running_loop, router, upstream, word, rest_seconds, asked
):
    limits = {"rest_after": 2, "rest_seconds": rest_seconds}
    gateway = running_loop.gateway(settings(router, upstream, limits=limits))
    upstream.behaviour = {"law": "fail"}
    with openai.OpenAI(base_url=f"{gateway.address}/v1", api_key="any", max_retries=0) as client:
        for _ in range(5):
            chat(client, word["law"])
        assert sum(body["model"] == "law" for _, body in upstream.asked) == asked
        upstream.behaviour = {}
        answer = chat(client, word["law"]).choices[0].message.content
        assert answer.startswith("law") == (asked == 5), "rested, or resting"


@pytest.mark.parametrize(
    "behaviour, said", [("die", "onetwo"), ("end_early", "onetwo"), ("turn_bad", "onetwo"), ("error_event", "one"),
                        ("fall_silent", "one")],
)  # fmt: skip
def test_a_stream_that_breaks_off_ends_in_an_error_after_what_was_good(client, upstream, behaviour, said):
    upstream.behaviour = {"law": behaviour}
    got = []
    with pytest.raises(openai.APIError, match="breaks off here"):
        got.extend(part.choices[0].delta.content for part in chat(client, "w1", model="law", stream=True))
    assert "".join(got) == said
    assert {body["model"] for _, body in upstream.asked} == {"law"}, "no other expert goes on with it"


def test_a_slow_stream_in_bytes_arrives_as_whole_events(client, gateway, upstream, running_loop):
    upstream.behaviour = {"law": "slowly"}
    assert streamed(chat(client, "w1", model="law", stream=True)) == "slow answer"

    async def pieces():
        body = {"model": "law", "stream": True, "messages": [{"role": "user", "content": "w1"}]}
        url = f"{gateway.address}/v1/chat/completions"
        async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
            return [piece async for piece, _ in response.content.iter_chunks()]

    for piece in running_loop.call(pieces()):
        for line in piece.decode().splitlines():
            assert line in ("", ": wait", "data: [DONE]") or json.loads(line.removeprefix("data: "))["choices"]


@pytest.mark.parametrize("behaviour", ["hang", "without_end"])
def test_a_client_that_goes_away_ends_the_request_to_the_upstream(router, upstream, running_loop, behaviour, caplog):
    limits = dict.fromkeys(("answer_seconds", "silence_seconds", "total_seconds"), 600)  # none of them ends it
    gateway = running_loop.gateway(settings(router, upstream, limits=limits))
    upstream.behaviour = {"law": behaviour}

    async def go_away():
        body = {"model": "law", "stream": True, "messages": [{"role": "user", "content": "w1"}]}
        url = f"{gateway.address}/v1/chat/completions"
        async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
            await response.content.readany()

    async def give_up():
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.2)) as session:
                body = {"model": "law", "messages": [{"role": "user", "content": "w1"}]}
                await session.post(f"{gateway.address}/v1/chat/completions", json=body)
        except TimeoutError:
            pass

    running_loop.call(give_up() if behaviour == "hang" else go_away())
    wait_until(lambda: upstream.cancelled and not gateway.running)
    assert upstream.cancelled == ["law"]
    assert not warnings(caplog), "clients that go away are no failures"


def test_a_client_that_does_not_read_costs_no_memory_and_is_let_go(gateway, upstream, running_loop, caplog):
    upstream.behaviour = {"law": "without_end"}

    async def stall():
        port = int(gateway.address.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        body = json.dumps({"model": "law", "stream": True, "messages": [{"role": "user", "content": "w1"}]})
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write((head + body).encode())
        tracemalloc.start()
        await asyncio.sleep(0.5)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        for _ in range(300):
            if gateway.running == 0:
                break
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        here = psutil.Process().net_connections("tcp")
        left = [one for one in here if one.laddr.port == port and one.status == psutil.CONN_ESTABLISHED]
        writer.transport.abort()
        return peak, left

    peak, left = running_loop.call(stall())
    assert peak < 4e6
    assert not left, "a connection that is closed in good order would wait for the client to read"
    assert not warnings(caplog)
    assert gateway.running == 0
    assert upstream.cancelled == ["law"]
