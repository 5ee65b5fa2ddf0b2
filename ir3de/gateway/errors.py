"""What a client is told when it gets no answer, in the shape that OpenAI's clients understand."""

import json
from typing import Any

from aiohttp import web

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """Ends a request with ``status`` and a sentence; ``code`` is for programs."""

    def __init__(self, status: int, code: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after = retry_after

    def as_dict(self) -> dict[str, Any]:
        """Return the error as OpenAI's clients read it."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": None, "code": self.code}}

    def content(self) -> bytes:
        """Return the error as JSON."""
        return json.dumps(self.as_dict()).encode()

    def response(self) -> web.Response:
        """Return the error as an answer."""
        response = json_response(self.as_dict(), status=self.status)
        if self.retry_after is not None:
            response.headers["Retry-After"] = str(self.retry_after)
        if self.status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        return response

    def event(self) -> bytes:
        """Return the error as an event of a stream that has begun."""
        return b"data: " + self.content() + b"\n\n"


def json_response(value: Any, *, status: int = 200) -> web.Response:
    """Return a value as JSON."""
    return web.Response(body=json.dumps(value).encode(), status=status, content_type="application/json")
