"""Prompts for ``auto`` are counted, once each, whatever happens, and compared with what the router was made for."""

import json
import shutil

import aiohttp
import numpy as np
import openai
import pytest

from ir3de.gateway import live_traffic
from ir3de.serving import CompiledRouter
from ir3de.serving.traffic import Traffic
from ir3de.upkeep.drift import drift
from tests.gateway.counts import expected, fails, only_file, same
from tests.gateway.running import settings
from tests.helpers.waiting import wait_until
from tests.serving.alarms import as_text, new_prompts, saved_with_alarm

ADMIN = "admin-key-01234567"


@pytest.fixture(scope="module")
def saved_router(tmp_path_factory):
    return saved_with_alarm(tmp_path_factory.mktemp("traffic") / "router")


@pytest.fixture(scope="module")
def other_router(tmp_path_factory):
    return saved_with_alarm(tmp_path_factory.mktemp("other") / "router", validation=150)


@pytest.fixture
def start(running_loop, upstream, saved_router):
    """Return what starts a gateway that counts, and one that asks it about prompts."""

    def start(folder, *, router=saved_router / "compiled", **changes):
        config = settings(router, upstream, traffic=str(folder), **changes)
        return running_loop.gateway(config, admin=[ADMIN])

    def ask(gateway, prompts, *, model="auto", path="/v1/chat/completions"):
        async def do():
            async with aiohttp.ClientSession(gateway.address) as session:
                for ids_T in prompts:
                    body = {"model": model, "messages": [{"role": "user", "content": as_text(ids_T)}]}
                    async with session.post(path, json=body) as response:
                        assert response.status in (200, 400), await response.text()

        running_loop.call(do())

    return start, ask


@pytest.fixture
def stop(running_loop):
    return lambda gateway: running_loop.call(gateway.stop())


@pytest.fixture
def admin(running_loop):
    """Return what an admin is told: the status and the answer."""

    def admin(gateway, path, key=ADMIN):
        async def do():
            async with (
                aiohttp.ClientSession(gateway.address, headers={"Authorization": f"Bearer {key}"}) as session,
                session.get(f"/admin/{path}") as response,
            ):
                return response.status, await response.json()

        return running_loop.call(do())

    return admin


def test_prompts_for_auto_are_counted_and_go_on_after_a_restart(start, stop, saved_router, tmp_path):
    begin, ask = start
    prompts = new_prompts(30)
    for part in (prompts[::2], prompts[1::2]):
        gateway = begin(tmp_path / "counts")
        ask(gateway, part)
        ask(gateway, prompts[:5], model="law")
        ask(gateway, prompts[:5], path="/v1/route")
        ask(gateway, [[], []])
        stop(gateway)
    found = Traffic.read(only_file(tmp_path / "counts"))
    assert same(found, expected(saved_router, prompts))
    assert found.unusual_GE.sum() > 0


def test_refused_prompts_are_counted_too(running_loop, start, stop, saved_router, tmp_path):
    begin, _ = start
    gateway = begin(tmp_path / "counts", alarm=0.9)
    prompts = new_prompts(5)
    refused = 0
    with openai.OpenAI(base_url=f"{gateway.address}/v1", api_key="any", max_retries=0) as client:
        for ids_T in prompts:
            try:
                client.completions.create(model="auto", prompt=as_text(ids_T))
            except openai.UnprocessableEntityError:
                refused += 1
    stop(gateway)
    assert refused > 0
    assert same(Traffic.read(only_file(tmp_path / "counts")), expected(saved_router, prompts))


def test_a_long_prompt_is_counted(start, stop, saved_router, tmp_path):
    begin, ask = start
    long = np.tile(new_prompts(1)[0], 2_000)
    gateway = begin(tmp_path / "counts", limits={"body_bytes": 10_000_000})
    ask(gateway, [long])
    stop(gateway)
    assert same(Traffic.read(only_file(tmp_path / "counts")), expected(saved_router, [long]))


