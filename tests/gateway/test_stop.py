"""The gateway as a program: it stops without cutting an answer short, and mistakes are sentences."""

import json
import logging
import math
import signal
import socket
import subprocess
import sys
import threading

import openai
import pytest

from ir3de.gateway.command import read_settings
from ir3de.gateway.settings import GatewaySettings, Limits, LocalSettings, Place, Upstream
from ir3de.gateway.start import main
from tests.gateway.process import ROOT, program
from tests.gateway.running import NAMES
from tests.gateway.test_interface import chat, streamed
from tests.helpers.waiting import wait_until


@pytest.fixture
def config(router, upstream):
    return {"router": str(router), "upstreams": {"up": {"url": upstream.url}}, "others": {"upstream": "up"}}


def test_it_stops_when_running_answers_are_whole(config, upstream, tmp_path):
    upstream.behaviour = dict.fromkeys(NAMES, "wait")
    with program(tmp_path, config) as gateway:
        client = openai.OpenAI(base_url=f"{gateway.address}/v1", api_key="any", max_retries=0)
        answers = {}
        threads = [
            threading.Thread(target=lambda: answers.update(a=chat(client, "w1 w2").choices[0].message.content)),
            threading.Thread(target=lambda: answers.update(b=streamed(chat(client, "w1 w2", stream=True)))),
        ]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(upstream.asked) == 2)
        gateway.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "stopping: 2 requests" in gateway.log)
        wait_until(lambda: refuses(gateway.address))
        late = openai.OpenAI(base_url=f"{gateway.address}/v1", api_key="any", max_retries=0)
        with pytest.raises(openai.APIConnectionError):
            chat(late, "w1")
        upstream.go_on.set()
        for thread in threads:
            thread.join(10)
        assert gateway.process.wait(10) == 0
        assert set(answers) == {"a", "b"}
        assert all(answer.endswith(": w1 w2") for answer in answers.values())


def refuses(address):
    host, _, port = address.removeprefix("http://").rpartition(":")
    with socket.socket() as connection:
        return connection.connect_ex((host, int(port))) != 0


def test_it_does_not_wait_for_ever_to_stop(config, upstream, tmp_path):
    upstream.behaviour = dict.fromkeys(NAMES, "hang")
    with program(tmp_path, {**config, "limits": {"stop_seconds": 0.3}}) as gateway:
        client = openai.OpenAI(base_url=f"{gateway.address}/v1", api_key="any", max_retries=0)
        failed = []

        def ask():
            try:
                chat(client, "w1")
            except openai.APIError as error:
                failed.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        wait_until(lambda: upstream.asked)
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(5) == 0
        thread.join(10)
        assert len(failed) == 1
        assert "1 requests were not answered in time" in gateway.log


