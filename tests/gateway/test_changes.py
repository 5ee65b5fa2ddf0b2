"""Experts come and go while the gateway runs, by admins' calls and by the router on disk, and no request fails."""

import asyncio
import json
import logging

import aiohttp
import openai
import psutil
import pytest

from ir3de.compiling.router import compile_router
from ir3de.gateway.settings import Place, Upstream
from ir3de.serving.artifact import read_compiled, write_compiled
from ir3de.upkeep.change import remove_expert
from tests.gateway.process import program
from tests.gateway.running import NAMES, caller, settings
from tests.gateway.test_interface import chat, streamed
from tests.helpers.waiting import wait_until
from tests.serving.routers import WORDS, saved

ADMIN, CLIENT, UPSTREAM = "admin-key-01234567", "client-key-0123456", "upstream-key-01234"
MORE = (*NAMES, "poetry")


@pytest.fixture
def admin(running_loop, router, upstream):
    """Return a gateway, and what makes an admin's call: the status and the answer."""
    gateway = running_loop.gateway(settings(router, upstream), admin=[ADMIN])

    call = caller(running_loop, gateway, ADMIN)

    def admins(method, path, body=None):
        return call(method, f"/admin/{path}", body)

    return gateway, admins


@pytest.fixture
def client_of():
    clients = []

    def client_of(gateway, key="any"):
        clients.append(openai.OpenAI(base_url=f"{gateway.address}/v1", api_key=key, max_retries=0, timeout=10))
        return clients[-1]

    yield client_of
    for client in clients:
        client.close()


def models(client):
    return [model.id for model in client.models.list()]


def test_an_expert_is_removed_and_put_back(admin, client_of, word):
    gateway, call = admin
    client = client_of(gateway)
    assert call("DELETE", "experts/law")[0] == 200
    assert models(client) == ["auto", "code", "maths"]
    found = client.post("/route", cast_to=object, body={"prompt": word["law"]})
    assert (found["highest"], found["expert"]) == ("law", found["order"][0])
    assert found["expert"] in ("code", "maths")
    assert chat(client, word["law"]).choices[0].message.content.startswith(found["expert"])
    with pytest.raises(openai.NotFoundError):
        chat(client, "w1", model="law")
    assert call("DELETE", "experts/law")[0] == 404
    status, shown = call("PUT", "experts/law")
    assert (status, list(shown["experts"])) == (200, ["code", "law", "maths"])
    assert chat(client, word["law"]).choices[0].message.content.startswith("law")


def test_a_new_expert_is_a_model_of_a_configured_upstream(admin, client_of, upstream):
    gateway, call = admin
    status, shown = call("PUT", "experts/poetry", {"upstream": "up", "model": "poetry-lora"})
    assert status == 200
    assert shown["experts"]["poetry"] == {
        "upstream": "up", "model": "poetry-lora", "local": None, "routed": False, "failures_in_a_row": 0,
    }  # fmt: skip
    assert chat(client_of(gateway), "w1", model="poetry").choices[0].message.content == "poetry-lora: w1"


@pytest.mark.parametrize(
    "name, body, message",
    [
        ("poetry", {"upstream": "http://127.0.0.1:1/v1"}, "one of ['up']"),
        ("poetry", {"url": "http://127.0.0.1:1/v1"}, "Addresses come from the config"),
        ("poetry", {"local": "/etc"}, "Addresses come from the config"),
        ("poetry", {"upstream": "up", "model": 7}, "printable characters"),
        ("poetry", {"upstream": "up", "model": "a\nb"}, "printable characters"),
        ("poetry", None, "does not say where `poetry` is"),
        ("..%2F..%2Fetc", None, "does not say where"),
        ("auto", {"upstream": "up"}, "not `auto`"),
        ("x" * 129, {"upstream": "up"}, "1 to 128 printable"),
    ],
)
def test_what_admins_may_not_add_is_refused_and_changes_nothing(admin, name, body, message):
    _, call = admin
    before = call("GET", "experts")[1]
    status, answer = call("PUT", f"experts/{name}", body)
    assert status == 400
    assert message in answer["error"]["message"]
    assert call("GET", "experts")[1] == before


