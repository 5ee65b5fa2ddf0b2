"""What of a request is routed, and the order in which experts are asked."""

import asyncio
import time
from collections.abc import Collection, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ir3de.gateway.answers import Endpoint
from ir3de.gateway.errors import ApiError
from ir3de.gateway.settings import RouteOn
from ir3de.serving.bounds import Bounds
from ir3de.serving.compiled import CompiledRouter, Route
from ir3de.serving.lines import route_as_dict

Array = np.ndarray
_AT_ONCE = 4_000  # characters that are read in about a millisecond; more are read beside the event loop


@dataclass(frozen=True)
class Decision:
    """Where a request goes: the served experts, the most fitting first, and how that was found.

    ``first`` is the expert with the highest score, served or not; ``seconds`` is what the router took.
    """

    order: list[str]
    first: str
    route: Route
    seconds: float

    def as_dict(self, router: CompiledRouter) -> dict[str, Any]:
        """Return the decision of ``router`` as plain values; ``expert`` is the served one that is asked first."""
        found = {**route_as_dict(router, self.route), "expert": self.order[0] if self.order else None}
        return {**found, "order": self.order, "decision_microseconds": round(1e6 * self.seconds, 1)}


def text_of(body: Mapping[str, Any], endpoint: Endpoint, route_on: RouteOn) -> str:
    """Return the text that is routed.

    Raises:
        ApiError: if there is none.
    """
    text = _prompt_text(body.get("prompt")) if endpoint == "completions" else _messages_text(body, route_on)
    if not text.strip():
        raise ApiError(400, "nothing_to_route", "There is no text to route on. Name a model in the place of `auto`.")
    return text


def _messages_text(body: Mapping[str, Any], route_on: RouteOn) -> str:
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        raise ApiError(400, "invalid_messages", "Expected `messages` to be a list of objects.")
    if route_on != "all":
        messages = [one for one in messages if one.get("role") == "user"]
    if route_on == "last_user":
        messages = messages[-1:]
    return "\n\n".join(_content_text(one.get("content")) for one in messages)


def _content_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise ApiError(400, "invalid_messages", "Expected a message's `content` to be a string or a list of parts.")
    return "\n".join(part["text"] for part in content if isinstance(part.get("text"), str))


def _prompt_text(prompt: Any) -> str:
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list) and prompt and all(isinstance(one, str) for one in prompt):
        return "\n\n".join(prompt)
    raise ApiError(
        400,
        "invalid_prompt",
        "Expected `prompt` to be a string or a list of strings. Token ids belong to one model: name it.",
    )


async def decide(
    router: CompiledRouter, text: str, *, served: Collection[str], fallback: str | None, threads: Executor
) -> tuple[Decision, Array]:
    """Return where a text goes, and its token ids; out of the router's bounds it goes to ``fallback``, or nowhere.

    A long text is read in one of ``threads``.

    Raises:
        ApiError: if the text has no token.
    """
    start = time.perf_counter()
    try:
        if len(text) > _AT_ONCE:
            ids_T, route = await asyncio.get_running_loop().run_in_executor(threads, _read, router, text)
        else:
            ids_T, route = _read(router, text)
    except ValueError as error:
        raise ApiError(400, "nothing_to_route", f"{error} Name a model in the place of `auto`.") from None
    names = router.expert_names
    order = [names[i] for i in np.argsort(-route.scores, kind="stable").tolist() if names[i] in served]
    if route.expert is None:
        order = [fallback, *(name for name in order if name != fallback)] if fallback in served else []
    return Decision(order, names[route.expert_index], route, time.perf_counter() - start), ids_T


def why_none(route: Route, bounds: Bounds) -> str:
    """Return why none of the experts fits."""
    if route.none_because == "unusual":
        return f"the prompt is unusual for all of them: p-value {route.p_value:.3g} is not above {bounds.alarm:g}"
    return f"confidence {route.confidence:.3f} is below {bounds.threshold}"


def _read(router: CompiledRouter, text: str) -> tuple[Array, Route]:
    reading = router.read(text)
    return reading.ids_T, router.route_reading(reading)
