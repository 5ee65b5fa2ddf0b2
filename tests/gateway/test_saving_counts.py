"""What was counted is saved once, whatever is in the way: folders, damaged files, errors that pass."""

import asyncio
import logging
import os
import resource
import shutil
import tempfile
import tracemalloc
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ir3de.gateway import live_traffic
from ir3de.gateway.live_traffic import LiveTraffic, prepare_folder
from ir3de.serving import CompiledRouter
from ir3de.serving.traffic import Traffic
from tests.gateway.counts import counted, expected, fails, only_file, same
from tests.gateway.running import settings
from tests.serving.alarms import new_prompts, saved_with_alarm


@pytest.fixture(scope="module")
def saved_router(tmp_path_factory):
    return saved_with_alarm(tmp_path_factory.mktemp("traffic") / "router")


@pytest.fixture(scope="module")
def loaded(saved_router):
    return CompiledRouter.load(saved_router / "compiled", alarm=0.0)


def test_what_cannot_be_written_is_kept(loaded, saved_router, tmp_path, caplog):
    prompts, counts, fine = new_prompts(8), tmp_path / "counts", tmp_path / "fine"
    counts.write_text("in the way")

    async def run():
        traffic = LiveTraffic()
        for part in (prompts[:9], prompts[9:15]):
            counted(traffic, counts, loaded, part)
            counted(traffic, fine, loaded, part)
            with pytest.raises(OSError, match="counts"):
                await traffic.save()
        saving = asyncio.create_task(traffic.save_every(lambda: 0.01))
        while "not saved yet" not in caplog.text:
            await asyncio.sleep(0.01)
        counts.unlink()
        while not counts.exists() or not list(counts.glob("*.npz")):
            await asyncio.sleep(0.01)
        saving.cancel()
        counted(traffic, counts, loaded, prompts[15:])
        await traffic.save()

    asyncio.run(asyncio.wait_for(run(), 20))
    assert same(Traffic.read(only_file(counts)), expected(saved_router, prompts))
    assert same(Traffic.read(only_file(fine)), expected(saved_router, prompts[:15])), "the others are written"


def test_whoever_goes_away_takes_nothing_along(loaded, saved_router, tmp_path):
    prompts = new_prompts(40)

    async def run():
        traffic = LiveTraffic()
        for number, ids_T in enumerate(prompts):
            counted(traffic, tmp_path, loaded, [ids_T])
            if number % 10 == 0:
                asking = asyncio.create_task(traffic.drift(str(tmp_path), loaded))
                await asyncio.sleep(0)
                asking.cancel()
        await traffic.save()

    asyncio.run(run())
    assert same(Traffic.read(only_file(tmp_path)), expected(saved_router, prompts))


def encrypted(content):
    """Return the file with a flag set that zipfile has no ValueError for."""
    place = content.index(b"PK\x01\x02") + 8
    return content[:place] + bytes([content[place] | 1]) + content[place + 1 :]


OTHERS = Traffic.none(vocab_size=7, expert_names=("a",), identity="another").to_bytes()
DAMAGE = {"empty": b"", "no archive": b"PK\x03\x04 nothing", "encrypted": encrypted(OTHERS), "another router's": OTHERS}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_put_aside(loaded, saved_router, tmp_path, caplog, damage):
    caplog.set_level(logging.WARNING, "ir3de")
    prompts = new_prompts(3)
    path = tmp_path / f"{loaded.identity[:16]}.npz"
    path.write_bytes(damage)

    async def run():
        traffic = LiveTraffic()
        counted(traffic, tmp_path, loaded, prompts)
        await traffic.save()

    asyncio.run(run())
    assert same(Traffic.read(path), expected(saved_router, prompts))
    assert path.with_name(path.name + ".damaged").read_bytes() == damage
    assert "counting begins anew" in caplog.text


def test_every_damaged_file_has_a_name_of_its_own(loaded, tmp_path):
    path = tmp_path / f"{loaded.identity[:16]}.npz"

    async def run():
        traffic = LiveTraffic()
        for damage in (b"one", b"two", b"three"):
            path.write_bytes(damage)
            counted(traffic, tmp_path, loaded, new_prompts(1))
            await traffic.save()

    asyncio.run(run())
    found = {one.name.removeprefix(path.name): one.read_bytes() for one in tmp_path.glob("*.damaged*")}
    assert found == {".damaged": b"one", ".damaged2": b"two", ".damaged3": b"three"}


@contextmanager
def files_that_can_be_opened(number):
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + number, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_file_that_cannot_be_read_now_stays(loaded, saved_router, tmp_path):
    prompts = new_prompts(6)

    async def run():
        traffic = LiveTraffic()
        counted(traffic, tmp_path, loaded, prompts[:9])
        await traffic.save()
        counted(traffic, tmp_path, loaded, prompts[9:])
        with files_that_can_be_opened(1), pytest.raises(OSError, match="Too many open files"):  # the lock's alone
            await traffic.save()
        await traffic.save()

    asyncio.run(run())
    assert same(Traffic.read(only_file(tmp_path)), expected(saved_router, prompts))
    assert list(tmp_path.glob("*.damaged*")) == []


