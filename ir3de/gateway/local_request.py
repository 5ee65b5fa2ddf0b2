"""What a request asks of a local model, checked: everything that is not understood is refused, nothing is ignored."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ir3de.gateway.answers import Ask
from ir3de.gateway.errors import ApiError
from ir3de.gateway.generate import Sampling

# Keys that change no answer here, and keys that are understood at this one value.
_WITHOUT_EFFECT = {"model", "user", "metadata", "store", "service_tier", "prompt_cache_key", "safety_identifier"}
_ONLY: dict[str, tuple[Any, ...]] = {
    "n": (1,), "best_of": (1,), "frequency_penalty": (0,), "presence_penalty": (0,), "logprobs": (False,),
    "echo": (False,), "suffix": ("",), "logit_bias": ({},), "tools": ([],), "response_format": ({"type": "text"},),
}  # fmt: skip
_UNDERSTOOD = {
    "messages", "prompt", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "top_p",
    "seed", "stop",
}  # fmt: skip
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
    for key, value in body.items():
        if key not in _UNDERSTOOD and not any(value == only for only in _ONLY.get(key, ())):
            raise _wrong(key, "left out: a local expert does not understand it")
    chat = ask.endpoint == "chat/completions"
    options = body.get("stream_options", {})
    if not isinstance(options, dict):
        raise _wrong("stream_options", "an object")
    return LocalRequest(
        messages=_messages(body.get("messages")) if chat else None,
        prompt=None if chat else _prompt(body.get("prompt")),
        max_tokens=_whole_number(body, "max_completion_tokens", 1) or _whole_number(body, "max_tokens", 1),
        stops=_stops(body.get("stop", [])),
        sampling=Sampling(
            temperature=_number(body, "temperature", 0.0, 2.0),
            top_p=_number(body, "top_p", 0.0, 1.0),
            seed=_whole_number(body, "seed", -(2**63)),
        ),
        stream=ask.stream,
        include_usage=options.get("include_usage") is True,
    )


def _messages(messages: Any) -> list[dict[str, Any]]:
    if not isinstance(messages, list) or not messages:
        raise _wrong("messages", "a list of messages")
    found = []
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _wrong("messages", "objects with a `role`")
        content = message.get("content")
        if isinstance(content, list):
            if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
                raise _wrong("messages", "text alone: a local expert reads nothing else")
            content = "".join(part["text"] for part in content)
        if not isinstance(content, str):
            raise _wrong("messages", "objects with text as their `content`")
        found.append({"role": message["role"], "content": content})
    return found


def _prompt(prompt: Any) -> str:
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise _wrong("prompt", "one string: a local expert answers one prompt at a time")
    return prompt


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


def _wrong(key: str, expected: str) -> ApiError:
    return ApiError(400, "invalid_value", f"Expected `{key}` to be {expected}.")
