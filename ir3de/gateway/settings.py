"""The keys of ``serve``: the router, where the experts are, what is routed, and the limits."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from ir3de.serving.window import Window

AUTO = "auto"
RouteOn = Literal["user", "last_user", "all"]
_LONGEST_NAME = 128
_LAST_PORT = 65_535
_HOST = re.compile(r"[\w.:%-]+")  # a name or an address, of version 6, too


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """An endpoint that speaks OpenAI's interface.

    Args:
        url: Its address, up to and with `/v1`.
        key_env: The environment variable that holds its key; without one, no key is sent.
    """

    url: str
    key_env: str | None = None

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            known = parts.port != 0 and parts.scheme in ("http", "https") and _HOST.fullmatch(parts.hostname or "")
        except ValueError:  # a port that is no number, or out of range
            known = None
        if not known:
            raise ValueError("Expected an upstream's url to be http://HOST[:PORT]/v1 or https://…, but got another.")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError(
                f"Expected the url of the upstream at {parts.hostname} to have no user, password, query or fragment."
                " Put its key into the environment, and name the variable in `key_env`."
            )


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an expert is: a model of an upstream, or a model that is loaded here.

    Args:
        upstream: The name of one of `upstreams`.
        model: What the upstream calls it, an adapter's name for example; the expert's own name, if not given.
        local: Where its weights are: anything that `experts.bank` takes.
    """

    upstream: str | None = None
    model: str | None = None
    local: str | None = None

    def __post_init__(self) -> None:
        if (self.upstream is None) == (self.local is None):
            raise ValueError(
                f"Expected an expert to have either `upstream` or `local`, but got {self.upstream} and {self.local}."
            )
        if self.local is not None and self.model is not None:
            raise ValueError(f"`model` is a name at an upstream, but `{self.local}` is local. Leave `model` out.")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request, and all of them together, may take.

    Args:
        running: Requests at a time; one more is told to come again in a second (503).
        body_bytes: Of a request.
        answer_bytes: Of an answer in one piece, and of each event of a stream.
        attempts: Experts that are asked for one `auto` request, until one answers.
        body_seconds: Until a request has arrived whole.
        connect_seconds: Until an upstream accepts the connection.
        answer_seconds: Until an expert has begun to stream, or, without streaming, has answered.
        silence_seconds: Between two pieces of a stream, from the expert and to the client.
        total_seconds: For a request, from its first byte to the answer's last.
        rest_after: Failures in a row after which, and after each one more, an expert is asked last ...
        rest_seconds: ... for so long.
        stop_seconds: For running requests to end when the gateway is stopped.
    """

    running: int = 512
    body_bytes: int = 1 << 20
    answer_bytes: int = 8 << 20
    attempts: int = 3
    body_seconds: float = 30.0
    connect_seconds: float = 5.0
    answer_seconds: float = 120.0
    silence_seconds: float = 60.0
    total_seconds: float = 600.0
    rest_after: int = 3
    rest_seconds: float = 10.0
    stop_seconds: float = 60.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            _check_above_zero(f"limits.{name}", value)


@dataclass(frozen=True, kw_only=True)
class LocalSettings:
    """How local experts are loaded and asked.

    Args:
        dtype: The precision in which they are loaded.
        device: `cpu`, `cuda`, `cuda:1`, `mps`; `auto` is the first GPU, if there is one.
        tokenizer: The tokenizer of weights that come without one.
        max_tokens: New tokens of a request that does not say how many.
        waiting: Requests that wait for one model; it answers one at a time. One more goes to the next-best expert.
    """

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = "auto"
    tokenizer: str | None = None
    max_tokens: int = 256
    waiting: int = 64

    def __post_init__(self) -> None:
        _check_above_zero("local.max_tokens", self.max_tokens)
        if self.waiting < 0:
            raise ValueError(f"Expected `local.waiting` to be 0 or more, but got {self.waiting}.")


@dataclass(frozen=True, kw_only=True)
class GatewaySettings:
    """The gateway's config.

    Args:
        router: The router's folder: a saved one (compiled when that is needed), or a compiled one. Or the hub's
            `owner/name` or `owner/name@revision`, which is not watched.
        upstreams: Endpoints by name.
        experts: Where each expert is, by name.
        others: Where those experts of the router are that `experts` does not name: their names are models of this
            upstream, or folders in this local one.
        route_on: What of a conversation is routed: the user's messages, the last one of them, or all messages.
        window: What is read of a longer prompt, to route it; everything, if not given.
        threshold: Below this confidence none of the experts is right ...
        alarm: ... and with this p-value or a lower one the prompt is unusual for all of them; 0 just tells the p-value.
        fallback: Who answers then; without it the request is refused (422).
        traffic: The folder where prompts for `auto` are counted for the watch over drift, without their text.
        traffic_seconds: How often the counts are written there; they are written at the stop, too.
        host: The address to listen on.
        port: The port to listen on.
        open_to_all: Whether to listen beyond this machine without client keys.
        watch_seconds: How often to look whether the router has changed on disk.
        limits: What requests may take.
        local: How local experts are loaded and asked.
    """

    router: str
    upstreams: dict[str, Upstream] = field(default_factory=dict)
    experts: dict[str, Place] = field(default_factory=dict)
    others: Place | None = None
    route_on: RouteOn = "user"
    window: Window | None = None
    threshold: float | None = None
    alarm: float | None = None
    fallback: str | None = None
    traffic: str | None = None
    traffic_seconds: float = 60.0
    host: str = "127.0.0.1"
    port: int = 8080
    open_to_all: bool = False
    watch_seconds: float = 1.0
    limits: Limits = field(default_factory=Limits)
    local: LocalSettings = field(default_factory=LocalSettings)

    def __post_init__(self) -> None:
        for name, place in self.experts.items():
            check_expert(name, place, self.upstreams)
        if self.others is not None:
            check_expert("others", self.others, self.upstreams)
            if self.others.model is not None:
                raise ValueError(
                    "Expected `others` to have no `model`: each of the other experts is asked for by its own name."
                )
        if not self.experts and self.others is None:
            raise ValueError("Expected `experts` or `others` to say where the experts are, but got neither.")
        if self.fallback is not None and self.threshold is None and not self.alarm:  # with 0 nothing is unusual
            raise ValueError(
                f"The fallback `{self.fallback}` is for what is below a threshold, or unusual. Set `threshold`, or"
                " `alarm` above 0, too."
            )
        if self.traffic is not None and not self.traffic.strip():
            raise ValueError(
                f"Expected `traffic` to be a folder, but got {self.traffic!r}. Name one (`.` is the current folder), or"
                " leave `traffic` out to count nothing."
            )
        for name in ("watch_seconds", "traffic_seconds"):
            _check_above_zero(name, getattr(self, name))
        if not 0 <= self.port <= _LAST_PORT:
            raise ValueError(f"Expected `port` to be from 0 (any that is free) to {_LAST_PORT}, but got {self.port}.")

    @property
    def alarm_level(self) -> float | None:
        """The level of the alarm that the router is loaded with: prompts are counted with one, too."""
        return 0.0 if self.alarm is None and self.traffic is not None else self.alarm


def check_expert(name: str, place: Place, upstreams: Mapping[str, Upstream]) -> None:
    """Refuse a name that cannot be asked for, and an upstream that the config does not have.

    Raises:
        ValueError: naming it.
    """
    if not name or name == AUTO or len(name) > _LONGEST_NAME or not name.isprintable():
        raise ValueError(
            f"Expected an expert's name of 1 to {_LONGEST_NAME} printable characters, not `{AUTO}`, but got {name!r}."
        )
    if place.upstream is not None and place.upstream not in upstreams:
        raise ValueError(
            f"Expected the upstream of `{name}` to be one of {sorted(upstreams)}, but got `{place.upstream}`."
            " Upstreams come from the config alone."
        )


def _check_above_zero(name: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"Expected `{name}` to be a number above 0, but got {value}.")