def test_saving_goes_on_whatever_was_raised(loaded, saved_router, tmp_path, caplog, monkeypatch):
    prompts = new_prompts(4)
    monkeypatch.setattr(live_traffic, "replace_file", fails)

    async def run():
        traffic = LiveTraffic()
        saving = asyncio.create_task(traffic.save_every(lambda: 0.01))
        counted(traffic, tmp_path, loaded, prompts)
        while "not saved yet: RuntimeError: as nobody foresaw" not in caplog.text:
            await asyncio.sleep(0.01)
        monkeypatch.undo()
        while not list(tmp_path.glob("*.npz")):
            assert not saving.done()
            await asyncio.sleep(0.01)
        saving.cancel()

    asyncio.run(asyncio.wait_for(run(), 20))
    assert same(Traffic.read(only_file(tmp_path)), expected(saved_router, prompts))


@pytest.mark.parametrize("where", ["from_bytes", "__add__", "to_bytes"])
def test_what_there_is_no_memory_for_is_kept(loaded, saved_router, tmp_path, monkeypatch, where):
    prompts, folders = new_prompts(6), [tmp_path / name for name in ("one", "two")]

    def full(*_, **__):
        raise MemoryError

    async def run():
        traffic = LiveTraffic()
        for folder in folders:
            folder.write_text("in the way")
        for part, lacking in ((prompts[:6], False), (prompts[6:12], True), (prompts[12:], True)):
            for folder in folders:
                counted(traffic, folder, loaded, part)
            with monkeypatch.context() as patch:
                if lacking:
                    patch.setattr(Traffic, where, full)
                with pytest.raises((OSError, MemoryError)):
                    await traffic.save()
        for folder in folders:
            folder.unlink()
        await traffic.save()

    asyncio.run(run())
    for folder in folders:
        assert same(Traffic.read(only_file(folder)), expected(saved_router, prompts))


def large(number):
    """Return a router whose counts take 13 MB, as far as counting looks at it."""
    alarm = SimpleNamespace(config={"vocab_size": 50_000})
    return SimpleNamespace(identity=f"{number:016}", expert_names=("code", "law"), alarm=alarm)


def test_routers_that_cannot_be_saved_take_little_memory(tmp_path):
    folder, route = tmp_path / "counts", SimpleNamespace(expert_index=1, p_value=0.01)
    folder.write_text("in the way")
    ids_T = np.arange(0, 50_000, 50)

    async def run():
        traffic = LiveTraffic()
        for _ in range(2):
            for number in range(5):
                traffic.count(str(folder), large(number), ids_T, route)
                with pytest.raises(OSError, match="counts"):
                    await traffic.save()
        kept = tracemalloc.get_traced_memory()[0]
        folder.unlink()
        await traffic.save()
        return kept

    tracemalloc.start()
    try:
        assert asyncio.run(run()) < 2_000_000
    finally:
        tracemalloc.stop()
    found = [Traffic.read(path) for path in sorted(folder.glob("*.npz"))]
    assert [(one.prompts, one.tokens, int(one.unusual_GE[:, 1].sum())) for one in found] == [(2, 2_000, 2)] * 5


def test_the_router_before_is_saved_as_soon_as_another_ones_counts_begin(tmp_path):
    route = SimpleNamespace(expert_index=0, p_value=0.5)

    async def run():
        traffic = LiveTraffic()
        saving = asyncio.create_task(traffic.save_every(lambda: 3_600.0))
        for number in (1, 1, 2):
            await asyncio.sleep(0.05)
            assert list(tmp_path.glob("*.npz")) == []
            traffic.count(str(tmp_path), large(number), np.arange(9), route)
        while len(list(tmp_path.glob("*.npz"))) < 2:
            await asyncio.sleep(0.01)
        saving.cancel()

    asyncio.run(asyncio.wait_for(run(), 20))
    assert sorted(Traffic.read(path).prompts for path in tmp_path.glob("*.npz")) == [1, 2]


@contextmanager
def without_all_rights():
    """Be another user meanwhile, where the tests are root's, who may write everywhere."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65_534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_folder_where_no_file_can_be_made_is_refused():
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # pytest's are in a folder that only their owner may enter
    try:
        (folder / ".lock").touch()
        (folder / ".lock").chmod(0o666)
        folder.chmod(0o555)
        with without_all_rights(), pytest.raises(OSError, match=f"Cannot write counts of prompts into `{folder}`"):
            prepare_folder(str(folder))
        folder.chmod(0o777)
        with without_all_rights():
            prepare_folder(str(folder))
        assert [path.name for path in folder.iterdir()] == [".lock"], "nothing is left behind"
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("traffic", ["", "  "])
def test_a_folder_without_a_name_is_refused(upstream, saved_router, traffic):
    with pytest.raises(ValueError, match="Expected `traffic` to be a folder"):
        settings(saved_router, upstream, traffic=traffic)
