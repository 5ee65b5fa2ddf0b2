"""The watch and reloads take turns, miss no change, refuse what the start refuses, and survive what cannot be read."""

import asyncio
import json
import logging
import re
import shutil
import threading
import time

import pytest

from ir3de.compiling.router import compile_router
from ir3de.gateway import router_files, server
from ir3de.gateway.settings import Place
from ir3de.serving import CompiledRouter
from tests.gateway.running import NAMES, caller, settings
from tests.gateway.test_changes import put
from tests.helpers.waiting import wait_until
from tests.serving.routers import saved

ADMIN = "admin-key-01234567"
MORE = (*NAMES, "poetry")
load = CompiledRouter.load.__func__


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Return the folders of two compiled routers with an alarm, of which the second has one expert more."""
    folder = tmp_path_factory.mktemp("reloads")
    return [compile_router(str(saved(folder / str(len(names)), "naive_bayes", names=names))) for names in (NAMES, MORE)]


@pytest.fixture
def live(compiled, tmp_path):
    put(compiled[0], tmp_path / "live")
    return tmp_path / "live"


@pytest.fixture
def start(running_loop, upstream, live):
    """Return what starts a gateway: its client, what makes an admin's call, and what is read at a reload."""

    def start(**changes):
        config = {"config": settings(live, upstream, **changes)}
        gateway = running_loop.gateway(config["config"], admin=[ADMIN], read_again=lambda: config["config"])

        call = caller(running_loop, gateway, ADMIN)

        def change(**options):
            config["config"] = settings(live, upstream, **options)
            return call("POST", "/admin/reload")

        return call, change

    return start


def routed(call):
    status, found = call("POST", "/v1/route", {"prompt": "w1 w2 w3"})
    assert status == 200, found
    return found


class Slow:
    """Holds back loads with some options until it is told to go on."""

    def __init__(self, monkeypatch, holds):
        self.holding, self.go_on = threading.Event(), threading.Event()

        def slow(cls, folder, **options):
            found = load(cls, folder, **options)
            if holds(options):
                self.holding.set()
                assert self.go_on.wait(10)
            return found

        monkeypatch.setattr(CompiledRouter, "load", classmethod(slow))


def in_a_thread(call):
    answers = []
    thread = threading.Thread(target=lambda: answers.append(call()))
    thread.start()
    return thread, answers


def test_a_reload_is_not_undone_by_a_load_that_began_before_it(start, compiled, live, monkeypatch):
    call, change = start()
    slow = Slow(monkeypatch, lambda options: options["alarm"] is None)
    put(compiled[1], live)
    assert slow.holding.wait(10), "the watch is loading, without an alarm"
    reloading, answers = in_a_thread(lambda: change(alarm=0.0, threshold=0.0))
    time.sleep(0.3)
    assert routed(call)["p_value"] is None, "requests are answered meanwhile"
    slow.go_on.set()
    reloading.join(10)
    assert answers[0][0] == 200
    for _ in range(5):
        found = routed(call)
        assert found["p_value"] is not None
        assert sorted(found["scores"]) == sorted(MORE)
        time.sleep(0.1)


def test_a_newer_router_is_not_replaced_by_a_slow_reload(start, compiled, live, monkeypatch):
    call, change = start()
    slow = Slow(monkeypatch, lambda options: options["alarm"] == 0.0)
    reloading, _ = in_a_thread(lambda: change(alarm=0.0))
    assert slow.holding.wait(10), "the reload has read the router"
    put(compiled[1], live)
    time.sleep(0.3)
    slow.go_on.set()
    reloading.join(10)
    wait_until(lambda: sorted(routed(call)["scores"]) == sorted(MORE))
    time.sleep(0.3)
    assert sorted(routed(call)["scores"]) == sorted(MORE)
    assert routed(call)["p_value"] is not None


def test_a_change_while_it_starts_is_noticed(start, compiled, live, monkeypatch):
    load_router = server.load_router

    async def load_and_change(*given, **options):
        found = await load_router(*given, **options)
        put(compiled[1], live)  # while local experts are loaded, say
        return found

    monkeypatch.setattr(server, "load_router", load_and_change)
    call, _ = start()
    wait_until(lambda: sorted(routed(call)["scores"]) == sorted(MORE))
    assert sorted(routed(call)["order"]) == sorted(MORE), "all of them are served"