def test_the_config_is_read_again_when_an_admin_says_so(running_loop, router, upstream, client_of):
    config = settings(router, upstream)
    other = running_loop.upstream()
    found = {"config": config}
    gateway = running_loop.gateway(config, admin=[ADMIN], read_again=lambda: found["config"])

    async def reload():
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {ADMIN}"}) as session,
            session.post(f"{gateway.address}/admin/reload") as response,
        ):
            return response.status, await response.json()

    client = client_of(gateway)
    found["config"] = settings(router, upstream, upstreams={"up": Upstream(url=other.url)})
    assert running_loop.call(reload())[0] == 200
    chat(client, "w1", model="law")
    assert (len(upstream.asked), len(other.asked)) == (0, 1), "the upstream has moved"
    found["config"] = settings(router, upstream, experts={"law": Place(local="/nowhere/at/all")})
    status, answer = running_loop.call(reload())
    assert (status, "/nowhere/at/all" in answer["error"]["message"]) == (400, True)
    chat(client, "w1", model="law")
    assert len(other.asked) == 2, "what cannot be served changes nothing"


def test_a_removed_expert_finishes_what_it_is_answering(admin, client_of, upstream, word):
    gateway, call = admin
    upstream.behaviour = {"law": "slowly"}
    stream = chat(client_of(gateway), word["law"], stream=True)
    assert call("DELETE", "experts/law")[0] == 200
    assert streamed(stream) == "slow answer"


def test_a_router_that_is_changed_on_disk_is_compiled_and_used(running_loop, upstream, tmp_path, client_of):
    folder = saved(tmp_path / "router", "naive_bayes", names=MORE)
    compile_router(str(folder))
    gateway = running_loop.gateway(settings(folder, upstream))
    client = client_of(gateway)
    assert models(client) == ["auto", *sorted(MORE)]
    remove_expert(str(folder), "law")
    wait_until(lambda: models(client) == ["auto", "code", "maths", "poetry"], seconds=300)
    assert list(client.post("/route", cast_to=object, body={"prompt": "w1"})["scores"]) == ["code", "maths", "poetry"]


def test_a_router_that_cannot_be_read_changes_nothing(running_loop, router, upstream, tmp_path, client_of, caplog):
    caplog.set_level(logging.INFO, "ir3de")
    live = tmp_path / "live"
    put(router / "compiled", live)
    client = client_of(running_loop.gateway(settings(live, upstream)))
    (live / "compiled.json").write_text("{")
    wait_until(lambda: "cannot be used" in caplog.text)
    assert models(client) == ["auto", *NAMES]
    put(router / "compiled", live)
    wait_until(lambda: "can be read again" in caplog.text)
    assert "router has changed" not in caplog.text


def put(compiled, live):
    found = read_compiled(compiled)
    config = {key: value for key, value in found.config.items() if key not in ("format", "files")}
    write_compiled(live, config, {name: path.read_bytes() for name, path in found.files.items()})


@pytest.fixture(scope="module")
def routers(router, tmp_path_factory):
    """Return the folders of two compiled routers, of which the second has one expert more."""
    more = saved(tmp_path_factory.mktemp("more") / "router", "naive_bayes", names=MORE)
    return router / "compiled", compile_router(str(more))


