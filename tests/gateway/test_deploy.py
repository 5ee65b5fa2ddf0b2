"""What docs/deploy says: the image has the packages that the gateway loads, and the files of the example agree."""

import json
import re
import shlex
import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from urllib.parse import urlsplit

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ir3de.gateway.command import read_settings
from ir3de.gateway.keys import ADMIN_KEYS, CLIENT_KEYS
from tests.gateway.process import ROOT

DEPLOY = ROOT / "docs/deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")


@pytest.fixture(scope="module")
def services():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]


@pytest.fixture(scope="module")
def shipped():
    return read_settings(["--config", str(DEPLOY / "gateway.yaml")])


def in_the_image():
    """Return the packages that the Dockerfile installs, with all that they require."""
    words = shlex.split(re.search(r"pip install (.*)", DOCKERFILE)[1])
    waiting = [Requirement(word) for word in words if not word.startswith("-") and not word.endswith(".txt")]
    found = set()
    while waiting:
        one = waiting.pop()
        if (canonicalize_name(one.name), *sorted(one.extras)) in found:
            continue
        found.add((canonicalize_name(one.name), *sorted(one.extras)))
        for line in requires(one.name) or ():
            other = Requirement(line)
            if other.marker is None or any(other.marker.evaluate({"extra": extra}) for extra in ("", *one.extras)):
                waiting.append(other)
    return {name for name, *_ in found}


def run_as_in_the_image(code, config, tmp_path):
    """Run code, which finds ``settings``, in a process that has the image's packages alone."""
    there = in_the_image() | {"ir3de"}
    missing = [
        module
        for module, owners in packages_distributions().items()
        if not there & {canonicalize_name(owner) for owner in owners}
    ]
    assert {"torch", "transformers", "rich"} <= set(missing)
    (tmp_path / "gateway.yaml").write_text(json.dumps(config))
    begin = (
        "import json, sys\nsys.modules.update(dict.fromkeys(json.loads(sys.argv[1])))\n"
        "from ir3de.gateway.command import read_settings\nsettings = read_settings(sys.argv[2:])\n"
    )
    command = [sys.executable, "-c", begin + code, json.dumps(missing), "--config", str(tmp_path / "gateway.yaml")]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_image_has_what_the_gateway_loads(router, tmp_path):
    config = {"router": str(router / "compiled"), "upstreams": {"up": {"url": "http://127.0.0.1:1/v1"}}}
    code = (
        "import asyncio, tiktoken, uvloop\nfrom ir3de.gateway.keys import Keys\n"
        "from ir3de.gateway.server import Gateway\nfrom ir3de.serving import CompiledRouter\n"
        "async def run():\n"
        "    gateway = Gateway(settings, keys=Keys(), environment={}, read_again=lambda: settings)\n"
        "    await gateway.start()\n    await gateway.stop()\n"
        "uvloop.run(run())\n"
        "print(CompiledRouter.load(settings.router).route('w1').expert)"
    )
    found = run_as_in_the_image(code, {**config, "others": {"upstream": "up"}, "port": 0}, tmp_path)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip()


def test_the_image_refuses_a_local_expert_with_a_sentence(router, tmp_path):
    config = {"router": str(router / "compiled"), "experts": {"a": {"local": str(tmp_path)}}, "port": 0}
    code = "import sys\nfrom ir3de.gateway.start import main\nmain(sys.argv[2:])"
    found = run_as_in_the_image(code, config, tmp_path)
    assert found.returncode == 1
    assert "error: The expert `a` is local, which needs the package torch." in found.stderr
    assert "Traceback" not in found.stderr


def test_the_build_is_sent_what_it_copies_and_no_more():
    copied = {word.strip("./") for line in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.M) for word in line.split()}
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == copied
    assert all((ROOT / path).exists() for path in copied)


def test_the_compose_file_serves_the_config_beside_it(services, shipped):
    gateway = services["gateway"]
    assert (DEPLOY / gateway["build"]["context"]).resolve() == ROOT
    assert (ROOT / gateway["build"]["dockerfile"]).is_file()
    folder = next(one["target"] for one in gateway["volumes"] if isinstance(one, dict))
    assert shipped.router == f"{folder}/router/compiled"
    assert {urlsplit(one.url).hostname for one in shipped.upstreams.values()} == set(services) - {"gateway"}
    keys = {CLIENT_KEYS, ADMIN_KEYS, *(one.key_env for one in shipped.upstreams.values())}
    assert keys == set(gateway["environment"])
    assert gateway["ports"] == [f"{shipped.port}:{shipped.port}"]
    assert f"http://127.0.0.1:{shipped.port}/health" in gateway["healthcheck"]["test"]
    assert int(gateway["stop_grace_period"].removesuffix("s")) > shipped.limits.stop_seconds


def test_only_the_gateway_is_open_and_each_upstream_has_its_own_gpu(services):
    assert [name for name, one in services.items() if "ports" in one] == ["gateway"]
    devices = [
        number
        for one in services.values()
        for device in one.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
        for number in device["device_ids"]
    ]
    assert len(devices) == len(set(devices)) == len(services) - 1