def test_counts_are_written_now_and_then(start, saved_router, tmp_path):
    begin, ask = start
    gateway = begin(tmp_path / "counts", traffic_seconds=0.05)
    prompts = new_prompts(4)
    ask(gateway, prompts[:6])
    wait_until(lambda: list((tmp_path / "counts").glob("*.npz")))
    ask(gateway, prompts[6:])
    whole = expected(saved_router, prompts)
    wait_until(lambda: same(Traffic.read(only_file(tmp_path / "counts")), whole))
    assert Traffic.read(only_file(tmp_path / "counts")).prompts == len(prompts), "none is counted again"


def test_gateways_that_share_a_folder_add_up(start, stop, saved_router, tmp_path):
    begin, ask = start
    prompts = new_prompts(20)
    gateways = [begin(tmp_path / "counts", traffic_seconds=0.02) for _ in range(3)]
    for number, gateway in enumerate(gateways):
        ask(gateway, prompts[number::3])
    for gateway in gateways:
        stop(gateway)
    assert same(Traffic.read(only_file(tmp_path / "counts")), expected(saved_router, prompts))


def test_another_router_begins_another_file_and_drift_reads_its_own(
    start, stop, admin, saved_router, other_router, tmp_path, capsys
):
    begin, ask = start
    live, counts = tmp_path / "live", tmp_path / "counts"
    shutil.copytree(saved_router / "compiled", live)
    gateway = begin(counts, router=live, traffic_seconds=0.05)
    prompts = new_prompts(60)
    ask(gateway, prompts[:20])
    shutil.rmtree(live)
    shutil.copytree(other_router / "compiled", live)
    identity = CompiledRouter.load(live).identity
    wait_until(lambda: admin(gateway, "experts")[1]["router"] == identity)
    ask(gateway, prompts[20:])
    stop(gateway)
    assert len(list(counts.glob("*.npz"))) == 2
    files = [str(path) for path in sorted(counts.glob("*.npz"))]
    drift(["--router", str(other_router), "--json", str(tmp_path / "drift.json"), *files])
    assert json.loads((tmp_path / "drift.json").read_text())["prompts"] == [450, 160]
    assert "1 files are another router's and were left out" in capsys.readouterr().err
    own = Traffic.read(counts / f"{CompiledRouter.load(saved_router / 'compiled').identity[:16]}.npz")
    assert same(own, expected(saved_router, prompts[:20]))


def test_admins_see_the_drift_that_the_command_finds(start, stop, admin, saved_router, tmp_path):
    begin, ask = start
    gateway = begin(tmp_path / "counts")
    assert admin(gateway, "drift", key="another-key-01234567")[0] == 401
    status, answer = admin(gateway, "drift")
    assert (status, answer["error"]["code"]) == (409, "no_comparison")
    assert "at least 100 live prompts to tell drift from chance, but got 0" in answer["error"]["message"]
    ask(gateway, new_prompts(40))
    status, found = admin(gateway, "drift")
    assert status == 200
    assert admin(gateway, "drift") == (200, found), "nothing is counted twice"
    stop(gateway)
    file = only_file(tmp_path / "counts")
    drift(["--router", str(saved_router), "--json", str(tmp_path / "drift.json"), str(file)])
    expected = json.loads((tmp_path / "drift.json").read_text())
    assert found == {"router": Traffic.read(file).identity, **expected}


def test_without_a_folder_nothing_is_counted(running_loop, upstream, saved_router, admin):
    gateway = running_loop.gateway(settings(saved_router, upstream), admin=[ADMIN])
    status, answer = admin(gateway, "drift")
    assert (status, answer["error"]["code"]) == (404, "no_traffic")


def test_a_gateway_stops_whatever_the_last_save_raised(start, stop, tmp_path, caplog, monkeypatch):
    begin, ask = start
    gateway = begin(tmp_path / "counts")
    ask(gateway, new_prompts(1))
    monkeypatch.setattr(live_traffic, "replace_file", fails)
    stop(gateway)
    assert gateway._session.closed
    assert "the last counts of prompts are lost: RuntimeError: as nobody foresaw" in caplog.text
