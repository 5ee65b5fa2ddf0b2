"""Local experts while the config and admins change things."""

import asyncio
import threading

import aiohttp
import pytest

from ir3de.gateway.local_bank import LocalBank
from ir3de.gateway.settings import LocalSettings, Place
from tests.gateway.local_experts import saved_bank
from tests.gateway.running import NAMES, caller, settings
from tests.helpers.waiting import wait_until

ADMIN = "admin-key-01234567"


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return saved_bank(tmp_path_factory.mktemp("bank"))


@pytest.fixture
def start(running_loop, router, upstream, bank):
    """Return what starts a gateway before local experts: what makes a call, and what reads the config again."""

    def config(**changes):
        return settings(router, upstream, **{"upstreams": {}, "others": Place(local=str(bank))} | changes)

    def start(**changes):
        now = {"config": config(**changes)}
        gateway = running_loop.gateway(now["config"], admin=[ADMIN], read_again=lambda: now["config"])

        call = caller(running_loop, gateway, ADMIN)

        def change(**options):
            now["config"] = config(**options)
            return call("POST", "/admin/reload")

        return gateway, call, change

    return start


def test_a_reload_changes_how_local_experts_are_loaded_and_asked(start):
    _, call, change = start(local=LocalSettings(max_tokens=3))
    body = {"model": "law", "prompt": "w1 w2", "temperature": 0}

    def tokens():
        status, answer = call("POST", "/v1/completions", body)
        assert status == 200
        return answer["usage"]["completion_tokens"]

    assert tokens() == 3
    assert change(local=LocalSettings(max_tokens=5))[0] == 200
    assert tokens() == 5
    status, answer = change(local=LocalSettings(device="nonsense"))
    assert status == 400
    assert "local.device" in answer["error"]["message"]
    assert tokens() == 5


def test_a_reload_changes_how_long_a_stop_waits(start, running_loop, monkeypatch):
    gateway, _, change = start(limits={"stop_seconds": 600})
    assert change(limits={"stop_seconds": 0.01})[0] == 200
    monkeypatch.setattr(gateway._answering, "_running", 1)  # as if one were never answered
    running_loop.call(asyncio.wait_for(gateway.stop(), 25))


def test_an_admin_who_goes_away_leaves_no_second_load_beside_the_first(start, running_loop, monkeypatch):
    gateway, call, _ = start()
    assert call("DELETE", "/admin/experts/law")[0] == 200
    loading, go_on, at_once, load = threading.Event(), threading.Event(), {"now": 0, "most": 0}, LocalBank.load

    def slowly(self, name, source):
        at_once["now"] += 1
        at_once["most"] = max(at_once.values())
        loading.set()
        assert go_on.wait(30)
        found = load(self, name, source)
        at_once["now"] -= 1
        return found

    monkeypatch.setattr(LocalBank, "load", slowly)

    async def give_up():
        timeout = aiohttp.ClientTimeout(total=0.3)
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {ADMIN}"}, timeout=timeout) as session:
            with pytest.raises(TimeoutError):
                await session.put(f"{gateway.address}/admin/experts/law")

    running_loop.call(give_up())
    assert loading.wait(30)
    answers = []
    again = threading.Thread(target=lambda: answers.append(call("PUT", "/admin/experts/law")))
    again.start()
    wait_until(lambda: len(gateway._answering._roster._changing._waiters or ()) == 1)
    go_on.set()
    again.join(30)
    assert answers[0][0] == 200
    assert sorted(answers[0][1]["experts"]) == sorted(NAMES)
    assert at_once["most"] == 1
