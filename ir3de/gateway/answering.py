"""A request from end to end: read, decided, asked of one expert after the other, and its answer passed on."""

import asyncio
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote

from aiohttp import web

from ir3de.gateway.answers import Ask, AskRefused, Endpoint, ExpertFailed, Reason, Stream, Whole
from ir3de.gateway.decision import Decision, decide, text_of, why_none
from ir3de.gateway.errors import ApiError
from ir3de.gateway.live_traffic import LiveTraffic
from ir3de.gateway.metrics import NOBODY, Metrics
from ir3de.gateway.reading import read_ask, read_object, request_id_of
from ir3de.gateway.relay import PIECE, relay, send
from ir3de.gateway.reports import Reports
from ir3de.gateway.roster import Roster
from ir3de.gateway.served import Member, Served
from ir3de.gateway.settings import AUTO, Limits
from ir3de.serving.traffic import USUAL

_LOG = logging.getLogger(__name__)


@dataclass
class Course:
    """How a request is going: who has been asked, and by which decision."""

    endpoint: Endpoint | Literal["route"]
    request_id: str
    deadline: float  # of the event loop's clock
    expert: str = NOBODY
    member: Member | None = None
    attempts: int = 0
    decision: Decision | None = None
    outcome: str = "gone"  # until something else has happened: the client went away
    started: float = field(default_factory=time.perf_counter)

    def headers(self) -> dict[str, str]:
        """Return what a client is told; names are percent-encoded where they have to be."""
        found = {"X-IR3DE-Attempts": str(self.attempts)}
        if self.expert:
            found["X-IR3DE-Expert"] = quote(self.expert)
        if self.decision is not None:
            found["X-IR3DE-First"] = quote(self.decision.first)
            found["X-IR3DE-Decision-Microseconds"] = f"{1e6 * self.decision.seconds:.1f}"
            if self.decision.route.confidence is not None:
                found["X-IR3DE-Confidence"] = f"{self.decision.route.confidence:.4f}"
            if self.decision.route.p_value is not None:
                found["X-IR3DE-P-Value"] = f"{self.decision.route.p_value:.6f}"
        return found