def test_no_answer_is_lost_or_mixed_up_while_everything_changes(running_loop, routers, tmp_path):
    upstream = running_loop.upstream(key=UPSTREAM)
    live, counts = tmp_path / "live", {"asked": 0, "changes": 0}
    put(routers[0], live)
    config = {
        "router": str(live), "watch_seconds": 0.1, "upstreams": {"up": {"url": upstream.url, "key_env": "UP_KEY"}},
        "others": {"upstream": "up"}, "experts": {"law": {"upstream": "up", "model": "law-lora"}},
    }  # fmt: skip
    environment = {"IR3DE_CLIENT_KEYS": CLIENT, "IR3DE_ADMIN_KEYS": ADMIN, "UP_KEY": UPSTREAM}
    with program(tmp_path, config, **environment) as gateway:
        memory = psutil.Process(gateway.process.pid)

        async def run(clients, cycles):
            over = asyncio.Event()
            head = {"Authorization": f"Bearer {CLIENT}"}
            async with aiohttp.ClientSession(gateway.address, headers=head) as session:
                many = [ask(session, number, over, counts) for number in range(clients)]
                async with openai.AsyncOpenAI(
                    base_url=f"{gateway.address}/v1", api_key=CLIENT, max_retries=0
                ) as official:
                    some = [ask_officially(official, number, over, counts) for number in range(5)]
                    changing = [change(gateway, routers, live, counts) for _ in range(cycles)]
                    await asyncio.gather(one_by_one(changing, over), *some, *many)

        running_loop.call(run(120, 2))
        before = memory.memory_info().rss
        running_loop.call(run(120, 8))
        grown = (memory.memory_info().rss - before) / 2**20
        assert counts["asked"] > 500
        assert grown < 30, f"{grown:.0f} MiB more after {counts['asked']} requests"
        for word in ("WARNING", "ERROR", "Traceback", CLIENT, ADMIN, UPSTREAM):
            assert word not in gateway.log, gateway.log


async def one_by_one(changing, over):
    for one in changing:
        await one
    over.set()


async def ask(session, number, over, counts):
    """Ask again and again, in turns streaming or not, by name or not; every answer is to be this prompt's."""
    turn = number
    while not over.is_set():
        turn += 1
        stream, prompt = turn % 3 == 0, f"w{turn % (WORDS - 1)} from client {number} turn {turn}"
        body = {"model": "law" if turn % 5 == 0 else "auto", "stream": stream}
        body["messages"] = [{"role": "user", "content": prompt}]
        async with session.post("/v1/chat/completions", json=body) as response:
            said = await response.text()
            assert response.status == 200, said
            if stream:
                events = [line.removeprefix("data: ") for line in said.splitlines() if line]
                assert events.pop() == "[DONE]"
                said = "".join(json.loads(event)["choices"][0]["delta"]["content"] for event in events)
            else:
                said = json.loads(said)["choices"][0]["message"]["content"]
            expert = response.headers["X-IR3DE-Expert"]
            assert said == f"{'law-lora' if expert == 'law' else expert}: {prompt}"
            assert body["model"] in ("auto", expert)
        counts["asked"] += 1


async def ask_officially(client, number, over, counts):
    while not over.is_set():
        prompt = f"w{number} {counts['asked']}"
        stream = await client.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": prompt}], stream=True
        )
        said = "".join([part.choices[0].delta.content or "" async for part in stream])
        assert said.partition(": ")[2] == prompt
        counts["asked"] += 1


async def change(gateway, routers, live, counts):
    """Remove and add experts, and put another router in the place of the one on disk, until it is served."""
    async with aiohttp.ClientSession(gateway.address, headers={"Authorization": f"Bearer {ADMIN}"}) as session:
        for method, name in (("DELETE", "code"), ("PUT", "code"), ("PUT", "extra"), ("DELETE", "extra")):
            body = {"upstream": "up"} if name == "extra" and method == "PUT" else None
            async with session.request(method, f"/admin/experts/{name}", json=body) as response:
                assert response.status == 200, await response.text()
            await asyncio.sleep(0.05)
        counts["changes"] += 1
        await asyncio.to_thread(put, routers[counts["changes"] % 2], live)
        await asyncio.to_thread(wait_until, lambda: gateway.log.count("router has changed") == counts["changes"])
