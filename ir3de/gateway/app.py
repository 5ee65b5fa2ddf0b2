"""The gateway's interface: who may call what, and what is called."""

import logging
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from ir3de.gateway.admin import Admin
from ir3de.gateway.answering import Answering
from ir3de.gateway.answers import Endpoint
from ir3de.gateway.errors import ApiError, json_response
from ir3de.gateway.keys import Keys
from ir3de.gateway.metrics import Metrics
from ir3de.gateway.reading import request_id_of
from ir3de.gateway.roster import Roster
from ir3de.gateway.settings import AUTO

_LOG = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Interface:
    """The endpoints that clients call.

    Args:
        roster: What is served.
        answering: Answers requests.
        metrics: What Prometheus is told.
        keys: Who may call.
    """

    def __init__(self, roster: Roster, answering: Answering, metrics: Metrics, keys: Keys) -> None:
        self._roster = roster
        self._answering = answering
        self._metrics = metrics
        self._keys = keys
        self._since = int(time.time())

    def routes(self) -> list[web.RouteDef]:
        """Return the endpoints."""
        client = self._for_clients
        return [
            web.post("/v1/chat/completions", client(self._completions("chat/completions"))),
            web.post("/v1/completions", client(self._completions("completions"))),
            web.post("/v1/route", client(self._answering.route)),
            web.get("/v1/models", client(self._models)),
            web.get("/v1/models/{name:.+}", client(self._model)),
            web.get("/metrics", client(self._metrics_text)),
            web.get("/health", self._health),
        ]

    def _for_clients(self, handler: Handler) -> Handler:
        async def checked(request: web.Request) -> web.StreamResponse:
            if not self._keys.is_client(request.headers.get("Authorization")):
                raise ApiError(401, "invalid_api_key", "Expected `Authorization: Bearer KEY` with a key that is known.")
            return await handler(request)

        return checked

    def _completions(self, endpoint: Endpoint) -> Handler:
        async def completions(request: web.Request) -> web.StreamResponse:
            return await self._answering.answer(request, endpoint)

        return completions

    async def _models(self, request: web.Request) -> web.Response:
        names = [AUTO, *sorted(self._roster.served.members)]
        return json_response({"object": "list", "data": [self._described(name) for name in names]})

    async def _model(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name != AUTO and name not in self._roster.served.members:
            raise ApiError(404, "model_not_found", "There is no such model.")
        return json_response(self._described(name))

    def _described(self, name: str) -> dict[str, object]:
        return {"id": name, "object": "model", "created": self._since, "owned_by": "ir3de"}

    async def _metrics_text(self, request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": self._metrics.content_type})

    async def _health(self, request: web.Request) -> web.Response:
        if not self._roster.served.members or self._answering.stopping:
            return json_response({"status": "no expert is served"}, status=503)
        return json_response({"status": "ok"})


def build_app(interface: Interface, admin: Admin) -> web.Application:
    """Return the application: clients' endpoints, admins' endpoints, and every error as JSON."""
    app = web.Application(middlewares=[_errors])
    app.add_routes([*interface.routes(), *admin.routes()])
    app.on_response_prepare.append(_sign)
    return app


async def _sign(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "ir3de"  # in the place of what runs here, in which version
    response.headers["X-Request-ID"] = request_id_of(request)


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ApiError as error:
        return error.response()
    except web.HTTPException as error:
        code = error.reason.lower().replace(" ", "_")
        response = ApiError(error.status, code, f"There is no {request.method} {request.path} here.").response()
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except (ConnectionError, TimeoutError):
        raise
    except Exception:
        _LOG.exception("a request failed")
        return ApiError(500, "internal_error", "The gateway failed; its log says why.").response()