def test_what_was_compiled_at_the_start_is_no_change(running_loop, upstream, tmp_path, caplog, monkeypatch):
    async def compile_here(folder):  # another process takes seconds to load torch
        await asyncio.to_thread(compile_router, str(folder))

    caplog.set_level(logging.INFO, "ir3de")
    monkeypatch.setattr(router_files, "_compile", compile_here)
    folder = saved(tmp_path / "router", "naive_bayes")
    running_loop.gateway(settings(folder, upstream))
    time.sleep(0.5)  # ten looks
    assert (folder / "compiled" / "compiled.json").is_file()
    assert "router has changed" not in caplog.text


@pytest.mark.parametrize("key", ["source", "experts", "files", "table", "calibration", "reader", "alarm"])
def test_a_config_without_a_key_ends_no_watch(start, compiled, live, caplog, key):
    caplog.set_level(logging.INFO, "ir3de")
    call, change = start()
    whole = json.loads((live / "compiled.json").read_text())
    (live / "compiled.json").write_text(json.dumps({name: value for name, value in whole.items() if name != key}))
    wait_until(lambda: "cannot be used, the one before stays" in caplog.text)
    assert f"`{key}` is missing" in caplog.text
    status, answer = change()
    assert status == 400
    assert f"`{key}` is missing" in answer["error"]["message"]
    assert sorted(routed(call)["scores"]) == sorted(NAMES)
    put(compiled[1], live)
    wait_until(lambda: sorted(routed(call)["scores"]) == sorted(MORE))


def test_an_error_that_nobody_foresaw_ends_no_watch(start, compiled, live, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "ir3de")
    call, _ = start()
    broken = True

    def breaks(cls, folder, **options):
        if broken:
            raise IndexError("nobody foresaw this")
        return load(cls, folder, **options)

    monkeypatch.setattr(CompiledRouter, "load", classmethod(breaks))
    put(compiled[1], live)
    wait_until(lambda: "the one before stays: nobody foresaw this" in caplog.text)
    assert "Traceback" in caplog.text
    broken = False
    shutil.copy(live / "compiled.json", live / "again.json")
    (live / "again.json").replace(live / "compiled.json")
    wait_until(lambda: sorted(routed(call)["scores"]) == sorted(MORE))


@pytest.mark.parametrize("changes, message", [
    ({"fallback": "no-such", "threshold": 0.5}, "Expected the fallback to be one of"),
    ({"others": None, "experts": {"law": Place(upstream="up")}, "fallback": "code", "threshold": 0.5}, "`code`"),
    ({"others": Place(local="/nowhere/at/all")}, "at least one expert to serve"),
    ({"others": Place(local="/nowhere/at/all"), "experts": {"new": Place(upstream="up")}, "fallback": "law",
      "threshold": 0.5}, "`law` (Expert `law`"),
])  # fmt: skip
def test_what_the_start_refuses_a_reload_refuses(start, changes, message):
    call, change = start()
    status, answer = change(**changes)
    assert status == 400
    assert message in answer["error"]["message"]
    assert sorted(routed(call)["order"]) == sorted(NAMES), "nothing has changed"
    with pytest.raises(ValueError, match=re.escape(answer["error"]["message"])):
        start(**changes)


def test_an_expert_that_stays_keeps_to_the_new_limits(start):
    call, change = start()
    body = {"model": "law", "messages": [{"role": "user", "content": "w1"}]}
    assert call("POST", "/v1/chat/completions", body)[0] == 200
    assert change(limits={"answer_bytes": 10})[0] == 200
    status, found = call("POST", "/v1/chat/completions", body)
    assert (status, "too long" in found["error"]["message"]) == (502, True)
    assert change()[0] == 200
    assert call("POST", "/v1/chat/completions", body)[0] == 200


def test_a_damaged_router_that_comes_back_as_it_was_is_no_change(start, live, caplog):
    caplog.set_level(logging.INFO, "ir3de")
    start()
    whole = (live / "compiled.json").read_bytes()
    (live / "compiled.json").write_bytes(whole[:-20])
    wait_until(lambda: "cannot be used, the one before stays" in caplog.text)
    (live / "compiled.json").write_bytes(whole)
    wait_until(lambda: "can be read again" in caplog.text or "router has changed" in caplog.text)
    assert "router has changed" not in caplog.text
