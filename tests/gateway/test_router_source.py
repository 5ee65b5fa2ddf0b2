"""Where the gateway's router comes from: the hub, which is not watched, and what of it outlives a reload."""

import asyncio
import logging

import aiohttp

from ir3de.compiling.router import compile_router
from ir3de.gateway.metrics import Metrics
from ir3de.gateway.router_files import load_router, signature, watch
from ir3de.routers import load_router as load_saved
from ir3de.serving.artifact import read_compiled, write_compiled
from ir3de.upkeep.push import push
from tests.gateway.running import NAMES, settings
from tests.helpers.pushed import hub as hub  # noqa: PLC0414 - a fixture
from tests.serving.routers import saved

ADMIN = "admin-key-01234567"
MORE = (*NAMES, "poetry")


def test_a_router_of_the_hub_is_served_and_looked_for_again_when_an_admin_says_so(
    hub, running_loop, upstream, tmp_path, caplog
):
    caplog.set_level(logging.INFO, "ir3de")
    push(str(saved(tmp_path / "first", "naive_bayes")), "me/router")
    first = hub.repositories["model", "me/router"].commit
    gateway = running_loop.gateway(settings("me/router", upstream), admin=[ADMIN])
    push(str(saved(tmp_path / "second", "naive_bayes", names=MORE)), "me/router")
    hub.requests.clear()

    async def call(method, path):
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {ADMIN}"}) as session,
            session.request(method, f"{gateway.address}/admin/{path}") as response,
        ):
            return await response.json()

    running_loop.call(asyncio.sleep(0.2))  # four times as long as it takes to look at a folder
    assert sorted(running_loop.call(call("GET", "experts"))["experts"]) == sorted(NAMES)
    assert not hub.requests
    found = running_loop.call(call("POST", "reload"))
    assert sorted(found["experts"]) == sorted(MORE)
    assert found["router"] == load_saved(tmp_path / "second").identity_hash()
    said = [record.getMessage() for record in caplog.records if "at commit" in record.getMessage()]
    for commit, line in zip([first, hub.repositories["model", "me/router"].commit], said, strict=True):
        assert commit in line
        assert "POST /admin/reload looks for a newer one" in line


def test_a_revision_of_the_hub_stays(hub, running_loop, upstream, tmp_path):
    push(str(saved(tmp_path / "first", "naive_bayes")), "me/router")
    first = hub.repositories["model", "me/router"].commit
    push(str(saved(tmp_path / "second", "naive_bayes", names=MORE)), "me/router")
    router = asyncio.run(load_router(settings(f"me/router@{first}", upstream)))
    assert router.expert_names == NAMES


def test_what_reads_text_outlives_a_change_on_disk(upstream, tmp_path):
    folder = compile_router(str(saved(tmp_path / "router", "naive_bayes")))
    config = settings(folder, upstream)

    async def changed():
        before, come = await load_router(config), asyncio.Queue()
        seen, loading = signature(folder), asyncio.Lock()
        watching = asyncio.create_task(
            watch(lambda: config, lambda: before, come.put, Metrics(), seen=seen, loading=loading)
        )
        found = read_compiled(folder)
        about = {key: value for key, value in found.config.items() if key not in ("format", "files")}
        write_compiled(folder, {**about, "written": 1}, {name: path.read_bytes() for name, path in found.files.items()})
        after = await asyncio.wait_for(come.get(), 20)
        watching.cancel()
        return before, after

    before, after = asyncio.run(changed())
    assert after.config["written"] == 1
    assert after.reader is before.reader
