"""A request from end to end: read, decided, asked of one expert after the other, and its answer passed on."""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from urllib.parse import quote

from aiohttp import web

from ir3de.gateway.answers import Ask, AskRefused, Endpoint, ExpertFailed, Stream, Whole
from ir3de.gateway.decision import Decision, decide, text_of, why_none
from ir3de.gateway.errors import ApiError
from ir3de.gateway.live_traffic import LiveTraffic
from ir3de.gateway.metrics import NOBODY, Metrics
from ir3de.gateway.reading import read_ask
from ir3de.gateway.relay import relay
from ir3de.gateway.reports import Reports
from ir3de.gateway.roster import Roster
from ir3de.gateway.served import Served
from ir3de.gateway.settings import AUTO
from ir3de.serving.traffic import USUAL

_LOG = logging.getLogger(__name__)


@dataclass
class Course:
    """How a request is going: who has been asked, and by which decision."""

    endpoint: Endpoint
    request_id: str = ""
    expert: str = NOBODY
    attempts: int = 0
    decision: Decision | None = None
    outcome: str = "gone"  # until something else has happened: the client went away
    started: float = field(default_factory=time.perf_counter)

    def headers(self) -> dict[str, str]:
        """Return what a client is told; names are percent-encoded where they have to be."""
        found = {"X-Request-ID": self.request_id, "X-IR3DE-Attempts": str(self.attempts)}
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
        self._running = 0
        self.stopping = False

    @property
    def running(self) -> int:
        """The number of requests that are being answered."""
        return self._running

    async def answer(self, request: web.Request, endpoint: Endpoint) -> web.StreamResponse:
        """Answer a request of a client that may ask.

        Raises:
            ApiError: if there is no answer.
        """
        limits = self._roster.settings.limits
        course = Course(endpoint)
        with self._counted(course):
            try:
                deadline = asyncio.get_running_loop().time() + limits.total_seconds
                try:
                    async with asyncio.timeout_at(deadline):
                        ask = await read_ask(request, endpoint, limits)
                        course.request_id = ask.request_id
                        answer = await self._asked(ask, course)
                except TimeoutError:
                    raise ApiError(504, "timeout", f"No answer within {limits.total_seconds:g} s.") from None
                if isinstance(answer, Whole):
                    course.outcome = "200"
                    return self._response(answer.content, 200, course)
                async with aclosing(answer.rest):
                    return await self._streamed(request, answer, course, deadline)
            except AskRefused as refused:
                course.outcome = str(refused.status)
                return self._response(refused.content, refused.status, course)
            except ApiError as error:
                course.outcome = str(error.status)
                response = error.response()
                response.headers.update(course.headers())
                return response

    async def decide(self, served: Served, ask: Ask, *, counted: bool) -> Decision:
        """Return where a request for ``auto`` goes; ``counted`` says whether its prompt is live traffic.

        Raises:
            ApiError: if there is nothing to route on.
        """
        settings = self._roster.settings
        text = text_of(ask.body, ask.endpoint, settings.route_on)
        decision, ids_T = await decide(served.router, text, served=served.members, fallback=settings.fallback)
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
        failed: ExpertFailed | None = None
        for name in names[: self._roster.settings.limits.attempts]:
            course.expert, course.attempts = name, course.attempts + 1
            if failed is not None:
                self._metrics.retries.inc()
            try:
                return await self._ask(served, name, ask)
            except ExpertFailed as error:
                failed = error
        assert failed is not None, "at least one expert was asked"
        if failed.reason == "busy":
            raise ApiError(503, "expert_busy", f"The expert `{course.expert}` is busy.", retry_after=1)
        status = 504 if failed.reason == "timeout" else 502
        asked = f"{course.attempts} experts" if course.attempts > 1 else f"the expert `{course.expert}`"
        raise ApiError(status, "expert_failed", f"No usable answer from {asked} (the last: {failed.reason}).")

    async def _names(self, served: Served, ask: Ask, course: Course) -> list[str]:
        model = ask.body["model"]
        if model != AUTO:
            if model not in served.members:
                shown = ", ".join(sorted(served.members)[:20])
                raise ApiError(404, "model_not_found", f"There is no such model. There are: {AUTO}, {shown}.")
            return [model]
        course.decision = decision = await self.decide(served, ask, counted=True)
        if not decision.order:
            if decision.route.expert is None:
                why = why_none(decision.route, served.router.bounds)
                raise ApiError(422, "no_expert", f"None of the experts fits: {why}.")
            raise ApiError(503, "no_expert_served", "None of the router's experts is served.", retry_after=1)
        return served.in_turn(decision.order, time.monotonic())

    async def _ask(self, served: Served, name: str, ask: Ask) -> Whole | Stream:
        member, limits = served.members[name], self._roster.settings.limits
        try:
            try:
                async with asyncio.timeout(limits.answer_seconds):
                    answer = await member.expert.answer(ask)
            except TimeoutError:
                raise ExpertFailed("timeout", f"no answer within {limits.answer_seconds:g} s") from None
        except ExpertFailed as error:
            self._failed(name, error, ask.request_id)
            if error.reason != "busy" and member.failed(time.monotonic(), limits):
                _LOG.warning("the expert %s is asked last for %g s", name, limits.rest_seconds)
            raise
        member.answered()
        return answer

    async def _streamed(
        self, request: web.Request, answer: Stream, course: Course, deadline: float
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers=course.headers())
        response.content_type = "text/event-stream"
        response.headers["Cache-Control"] = "no-cache"
        self._close_if_stopping(response)
        silence = self._roster.settings.limits.silence_seconds
        try:
            await relay(request, response, answer, silence=silence, deadline=deadline)
            course.outcome = "200"
        except ExpertFailed as error:
            course.outcome = "broken off"
            self._failed(course.expert, error, course.request_id)
        except ConnectionError:  # the client is gone, which is no failure
            pass
        return response

    def _failed(self, name: str, error: ExpertFailed, request_id: str) -> None:
        self._metrics.failures.labels(name, error.reason).inc()
        self._reports.warn((name, error.reason), f"the expert {name} failed: {error} (request {request_id})")

    def _response(self, content: bytes, status: int, course: Course) -> web.Response:
        headers = course.headers()
        response = web.Response(body=content, status=status, content_type="application/json", headers=headers)
        self._close_if_stopping(response)
        return response

    def _close_if_stopping(self, response: web.StreamResponse) -> None:
        if self.stopping:
            response.force_close()

    @contextmanager
    def _counted(self, course: Course) -> Iterator[None]:
        limit = self._roster.settings.limits.running
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
