"""What is unusual for every expert goes to none of them or the fallback, and a router without an alarm stays out."""

import json
import logging
import shutil
import time
import urllib.request

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ir3de.compiling.router import compile_router
from ir3de.files import replace_file
from ir3de.serving import CompiledRouter, artifact
from ir3de.serving.alarm import Alarm
from tests.gateway.running import settings
from tests.gateway.test_changes import put
from tests.gateway.test_interface import chat, streamed
from tests.helpers.waiting import wait_until
from tests.serving.alarms import NAMES, WORDS, as_text, new_prompts, saved_with_alarm
from tests.serving.routers import saved

UNUSUAL = as_text(range(WORDS - 30, WORDS - 1))  # words that no expert says


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    return saved_with_alarm(tmp_path_factory.mktemp("alarm") / "router") / "compiled"


@pytest.fixture(scope="module")
def usual(compiled):
    """Return a prompt as usual as most."""
    alarm = Alarm.load(compiled)
    return as_text(next(ids_T for ids_T in new_prompts(20) if 0.3 < alarm.check(ids_T).p_value < 0.9))


@pytest.fixture
def ask(running_loop, upstream):
    """Return what starts a gateway with some settings, and gives its client."""
    clients = []

    def ask(folder, **changes):
        gateway = running_loop.gateway(settings(folder, upstream, **changes))
        clients.append(openai.OpenAI(base_url=f"{gateway.address}/v1", api_key="any", max_retries=0, timeout=10))
        return clients[-1]

    yield ask
    for client in clients:
        client.close()


def p_value_of(client, text):
    raw = client.chat.completions.with_raw_response
    return raw.create(model="auto", messages=[{"role": "user", "content": text}]).headers.get("x-ir3de-p-value")


def test_an_unusual_prompt_is_refused_and_a_usual_one_is_not(ask, compiled, usual):
    client, alarm = ask(compiled, alarm=0.01), Alarm.load(compiled)
    expected = alarm.check(CompiledRouter.load(compiled).read(usual).ids_T).p_value
    assert float(p_value_of(client, usual)) == pytest.approx(expected, abs=1e-6)
    with pytest.raises(openai.UnprocessableEntityError, match="unusual for all of them") as refused:
        chat(client, UNUSUAL)
    assert refused.value.code == "no_expert"
    assert float(refused.value.response.headers["x-ir3de-p-value"]) <= 0.01
    assert chat(client, UNUSUAL, model="law").choices[0].message.content == f"law: {UNUSUAL}"
    found = client.post("/route", cast_to=object, body={"prompt": UNUSUAL})
    assert (found["expert"], found["order"], found["none_because"]) == (None, [], "unusual")
    assert found["p_value"] <= 0.01
    assert client.post("/route", cast_to=object, body={"prompt": usual})["none_because"] is None


def test_the_fallback_gets_what_is_unusual_and_the_others_follow(ask, compiled):
    client = ask(compiled, alarm=0.01, fallback="maths")
    assert streamed(chat(client, UNUSUAL, stream=True)) == f"maths: {UNUSUAL}"
    found = client.post("/route", cast_to=object, body={"prompt": UNUSUAL})
    assert (found["expert"], sorted(found["order"])) == ("maths", sorted(NAMES))


def test_level_0_refuses_nothing_and_tells(ask, compiled):
    client = ask(compiled, alarm=0.0)
    assert float(p_value_of(client, UNUSUAL)) <= 0.01


def test_without_an_alarm_nothing_is_told(ask, compiled, usual):
    client = ask(compiled)
    assert p_value_of(client, usual) is None
    assert client.post("/route", cast_to=object, body={"prompt": usual})["p_value"] is None


def test_unusual_prompts_are_counted_by_the_first_choice(ask, compiled, usual):
    client = ask(compiled, alarm=0.0)
    for text in (UNUSUAL, UNUSUAL, usual):
        chat(client, text)
    first = CompiledRouter.load(compiled).route(UNUSUAL).expert
    with urllib.request.urlopen(str(client.base_url).replace("/v1/", "/metrics")) as response:
        families = {family.name: family for family in text_string_to_metric_families(response.read().decode())}
    assert {
        sample.labels["expert"]: sample.value
        for sample in families["ir3de_unusual"].samples
        if sample.name.endswith("_total")
    } == {first: 2}


@pytest.mark.parametrize("needs", ["alarm", "traffic"])
def test_a_router_that_has_none_is_not_served(ask, tmp_path, needs):
    without = compile_router(str(saved(tmp_path / "router", "naive_bayes", validation=0)))
    with pytest.raises(FileNotFoundError, match="no alarm beside it"):
        ask(without, **{needs: 0.05 if needs == "alarm" else str(tmp_path / "traffic")})


def test_a_router_without_an_alarm_takes_no_place(ask, compiled, tmp_path, usual, caplog):
    caplog.set_level(logging.INFO, "ir3de")
    live, other = tmp_path / "live", compile_router(str(saved(tmp_path / "other", "naive_bayes", names=("x", "y"))))
    shutil.copytree(compiled, live)
    client = ask(live, alarm=0.05)
    put(compile_router(str(saved(tmp_path / "without", "naive_bayes", validation=0))), live)
    wait_until(lambda: "no alarm beside it" in caplog.text)
    assert "the one before stays" in caplog.text
    assert float(p_value_of(client, usual)) > 0.05
    assert [model.id for model in client.models.list()] == ["auto", *sorted(NAMES)]
    put(other, live)
    wait_until(lambda: "router has changed" in caplog.text)
    found = client.post("/route", cast_to=object, body={"prompt": "w1"})
    assert json.dumps(sorted(found["scores"])) == '["x", "y"]'
    assert found["p_value"] is not None


def test_no_change_is_a_failure_while_a_router_with_an_alarm_is_compiled_over(ask, tmp_path, caplog, monkeypatch):
    """The watch looks after every file that is written, and finds one of the two routers, whole."""
    caplog.set_level(logging.INFO, "ir3de")
    folder = saved(tmp_path / "router", "naive_bayes", names=("x", "y"))
    client = ask(compile_router(str(folder)), alarm=0.05, watch_seconds=0.01)
    saved(folder, "naive_bayes", names=("x", "y", "z"))

    def replace(path, content):
        replace_file(path, content)
        time.sleep(0.1)

    monkeypatch.setattr(artifact, "replace_file", replace)
    compile_router(str(folder))
    wait_until(lambda: "router has changed" in caplog.text)
    assert "WARNING" not in caplog.text
    assert [model.id for model in client.models.list()] == ["auto", "x", "y", "z"]
