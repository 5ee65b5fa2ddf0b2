"""What a request asks of a local model, checked: everything that is not understood is refused, nothing is ignored."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ir3de.gateway.answers import Ask
from ir3de.gateway.errors import ApiError
from ir3de.gateway.generate import Sampling
from ir3de.serving.text import without_surrogates

# Keys that change no answer here, and keys that are understood at this one value.
_WITHOUT_EFFECT = {"model", "user", "metadata", "store", "service_tier", "prompt_cache_key", "safety_identifier"}
_ONLY: dict[str, Any] = {
    "n": 1, "best_of": 1, "frequency_penalty": 0, "presence_penalty": 0, "logprobs": False, "echo": False,
    "suffix": "", "logit_bias": {}, "tools": [], "response_format": {"type": "text"},
}  # fmt: skip
_UNDERSTOOD = {
    "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stop",
}  # fmt: skip
_LEFT_OUT = "left out: a local expert does not understand it"
_MOST_STOPS = 16


@dataclass(frozen=True, kw_only=True)
class LocalRequest:
    """What a local model is asked: ``messages`` of a chat or a ``prompt``, and how to go on."""

    messages: list[dict[str, Any]] | None
    prompt: str | None
    max_tokens: int | None
    stops: tuple[str, ...]
    sampling: Sampling
    stream: bool
    include_usage: bool


def local_request(ask: Ask) -> LocalRequest:
    """Return what ``ask`` asks of a local model.

    Raises:
        ApiError: naming the key that is wrong, or that a local model does not understand.
    """
    body = {key: value for key, value in ask.body.items() if value is not None and key not in _WITHOUT_EFFECT}
    chat = ask.endpoint == "chat/completions"
    for key, value in body.items():
        if key not in _UNDERSTOOD | {"messages" if chat else "prompt"} and not _neutral(key, value):
            raise _wrong(key, _LEFT_OUT)
    return LocalRequest(
        messages=_messages(body.get("messages")) if chat else None,
        prompt=None if chat else _prompt(body.get("prompt")),
        max_tokens=_max_tokens(body),
        stops=_stops(body.get("stop", [])),
        sampling=Sampling(
            temperature=_number(body, "temperature", 0.0, 2.0),
            top_p=_number(body, "top_p", 0.0, 1.0),
            seed=_whole_number(body, "seed", -(2**63)),
        ),
        stream=ask.stream,
        include_usage=_include_usage(body.get("stream_options"), stream=ask.stream),
    )


def _neutral(key: str, value: Any) -> bool:
    only = _ONLY.get(key)
    return value == only and isinstance(value, bool) == isinstance(only, bool)  # 0 == False


def _messages(messages: Any) -> list[dict[str, Any]]:
    if not isinstance(messages, list) or not messages:
        raise _wrong("messages", "a list of messages")
    found = []
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _wrong("messages", "objects with a `role`")
        _only_with(message, {"role", "content"}, f"messages[{i}]")
        text = _content(message.get("content"), f"messages[{i}].content")
        found.append({"role": without_surrogates(message["role"]), "content": without_surrogates(text)})
    return found


def _content(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _wrong(where, "text")
    for i, part in enumerate(content):
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise _wrong(where, "text alone: a local expert reads nothing else")
        _only_with(part, {"type", "text"}, f"{where}[{i}]")
    return "".join(part["text"] for part in content)


def _prompt(prompt: Any) -> str:
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise _wrong("prompt", "one string: a local expert answers one prompt at a time")
    return without_surrogates(prompt)


def _max_tokens(body: Mapping[str, Any]) -> int | None:
    newer, older = (_whole_number(body, key, 1) for key in ("max_completion_tokens", "max_tokens"))
    if newer is not None and older is not None and newer != older:
        raise _wrong("max_tokens", "left out, or equal to `max_completion_tokens`")
    return older if newer is None else newer


def _include_usage(options: Any, *, stream: bool) -> bool:
    if options is None:
        return False
    if not isinstance(options, dict) or not stream:
        raise _wrong("stream_options", "an object, beside `stream: true`")
    _only_with(options, {"include_usage"}, "stream_options")
    wanted = options.get("include_usage")
    if not isinstance(wanted, bool | None):
        raise _wrong("stream_options.include_usage", "true or false")
    return wanted is True


def _stops(stop: Any) -> tuple[str, ...]:
    stops = [stop] if isinstance(stop, str) else stop
    if (
        not isinstance(stops, list)
        or len(stops) > _MOST_STOPS
        or not all(isinstance(one, str) and one for one in stops)
    ):
        raise _wrong("stop", f"a string or up to {_MOST_STOPS} of them, none of them empty")
    return tuple(stops)


def _number(body: Mapping[str, Any], key: str, low: float, high: float) -> float:
    value = body.get(key, 1.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise _wrong(key, f"a number from {low:g} to {high:g}")
    return float(value)


def _whole_number(body: Mapping[str, Any], key: str, low: int) -> int | None:
    value = body.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value < 2**63:
        raise _wrong(key, f"a whole number from {low}")
    return value


def _only_with(given: Mapping[str, Any], understood: set[str], where: str) -> None:
    """Refuse what else is ``given``, but for null and empty lists: clients send back what they got."""
    for key, value in given.items():
        if key not in understood and value is not None and value != []:
            raise _wrong(f"{where}.{key}", _LEFT_OUT)


def _wrong(key: str, expected: str) -> ApiError:
    return ApiError(400, "invalid_value", f"Expected `{key}` to be {expected}.")
