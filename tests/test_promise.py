"""The promise: the same bytes on any number of processes, and a run that dies says so and can be resumed."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ir3de.routers import load_router
from tests.helpers.models import save_model

ROOT = Path(__file__).parents[1]
NAMES = ["code", "law", "maths"]
RESULTS = ("predictions.csv", "confusion_matrix.csv", "results.csv", "validation_choices.csv")


def _command(given, *launcher):
    settings = {"devices": 1, "workers": 0, "batch": 4, "names": NAMES} | {
        k: str(v) if isinstance(v, Path) else v for k, v in given.items()
    }
    return [sys.executable, *launcher, "-m", "tests.helpers.fit_script", json.dumps(settings)]


def _environment():
    clean = {key: value for key, value in os.environ.items() if key not in ("LOCAL_RANK", "RANK", "WORLD_SIZE")}
    return clean | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def _run(given, *launcher):
    return subprocess.run(
        _command(given, *launcher),
        cwd=ROOT,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=400,  # on a busy machine; gloo would wait for half an hour
        check=False,
    )


def _bytes(out):
    """Return the SHA-256 of the whole artifact, and of what ``predict`` and ``test`` wrote of the decisions."""
    router = sorted(path for path in (out / "router").iterdir() if path.is_file() and path.name != "README.md")
    files = [*router, *(out / name for name in RESULTS)]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The bytes of a fit on one process."""
    folder = tmp_path_factory.mktemp("one")
    run = _run({"data": folder, "out": folder / "out"})
    assert run.returncode == 0, run.stderr
    assert len(_bytes(folder / "out")) == 6 + len(RESULTS)
    return _bytes(folder / "out")


@pytest.mark.parametrize(
    "given",
    [
        {"devices": 2, "workers": 2, "batch": 64, "names": NAMES[::-1]},
        {"devices": 4, "strategy": "ddp"},
        {"workers": 2, "batch": 64, "names": ["law", "maths", "code"]},
    ],
    ids=["2 processes, 2 workers, batch 64, another order", "4 processes", "2 workers, batch 64, another order"],
)
def test_any_number_of_processes_and_workers_gives_the_same_bytes(tmp_path, expected, given):
    run = _run({"data": tmp_path, "out": tmp_path / "out"} | given)
    assert run.returncode == 0, run.stderr
    assert _bytes(tmp_path / "out") == expected
    ranks = {path.name: path.read_text() for path in (tmp_path / "out").glob("rank_*")}
    assert sorted(ranks) == [f"rank_{i}" for i in range(given.get("devices", 1))]
    assert set(ranks.values()) == {"ClosedFormDDP" if given.get("devices") else "SingleDeviceStrategy"}


def test_torchrun_gives_the_same_bytes(tmp_path, expected):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    run = _run({"data": tmp_path, "out": tmp_path / "out", "devices": 2}, *launcher)
    assert run.returncode == 0, run.stderr
    assert _bytes(tmp_path / "out") == expected


def test_a_killed_run_is_resumed_by_two_processes_to_the_same_bytes(tmp_path, expected):
    killed = subprocess.Popen(
        _command({"data": tmp_path, "out": tmp_path / "out", "slow": 0.2}),
        cwd=ROOT,
        env=_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    journal = tmp_path / "cache" / "counts"
    while not list(journal.glob("*.safetensors")):
        assert killed.poll() is None
        time.sleep(0.05)
    time.sleep(random.uniform(0, 1.0))
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in journal.glob("*.safetensors")}
    assert not (tmp_path / "out" / "router").exists()
    run = _run({"data": tmp_path, "out": tmp_path / "out", "devices": 2})
    assert run.returncode == 0, run.stderr
    assert 0 < len(kept) < 15, "killed in the middle"
    assert _bytes(tmp_path / "out") == expected
    assert {name: (journal / name).stat().st_mtime_ns for name in kept} == kept, "what was counted is not counted again"


def test_features_in_context_are_summed_over_processes(tmp_path):
    model = save_model(tmp_path / "model")
    routers = []
    for devices in (1, 2):
        folder = tmp_path / str(devices)
        folder.mkdir()
        run = _run({"data": folder, "out": folder / "out", "devices": devices, "model": model})
        assert run.returncode == 0, run.stderr
        routers.append(load_router(folder / "out" / "router"))
    one, two = routers
    for name, share in one.statistics.shares.items():
        np.testing.assert_allclose(two.statistics.shares[name].xx_DD, share.xx_DD, rtol=1e-6)
    np.testing.assert_allclose(two.weight_DE, one.weight_DE, rtol=1e-4, atol=1e-6)
    assert (tmp_path / "1/out/confusion_matrix.csv").read_text() == (
        tmp_path / "2/out/confusion_matrix.csv"
    ).read_text()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_dies_is_named_and_leaves_no_router(tmp_path, rank):
    run = _run({"data": tmp_path, "out": tmp_path / "out", "devices": 2, "die": rank})
    assert run.returncode != 0
    assert f"error: rank {rank}" in run.stderr
    assert "died" in run.stderr
    assert not (tmp_path / "out" / "router").exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_fails_is_named_with_its_reason(tmp_path, rank):
    run = _run({"data": tmp_path, "out": tmp_path / "out", "devices": 2, "fail": rank})
    assert run.returncode != 0
    assert f"error: rank {rank} failed: the text of `law` is broken" in run.stderr
    assert "died" not in run.stderr
    assert not (tmp_path / "out" / "router").exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_ends_later_than_the_others_is_not_a_rank_that_died(tmp_path, expected, rank):
    run = _run({"data": tmp_path, "out": tmp_path / "out", "devices": 2, "linger": rank})
    assert run.returncode == 0, run.stderr
    assert _bytes(tmp_path / "out") == expected
