"""Local experts: the same tokens as transformers, in OpenAI's shapes, one request at a time."""

import json
import logging
import threading
import time
from urllib.request import Request, urlopen

import openai
import pytest
import torch
from transformers import LlamaForCausalLM

from ir3de.gateway import generate as generation
from ir3de.gateway.settings import LocalSettings, Place
from tests.gateway.local_experts import WORDS, saved_bank, tokenizer_of_words
from tests.gateway.running import settings
from tests.gateway.test_interface import chat, streamed
from tests.helpers.waiting import wait_until


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return saved_bank(tmp_path_factory.mktemp("bank"))


@pytest.fixture
def gateway(running_loop, router, upstream, bank):
    local = LocalSettings(max_tokens=6, waiting=2, device="cpu")
    return running_loop.gateway(
        settings(router, upstream, others=Place(local=str(bank)), local=local, limits={"answer_seconds": 10})
    )


def expected(bank, name, prompt, most):
    """Return what transformers' own loop writes, and the tokens it took."""
    model = LlamaForCausalLM.from_pretrained(bank / name)
    tokenizer = tokenizer_of_words()
    ids = tokenizer.encode(prompt).ids
    with torch.inference_mode():
        new = model.generate(torch.tensor([ids]), max_new_tokens=most, do_sample=False, pad_token_id=0)[0, len(ids) :]
    return tokenizer.decode([i for i in new.tolist() if i != WORDS - 1]), len(ids), len(new)


def test_a_completion_is_what_transformers_writes(client, bank):
    for name in ("code", "law"):
        text, read, written = expected(bank, name, "w1 w2 w3", 9)
        answer = client.completions.create(model=name, prompt="w1 w2 w3", max_tokens=9, temperature=0)
        assert answer.choices[0].text.strip() == text
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (read, written)
        assert answer.choices[0].finish_reason == ("length" if written == 9 else "stop")
        parts = list(client.completions.create(model=name, prompt="w1 w2 w3", max_tokens=9, temperature=0, stream=True))
        assert "".join(part.choices[0].text for part in parts) == answer.choices[0].text
        assert len(parts) > 3
        assert (parts[-1].choices[0].finish_reason, parts[-1].model) == (answer.choices[0].finish_reason, name)


@pytest.mark.parametrize("name, prompt", [("maths", "user w1 w2 w5"), ("code", "w1 w2")])
def test_a_chat_goes_through_the_template_where_there_is_one(client, bank, name, prompt):
    text, read, written = expected(bank, name, prompt, 6)
    answer = chat(client, "w1 w2", model=name, temperature=0)
    assert answer.choices[0].message.content.strip() == text
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (read, written)
    options = {"temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
    *parts, last = chat(client, "w1 w2", model=name, **options)
    assert streamed(parts) == answer.choices[0].message.content
    assert parts[0].choices[0].delta.role == "assistant"
    assert (last.choices, last.usage) == ([], answer.usage)


def test_auto_reaches_local_experts(client, word):
    answer = client.chat.completions.with_raw_response.create(
        model="auto", messages=[{"role": "user", "content": word["law"]}], max_tokens=2
    )
    assert answer.headers["x-ir3de-expert"] == "law"
    assert answer.parse().model == "law"


def test_equal_seeds_give_equal_answers_and_others_differ(client):
    found = {
        seed: {
            client.completions.create(model="law", prompt="w1", max_tokens=20, seed=seed).choices[0].text for _ in "ab"
        }
        for seed in range(4)
    }
    assert all(len(texts) == 1 for texts in found.values())
    assert len(set.union(*found.values())) > 1


def test_it_stops_at_a_stop_string_and_says_so(client, bank):
    text = expected(bank, "law", "w1 w2 w3", 9)[0]
    stop = f" {text.split()[3]}"
    answer = client.completions.create(model="law", prompt="w1 w2 w3", max_tokens=9, temperature=0, stop=[stop, "zzz"])
    assert answer.choices[0].text.strip() == text[: text.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"n": 2}, "`n`"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "`tools`"),
        ({"logprobs": True}, "`logprobs`"),
        ({"temperature": 3}, "`temperature`"),
        ({"top_p": -1}, "`top_p`"),
        ({"max_tokens": 0}, "`max_tokens`"),
        ({"seed": "x"}, "`seed`"),
        ({"stop": [""]}, "`stop`"),
        ({"extra_body": {"top_k": 3}}, "`top_k`"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "text alone"),
        ({"messages": [{"role": "user", "content": "w1 " * 60}]}, "has 60 tokens, but this expert reads 48"),
        ({"messages": [{"role": "user", "content": ""}]}, "at least one token"),
    ],
)
def test_what_a_local_expert_does_not_understand_is_refused(client, options, message):
    given = {"messages": [{"role": "user", "content": "w1"}], **options}
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match=message):
            client.chat.completions.create(model="code", stream=stream, **given)


