"""Clients that take a whole answer slowly, or not at all: within the limits, and to its end when the gateway stops."""

import json
import signal
import socket

import aiohttp
import psutil
from aiohttp import web

from tests.gateway.process import program
from tests.gateway.running import settings, warnings, whole
from tests.helpers.waiting import wait_until

SIZE = 12_000_000  # bytes, more than the kernel keeps for both ends
LIMITS = {"answer_bytes": 2 * SIZE, "answer_seconds": 60, "total_seconds": 60}


def port_of(gateway):
    return int(gateway.address.rpartition(":")[2])


def asks(port, model="law"):
    """Return a connection that has asked and has not read."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "w1"}]})
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall((head + body).encode())
    return connection


def read(connection):
    """Return the content of the answer."""
    head, _, content = connection.recv(1 << 16).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    while len(content) < length and (piece := connection.recv(1 << 20)):
        content += piece
    return content


def large(upstream):
    async def do_large(request, body):
        return web.json_response(whole(body, "x" * SIZE))

    upstream.behaviour = {"law": do_large}


async def get(url):
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return await response.text()


def test_who_does_not_read_a_whole_answer_counts_until_he_is_let_go(running_loop, router, upstream, caplog):
    large(upstream)
    gateway = running_loop.gateway(settings(router, upstream, limits={**LIMITS, "running": 3, "silence_seconds": 0.3}))
    port = port_of(gateway)
    connections = [asks(port) for _ in range(3)]
    wait_until(lambda: len(upstream.asked) == 3)
    assert gateway.running == 3, "an answer is not over before it is taken"
    wait_until(lambda: gateway.running == 0)

    def established():
        here = psutil.Process().net_connections("tcp")
        return [one for one in here if one.laddr.port == port and one.status == psutil.CONN_ESTABLISHED]

    wait_until(lambda: not established())
    for connection in connections:
        connection.close()
    assert not warnings(caplog), "clients that go away are no failures"
    metrics = running_loop.call(get(f"{gateway.address}/metrics"))
    assert 'outcome="gone"} 3.0' in metrics
    assert 'outcome="200"' not in metrics


def test_a_slow_client_has_its_answer_within_the_total_time_or_not_at_all(running_loop, router, upstream):
    large(upstream)
    patient = running_loop.gateway(settings(router, upstream, limits=LIMITS))
    with asks(port_of(patient)) as connection:
        assert json.loads(read(connection))["choices"][0]["message"]["content"] == "x" * SIZE
    limits = {**LIMITS, "total_seconds": 0.5, "silence_seconds": 600}
    hasty = running_loop.gateway(settings(router, upstream, limits=limits))
    with asks(port_of(hasty)):
        wait_until(lambda: hasty.running == 1)
        wait_until(lambda: hasty.running == 0)


def test_a_stop_waits_for_whoever_reads_slowly(running_loop, router, upstream, tmp_path):
    large(upstream)
    config = {
        "router": str(router), "upstreams": {"up": {"url": upstream.url}}, "others": {"upstream": "up"},
        "limits": {**LIMITS, "stop_seconds": 60.0},
    }  # fmt: skip
    with program(tmp_path, config) as gateway, asks(port_of(gateway)) as connection:
        assert connection.recv(1, socket.MSG_PEEK) == b"H"
        gateway.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "stopping: 1 requests" in gateway.log)
        assert json.loads(read(connection))["choices"][0]["message"]["content"] == "x" * SIZE
        assert gateway.process.wait(30) == 0
        assert "not answered in time" not in gateway.log


def test_a_decision_alone_keeps_to_the_limits(running_loop, router, upstream):
    gateway = running_loop.gateway(
        settings(router, upstream, limits={"running": 2, "body_seconds": 60, "total_seconds": 0.5})
    )
    port = port_of(gateway)
    head = b"POST /v1/route HTTP/1.1\r\nHost: x\r\nX-Request-ID: mine\r\nContent-Length: 50\r\n\r\n{"
    connections = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(3)]
    for number, connection in enumerate(connections[:2], start=1):
        connection.sendall(head)
        wait_until(lambda number=number: gateway.running == number)
    connections[2].sendall(head)
    answers = [connection.recv(1000) for connection in connections]
    assert [answer.split(b" ")[1] for answer in answers] == [b"504", b"504", b"503"]
    assert all(b"X-Request-ID: mine" in answer for answer in answers)
    for connection in connections:
        connection.close()
    assert 'ir3de_requests_total{endpoint="route",expert="",outcome="504"} 2.0' in running_loop.call(
        get(f"{gateway.address}/metrics")
    )