class Answering:
    """Answers requests from what the roster serves, and has prompts counted where the config says so."""

    def __init__(self, roster: Roster, metrics: Metrics, traffic: LiveTraffic) -> None:
        self._roster = roster
        self._metrics = metrics
        self._traffic = traffic
        self._reports = Reports(_LOG)
        # Of their own: many long prompts hold up neither what looks for hosts, nor reloads.
        self._threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decide")
        self._running = 0
        self.stopping = False

    @property
    def limits(self) -> Limits:
        """The limits as they are now: a reload changes them."""
        return self._roster.settings.limits

    @property
    def running(self) -> int:
        """The number of requests that are being answered."""
        return self._running

    async def answer(self, request: web.Request, endpoint: Endpoint) -> web.StreamResponse:
        """Answer a request of a client that may ask.

        Raises:
            ApiError: if as many are being answered as may be.
        """

        async def answer(course: Course) -> Whole | Stream:
            return await self._asked(await read_ask(request, endpoint, self.limits), course)

        return await self._answered(request, endpoint, answer)

    async def route(self, request: web.Request) -> web.StreamResponse:
        """Answer with the decision alone, which is not counted as live traffic.

        Raises:
            ApiError: if as many are being answered as may be.
        """

        async def route(course: Course) -> Whole:
            body, served = await read_object(request, self.limits), self._roster.served
            ask = Ask("chat/completions" if "messages" in body else "completions", body, course.request_id)
            return Whole(json.dumps((await self._decide(served, ask, counted=False)).as_dict(served.router)).encode())

        return await self._answered(request, "route", route)

    async def _answered(
        self,
        request: web.Request,
        endpoint: Endpoint | Literal["route"],
        find: Callable[[Course], Awaitable[Whole | Stream]],
    ) -> web.StreamResponse:
        """Send what ``find`` returns, or why there is nothing, within the limits until its last byte is on its way."""
        limits = self.limits
        course = Course(endpoint, request_id_of(request), asyncio.get_running_loop().time() + limits.total_seconds)
        with self._counted(course):
            try:
                try:
                    async with asyncio.timeout_at(course.deadline):
                        answer = await find(course)
                except TimeoutError:
                    raise ApiError(504, "timeout", f"No answer within {limits.total_seconds:g} s.") from None
                if isinstance(answer, Whole):
                    return await self._sent(request, answer.content, 200, course)
                async with aclosing(answer.rest):
                    return await self._streamed(request, answer, course)
            except AskRefused as refused:
                return await self._sent(request, refused.content, refused.status, course)
            except ApiError as error:
                course.outcome = str(error.status)
                response = error.response()
                response.headers.update(course.headers())
                return response

    async def _decide(self, served: Served, ask: Ask, *, counted: bool) -> Decision:
        """Return where a request for ``auto`` goes; ``counted`` says whether its prompt is live traffic.

        Raises:
            ApiError: if there is nothing to route on.
        """
        settings = self._roster.settings
        text = text_of(ask.body, ask.endpoint, settings.route_on)
        decision, ids_T = await decide(
            served.router, text, served=served.members, fallback=settings.fallback, threads=self._threads
        )
        self._metrics.decision_seconds.observe(decision.seconds)
        self._metrics.decisions.labels(decision.first).inc()
        p_value = decision.route.p_value
        if p_value is not None:
            if p_value < USUAL:
                self._metrics.unusual.labels(decision.first).inc()
            if counted and settings.traffic is not None:
                self._traffic.count(settings.traffic, served.router, ids_T, decision.route)
        return decision

    async def _asked(self, ask: Ask, course: Course) -> Whole | Stream:
        """Return the answer of the first expert that has one."""
        served = self._roster.served  # this one until the end, whatever changes meanwhile
        names = await self._names(served, ask, course)
        failed: Reason | None = None
        for name in names[: self.limits.attempts]:
            course.expert, course.member, course.attempts = name, served.members[name], course.attempts + 1
            if failed is not None:
                self._metrics.retries.inc()
            try:
                return await self._ask(served.members[name], ask)
            except ExpertFailed as error:
                self._failed(course, error)
                failed = error.reason
        assert failed is not None, "at least one expert was asked"
        if failed == "busy":
            raise ApiError(503, "expert_busy", f"The expert `{course.expert}` is busy.", retry_after=1)
        status = 504 if failed == "timeout" else 502
        asked = f"{course.attempts} experts" if course.attempts > 1 else f"the expert `{course.expert}`"
        raise ApiError(status, "expert_failed", f"No usable answer from {asked} (the last: {failed}).")

    async def _names(self, served: Served, ask: Ask, course: Course) -> list[str]:
        model = ask.body["model"]
        if model != AUTO:
            if model not in served.members:
                shown = ", ".join(sorted(served.members)[:20])
                raise ApiError(404, "model_not_found", f"There is no such model. There are: {AUTO}, {shown}.")
            return [model]
        course.decision = decision = await self._decide(served, ask, counted=True)
        if not decision.order:
            if decision.route.expert is None:
                why = why_none(decision.route, served.router.bounds)
                raise ApiError(422, "no_expert", f"None of the experts fits: {why}.")
            raise ApiError(503, "no_expert_served", "None of the router's experts is served.", retry_after=1)
        return served.in_turn(decision.order, time.monotonic())

    async def _ask(self, member: Member, ask: Ask) -> Whole | Stream:
        limits = self.limits
        try:
            async with asyncio.timeout(limits.answer_seconds):
                answer = await member.expert.answer(ask)
        except TimeoutError:
            raise ExpertFailed("timeout", f"no answer within {limits.answer_seconds:g} s") from None
        if isinstance(answer, Whole):  # a stream may still break off
            member.answered()
        return answer

    async def _sent(self, request: web.Request, content: bytes, status: int, course: Course) -> web.StreamResponse:
        short = len(content) <= PIECE  # then it goes with the head
        response = self._prepared(web.Response(body=content) if short else web.StreamResponse(), course)
        response.set_status(status)
        response.content_type = "application/json"
        if not short:
            response.content_length = len(content)
        silence = self.limits.silence_seconds
        with suppress(ConnectionError):  # the client is gone, which is no failure
            await send(request, response, b"" if short else content, silence=silence, deadline=course.deadline)
            course.outcome = str(status)
        return response

    async def _streamed(self, request: web.Request, answer: Stream, course: Course) -> web.StreamResponse:
        response = self._prepared(web.StreamResponse(), course)
        response.content_type = "text/event-stream"
        response.headers["Cache-Control"] = "no-cache"
        silence = self.limits.silence_seconds
        try:
            await relay(request, response, answer, silence=silence, deadline=course.deadline)
            course.outcome = "200"
            if course.member is not None:
                course.member.answered()
        except ExpertFailed as error:
            course.outcome = "broken off"
            self._failed(course, error)
        except ConnectionError:  # the client is gone, which is no failure
            pass
        return response

    def _failed(self, course: Course, error: ExpertFailed) -> None:
        name, limits = course.expert, self.limits
        self._metrics.failures.labels(name, error.reason).inc()
        sentence = f"the expert {name} failed: {error} (request {course.request_id})"
        self._reports.warn((name, error.reason), sentence)
        if error.speaks_against_it and course.member is not None and course.member.failed(time.monotonic(), limits):
            self._reports.warn((name, "rests"), f"the expert {name} is asked last for {limits.rest_seconds:g} s")

    def _prepared(self, response: web.StreamResponse, course: Course) -> web.StreamResponse:
        response.headers.update(course.headers())
        if self.stopping:
            response.force_close()
        return response

    @contextmanager
    def _counted(self, course: Course) -> Iterator[None]:
        limit = self.limits.running
        if self._running >= limit:
            self._metrics.requests.labels(course.endpoint, NOBODY, "503").inc()
            raise ApiError(503, "overloaded", f"{limit} requests are being answered already.", retry_after=1)
        self._running += 1
        self._metrics.running.inc()
        try:
            yield
        finally:
            self._running -= 1
            self._metrics.running.dec()
            self._metrics.requests.labels(course.endpoint, course.expert, course.outcome).inc()
            self._metrics.request_seconds.observe(time.perf_counter() - course.started)