@pytest.mark.parametrize("name", ["code", "maths"])
@pytest.mark.parametrize("half", ["import \ud800", "\udfff w2"])
def test_half_of_a_surrogate_pair_is_no_character_and_no_failure(gateway, caplog, name, half):
    def post(endpoint, **given):
        body = json.dumps({"model": name, "temperature": 0, **given}).encode()
        with urlopen(Request(f"{gateway.address}/v1/{endpoint}", body), timeout=30) as response:
            answer = json.load(response)
        return answer["choices"], answer["usage"]

    caplog.set_level(logging.WARNING)
    whole = half.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert post("completions", prompt=half) == post("completions", prompt=whole)
    for role in ("user", half):
        found = [
            post("chat/completions", messages=[{"role": role, "content": content}])
            for content in (half, [{"type": "text", "text": half}], whole)
        ]
        assert found[0] == found[1] == found[2]
    assert not caplog.records


def test_the_least_temperature_and_top_p_are_greedy(client, caplog):
    caplog.set_level(logging.WARNING)
    given = {"model": "law", "prompt": "w1 w2 w3", "max_tokens": 9}
    greedy = client.completions.create(**given, temperature=0).choices[0].text
    for options in ({"temperature": 1e-40}, {"temperature": 5e-324}, {"temperature": 1e-30}, {"top_p": 1e-40}):
        assert client.completions.create(**given, **options).choices[0].text == greedy
    assert client.completions.create(**given, temperature=2, top_p=1.0)
    assert not caplog.records


def test_what_has_no_effect_may_be_said(client):
    assert chat(client, "w1", model="code", n=1, user="me", frequency_penalty=0, response_format={"type": "text"})


def test_the_context_ends_an_answer(client):
    answer = client.completions.create(model="code", prompt="w1 " * 45, max_tokens=30, temperature=0)
    assert answer.usage.total_tokens <= 48
    assert answer.usage.completion_tokens == 3 or answer.choices[0].finish_reason == "stop"


@pytest.fixture
def slow(monkeypatch):
    """Let every token take 50 ms, and wait for ``go_on``; count how many models are at work."""
    at_work = {"now": 0, "most": 0, "tokens": 0, "go_on": threading.Event()}
    at_work["go_on"].set()

    def next_slowly(logits_V, sampling, generator):
        at_work["now"] += 1
        at_work["most"] = max(at_work["most"], at_work["now"])
        time.sleep(0.05)
        assert at_work["go_on"].wait(60)
        at_work["now"] -= 1
        at_work["tokens"] += 1
        return 1

    monkeypatch.setattr(generation, "next_token", next_slowly)
    return at_work


def test_a_model_answers_one_request_at_a_time_and_a_full_queue_is_said(client, slow):
    outcomes = []

    def ask():
        try:
            outcomes.append(chat(client, "w1", model="law").choices[0].message.content)
        except openai.InternalServerError as error:
            outcomes.append((error.status_code, error.response.headers["retry-after"]))

    slow["go_on"].clear()
    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(outcomes) == 2)
    slow["go_on"].set()
    for thread in threads:
        thread.join(10)
    assert slow["most"] == 1
    assert sorted(outcomes, key=str) == [(503, "1")] * 2 + ["w1 w1 w1 w1 w1 w1"] * 3


def test_a_client_that_goes_away_ends_the_generation(client, gateway, slow):
    stream = chat(client, "w1", model="law", stream=True, max_tokens=40)
    next(iter(stream))
    stream.close()
    wait_until(lambda: not gateway.running)
    time.sleep(0.1)
    written = slow["tokens"]
    time.sleep(0.2)
    assert slow["tokens"] == written < 40
    assert chat(client, "w1", model="law", max_tokens=2), "the next one has its turn"
