"""What Prometheus is told of what has happened."""

import urllib.request

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.gateway.test_interface import chat, streamed


def test_requests_failures_and_decisions_are_counted(client, gateway, upstream, word):
    upstream.behaviour = {"law": "fail"}
    chat(client, word["code"])
    chat(client, word["law"])
    with pytest.raises(openai.NotFoundError):
        chat(client, "w1", model="no such model")
    upstream.behaviour = {"maths": "die"}
    with pytest.raises(openai.APIError):
        streamed(chat(client, "w1", model="maths", stream=True))
    with urllib.request.urlopen(f"{gateway.address}/metrics") as response:
        families = text_string_to_metric_families(response.read().decode())
    found = {(s.name, *sorted(s.labels.values())): s.value for family in families for s in family.samples}
    assert found["ir3de_decisions_total", "code"] == found["ir3de_decisions_total", "law"] == 1
    assert found["ir3de_decision_seconds_count",] == 2
    assert found["ir3de_expert_failures_total", "law", "status"] == 1
    assert found["ir3de_expert_failures_total", "broken off", "maths"] == 1
    assert found["ir3de_retries_total",] == 1
    assert found["ir3de_requests_total", "", "404", "chat/completions"] == 1
    assert found["ir3de_requests_total", "broken off", "chat/completions", "maths"] == 1
    assert found["ir3de_requests_running",] == 0
    assert found["ir3de_experts_served",] == 3
    assert not any("no such model" in key for key in found), "a client cannot make labels"
