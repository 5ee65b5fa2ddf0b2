"""The official client gets answers, streamed or not, from the router's choice or from an expert that it names."""

import openai
import pytest

from ir3de.serving import CompiledRouter
from tests.gateway.running import NAMES, settings


def chat(client, text, *, model="auto", **options):
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], **options)


def streamed(stream):
    return "".join(part.choices[0].delta.content or "" for part in stream)


@pytest.mark.parametrize("expert", NAMES)
def test_auto_goes_where_the_router_says(client, word, expert, upstream):
    text = f"{word[expert]} {word[expert]}"
    assert chat(client, text).choices[0].message.content == f"{expert}: {text}"
    assert streamed(chat(client, text, stream=True)) == f"{expert}: {text}"
    assert client.completions.create(model="auto", prompt=text).choices[0].text == f"{expert}: {text}"
    parts = client.completions.create(model="auto", prompt=text, stream=True)
    assert "".join(part.choices[0].text for part in parts) == f"{expert}: {text}"
    assert {body["model"] for _, body in upstream.asked} == {expert}


def test_a_named_expert_is_asked_whatever_the_router_says(client, word):
    assert chat(client, word["law"], model="maths").choices[0].message.content == f"maths: {word['law']}"
    assert streamed(chat(client, word["law"], model="maths", stream=True)) == f"maths: {word['law']}"


def test_headers_say_who_answers_and_how_sure_the_router_is(client, router, word):
    raw = client.chat.completions.with_raw_response
    answer = raw.create(model="auto", messages=[{"role": "user", "content": word["law"]}])
    route = CompiledRouter.load(router / "compiled").route(word["law"])
    assert answer.headers["x-ir3de-expert"] == answer.headers["x-ir3de-first"] == "law"
    assert float(answer.headers["x-ir3de-confidence"]) == pytest.approx(route.confidence, abs=1e-4)
    assert 0 < float(answer.headers["x-ir3de-decision-microseconds"]) < 1e6
    assert answer.headers["x-ir3de-attempts"] == "1"
    named = raw.create(
        model="code", messages=[{"role": "user", "content": "w1"}], extra_headers={"X-Request-ID": "mine-7"}
    )
    assert named.headers["x-ir3de-expert"] == "code"
    assert named.headers["x-request-id"] == "mine-7"
    assert "x-ir3de-confidence" not in named.headers


def test_what_the_client_sends_arrives_but_for_the_model_and_the_key(client, upstream, word):
    chat(client, word["code"], temperature=0.5, seed=3, extra_body={"anything": {"deep": ["é"]}}, stop=["\n"])
    headers, body = upstream.asked[-1]
    assert body == {
        "model": "code", "messages": [{"role": "user", "content": word["code"]}], "temperature": 0.5, "seed": 3,
        "stop": ["\n"], "anything": {"deep": ["é"]},
    }  # fmt: skip
    assert "Authorization" not in headers
    assert headers["X-Request-ID"]


def test_models_are_auto_and_the_experts(client):
    assert [model.id for model in client.models.list()] == ["auto", "code", "law", "maths"]
    assert client.models.retrieve("law").id == "law"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("poetry")


def test_an_unknown_model_is_refused_by_name(client):
    with pytest.raises(openai.NotFoundError, match="There are: auto, code, law, maths"):
        chat(client, "w1", model="gpt-5")


def test_a_decision_can_be_had_alone(client, router, word, upstream):
    text = f"{word['maths']} {word['maths']} {word['law']}"
    found = client.post("/route", cast_to=object, body={"messages": [{"role": "user", "content": text}]})
    route = CompiledRouter.load(router / "compiled").route(text)
    assert (found["expert"], found["tokens"]) == (route.expert, 3)
    assert list(found["scores"].values()) == route.scores.tolist()
    assert found["order"] == sorted(NAMES, key=lambda name: -found["scores"][name])
    assert client.post("/route", cast_to=object, body={"prompt": text})["scores"] == found["scores"]
    assert not upstream.asked


CONVERSATION = [("system", "maths"), ("user", "law"), ("user", "law"), ("assistant", "maths"), ("user", "code")]


@pytest.mark.parametrize("route_on, expected", [("user", "law"), ("last_user", "code"), ("all", None)])
def test_what_of_a_conversation_is_routed_is_a_key(running_loop, router, upstream, word, route_on, expected):
    gateway = running_loop.gateway(settings(router, upstream, route_on=route_on))
    messages = [{"role": role, "content": f"{word[name]} " * 3} for role, name in CONVERSATION]
    if route_on == "all":  # in parts, of which one is no text
        messages[1]["content"] = [{"type": "text", "text": messages[1]["content"]}, {"type": "image_url"}]
        whole = "\n\n".join(f"{word[name]} " * 3 for _, name in CONVERSATION)
        expected = CompiledRouter.load(router / "compiled").route(whole).expert
    with openai.OpenAI(base_url=f"{gateway.address}/v1", api_key="any") as client:
        found = client.post("/route", cast_to=object, body={"messages": messages})
    tokens = {"user": 9, "last_user": 3, "all": 15}[route_on]
    assert (found["expert"], found["tokens"]) == (expected, tokens)


@pytest.mark.parametrize(
    "messages, message",
    [
        ([{"role": "system", "content": "w1"}], "no text to route on"),
        ([{"role": "user", "content": "  "}], "no text to route on"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], "no text to route on"),
        ([{"role": "user", "content": 7}], "a string or a list of parts"),
        ("w1", "list of objects"),
    ],
)
def test_what_cannot_be_routed_is_refused_in_a_sentence(client, messages, message):
    with pytest.raises(openai.BadRequestError, match=message):
        client.chat.completions.create(model="auto", messages=messages)


def test_token_ids_cannot_be_routed_but_go_to_a_named_expert(client):
    with pytest.raises(openai.BadRequestError, match="Token ids belong to one model"):
        client.completions.create(model="auto", prompt=[1, 2, 3])
    assert client.completions.create(model="law", prompt=[1, 2]).choices[0].text == "law: [1, 2]"


def test_below_the_threshold_the_fallback_answers_or_nobody(running_loop, router, upstream, word):
    text = " ".join(word.values())
    for fallback in (None, "maths"):
        gateway = running_loop.gateway(settings(router, upstream, threshold=0.999, fallback=fallback))
        with openai.OpenAI(base_url=f"{gateway.address}/v1", api_key="any", max_retries=0) as client:
            if fallback:
                assert chat(client, text).choices[0].message.content == f"maths: {text}"
            else:
                with pytest.raises(openai.UnprocessableEntityError, match=r"below 0\.999"):
                    chat(client, text)
            assert chat(client, text, model="law").choices[0].message.content == f"law: {text}"


def test_adapters_are_models_of_one_upstream(running_loop, router, upstream, word):
    from ir3de.gateway.settings import Place

    experts = {name: Place(upstream="up", model=f"{name}-lora") for name in NAMES}
    gateway = running_loop.gateway(settings(router, upstream, experts=experts, others=None))
    with openai.OpenAI(base_url=f"{gateway.address}/v1", api_key="any") as client:
        assert chat(client, word["law"]).choices[0].message.content == f"law-lora: {word['law']}"
