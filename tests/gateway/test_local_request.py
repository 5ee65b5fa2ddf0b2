"""What a local expert understands of a request; whatever else is refused, by name."""

import json

import pytest

from ir3de.gateway.answers import Ask
from ir3de.gateway.errors import ApiError
from ir3de.gateway.local_request import local_request

SAID = [{"role": "user", "content": "w1"}]
CALLS = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


def understood(endpoint, given):
    said = {"messages": SAID} if endpoint == "chat/completions" else {"prompt": "w1"}
    return local_request(Ask(endpoint, json.loads(json.dumps({"model": "law", **said, **given})), "1"))


@pytest.mark.parametrize("endpoint", ["chat/completions", "completions"])
@pytest.mark.parametrize(
    "given, name",
    [
        ({"logprobs": 0}, "`logprobs`"),
        ({"logprobs": 1}, "`logprobs`"),
        ({"echo": 0}, "`echo`"),
        ({"n": True}, "`n`"),
        ({"best_of": 2}, "`best_of`"),
        ({"frequency_penalty": False}, "`frequency_penalty`"),
        ({"presence_penalty": 0.1}, "`presence_penalty`"),
        ({"top_logprobs": 0}, "`top_logprobs`"),
        ({"tool_choice": "auto"}, "`tool_choice`"),
        ({"stream_options": {"include_usage": True}}, "`stream_options`"),
        ({"stream_options": {}}, "`stream_options`"),
        ({"stream_options": {"include_usage": True}, "stream": False}, "`stream_options`"),
        ({"stream_options": [], "stream": True}, "`stream_options`"),
        ({"stream_options": {"include_obfuscation": False}, "stream": True}, "`stream_options.include_obfuscation`"),
        ({"stream_options": {"include_usage": 1}, "stream": True}, "`stream_options.include_usage`"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "`max_tokens`"),
        ({"max_tokens": "3", "max_completion_tokens": 4}, "`max_tokens`"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(endpoint, given, name):
    with pytest.raises(ApiError, match=f"Expected {name} to be") as refused:
        understood(endpoint, given)
    assert refused.value.status == 400


@pytest.mark.parametrize("endpoint, key", [("chat/completions", "prompt"), ("completions", "messages")])
def test_the_other_endpoints_text_is_refused(endpoint, key):
    with pytest.raises(ApiError, match=f"Expected `{key}` to be left out"):
        understood(endpoint, {"prompt": "w1", "messages": SAID})


@pytest.mark.parametrize(
    "message, name",
    [
        ({"role": "user", "content": "w1", "name": "Ada"}, "`messages[1].name` to be left out"),
        ({"role": "tool", "content": "w1", "tool_call_id": "1"}, "`messages[1].tool_call_id` to be left out"),
        ({"role": "assistant", "content": "w1", "tool_calls": CALLS}, "`messages[1].tool_calls` to be left out"),
        ({"role": "assistant", "content": None, "tool_calls": CALLS}, "`messages[1].tool_calls` to be left out"),
        ({"role": "assistant", "content": None}, "`messages[1].content` to be text"),
        ({"role": "assistant"}, "`messages[1].content` to be text"),
        ({"role": "user", "content": "w1", "prefix": False}, "`messages[1].prefix` to be left out"),
        ({"role": "user", "content": [{"type": "image_url", "text": "w1"}]}, "`messages[1].content` to be text alone"),
        ({"role": "user", "content": [{"text": "w1"}]}, "`messages[1].content` to be text alone"),
        (
            {"role": "user", "content": [{"type": "text", "text": "w1", "cache_control": {"type": "ephemeral"}}]},
            "`messages[1].content[0].cache_control` to be left out",
        ),
    ],
)
def test_what_is_not_understood_of_a_message_is_refused_by_name(message, name):
    with pytest.raises(ApiError) as refused:
        understood("chat/completions", {"messages": [*SAID, message]})
    assert f"Expected {name}" in str(refused.value)


def test_what_the_official_client_sends_back_is_understood():
    nothing = {"tool_calls": None, "function_call": None, "refusal": None, "audio": None, "annotations": []}
    parts = [{"type": "text", "text": "w1 "}, {"type": "text", "text": "w2"}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": "w3", **nothing}, *SAID]
    assert understood("chat/completions", {"messages": messages}).messages == [
        {"role": "user", "content": "w1 w2"}, {"role": "assistant", "content": "w3"}, {"role": "user", "content": "w1"},
    ]  # fmt: skip


@pytest.mark.parametrize("endpoint", ["chat/completions", "completions"])
def test_what_changes_nothing_is_understood(endpoint):
    plain = understood(endpoint, {})
    same = {
        "n": 1, "frequency_penalty": 0.0, "presence_penalty": 0, "logprobs": False, "tools": [], "seed": None,
        "logit_bias": {}, "response_format": {"type": "text"}, "user": "me", "stream_options": None, "stream": False,
    }  # fmt: skip
    assert understood(endpoint, same) == plain
    assert understood(endpoint, {"max_tokens": 3, "max_completion_tokens": 3}).max_tokens == 3
    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    assert understood(endpoint, streamed).include_usage
    assert not understood(endpoint, {**streamed, "stream_options": {"include_usage": None}}).include_usage