def test_it_starts_without_what_it_does_not_need(config, tmp_path):
    (tmp_path / "gateway.yaml").write_text(json.dumps(config))
    code = (
        "import asyncio, sys\nfrom ir3de.gateway.command import read_settings\nfrom ir3de.gateway.keys import Keys\n"
        "from ir3de.gateway.server import Gateway\nsettings = read_settings(sys.argv[1:])\n"
        "async def run():\n"
        "    gateway = Gateway(settings, keys=Keys(), environment={}, read_again=lambda: settings)\n"
        "    await gateway.start()\n    await gateway.stop()\n"
        "asyncio.run(run())\n"
        "print([name for name in ('torch', 'transformers', 'lightning') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, "--config", str(tmp_path / "gateway.yaml"), "--port", "0"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.fixture
def own_logging():
    """Put back the handlers that the program replaces."""
    before, loggers = logging.root.handlers[:], (logging.root, logging.getLogger("ir3de"))
    levels = [logger.level for logger in loggers]
    yield
    logging.root.handlers[:] = before
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def test_a_missing_package_is_named():
    code = "import sys; sys.modules['prometheus_client'] = None; from ir3de.gateway.start import main; main([])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "needs the package prometheus_client. Run `pip install 'ir3de[serve]'`" in found.stderr


WRONG = [
    ({"router": "nowhere"}, "nowhere"),
    ({"others": None}, "`experts` or `others`"),
    ({"others": {"upstream": "down"}}, "one of ['up']"),
    ({"experts": {"law": {"upstream": "up", "local": "x"}}}, "either `upstream` or `local`"),
    ({"experts": {"auto": {"upstream": "up"}}}, "not `auto`"),
    ({"experts": {"law": {"local": "/nowhere/at/all"}}}, "/nowhere/at/all"),
    ({"fallback": "law"}, "Set `threshold`, or `alarm` above 0, too"),
    ({"fallback": "law", "alarm": 0}, "Set `threshold`, or `alarm` above 0, too"),
    ({"fallback": "poetry", "threshold": 0.5}, "Expected the fallback to be one of"),
    ({"threshold": 1.5}, "from 0 to 1"),
    ({"alarm": 1}, "at least 0 and below 1"),
    ({"traffic_seconds": 0}, "Expected `traffic_seconds` to be a number above 0"),
    ({"traffic": "/dev/null/counts"}, "Set `traffic` to another folder"),
    ({"limits": {"running": 0}}, "limits.running"),
    *(
        ({"upstreams": {"up": {"url": url}}}, "http://HOST")
        for url in (
            "ftp://x",
            "http://x:99999/v1",
            "http://x:0/v1",
            "http://x:port/v1",
            "http://a b/v1",
            "http:///v1",
            "http://[x/v1",
        )
    ),
    ({"upstreams": {"up": {"url": "http://me:secret-word@x/v1"}}}, "no user, password"),
    ({"upstreams": {"up": {"url": "http://127.0.0.1:1/v1", "key_env": "IR3DE_NO_SUCH_KEY"}}}, "IR3DE_NO_SUCH_KEY"),
    ({"host": "no.such.host.invalid", "open_to_all": True}, "an address of this machine"),
    ({"port": 65_536}, "Expected `port` to be from 0"),
    ({"local": {"waiting": -1}}, "Expected `local.waiting` to be 0 or more"),
    ({"route_on": "first"}, "route_on"),
    ({"rooter": "x"}, "rooter"),
]


@pytest.mark.parametrize("change, message", WRONG, ids=range(len(WRONG)))
@pytest.mark.usefixtures("own_logging")
def test_a_mistake_in_the_config_is_said_and_ends_the_program(config, tmp_path, capsys, change, message):
    (tmp_path / "gateway.yaml").write_text(json.dumps({**config, "port": 0, **change}))
    with pytest.raises(SystemExit) as stopped:
        main(["--config", str(tmp_path / "gateway.yaml")])
    said = capsys.readouterr().err
    assert stopped.value.code == 1
    assert "error: " in said
    assert message in said
    assert "secret-word" not in said


def _settings(**changes):
    return GatewaySettings(router="x", others=Place(local="x"), **changes)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, 0])
@pytest.mark.parametrize("make, name", [
    *((Limits, f"limits.{name}") for name in Limits.__dataclass_fields__),
    (LocalSettings, "local.max_tokens"), (_settings, "watch_seconds"), (_settings, "traffic_seconds"),
])  # fmt: skip
def test_what_is_no_number_above_zero_is_refused(make, name, value):
    with pytest.raises(ValueError, match=f"Expected `{name}` to be a number above 0, but got {value}"):
        make(**{name.rpartition(".")[2]: value})


@pytest.mark.parametrize("written", [".nan", ".inf"])
def test_an_option_is_no_way_around(config, tmp_path, written):
    (tmp_path / "gateway.yaml").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="Expected `traffic_seconds` to be a number above 0"):
        read_settings(["--config", str(tmp_path / "gateway.yaml"), "--traffic_seconds", written])


@pytest.mark.parametrize(
    "url", ["http://x/v1", "https://a-b.example:8443/v1", "http://127.0.0.1:1/v1", "http://[::1]:80/v1", "http://ü.de"]
)
def test_addresses_of_upstreams(url):
    assert Upstream(url=url).url == url


SHIPPED = [*ROOT.glob("configs/serve/*.yaml"), ROOT / "docs/deploy/gateway.yaml"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_configs_are_read(path):
    found = read_settings(["--config", str(path)])
    assert found.others is not None
    assert found.experts or not found.upstreams


def test_options_change_what_the_config_says(config, tmp_path):
    (tmp_path / "gateway.yaml").write_text(json.dumps(config))
    found = read_settings(["--config", str(tmp_path / "gateway.yaml"), "--port", "99", "--limits.running", "7"])
    assert (found.port, found.limits.running, found.limits.attempts) == (99, 7, 3)
    assert found.upstreams["up"].url == config["upstreams"]["up"]["url"]
