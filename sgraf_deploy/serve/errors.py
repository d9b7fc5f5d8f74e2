"""The one shape of every error: `{"error": {"message", "type", "param", "code"}, "detail"}`."""

from __future__ import annotations

import logging
import traceback
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.exceptions import MethodNotAllowedException as LitestarMethodError

from sgraf_deploy.errors import SgrafDeployError
from sgraf_deploy.serve.calls import (
    FailedError,
    MalformedError,
    MethodError,
    NotFoundError,
    RequestError,
)

JSON = "application/json"
GONE = 499
"""The status that is counted for a client that left; nobody receives it."""

log = logging.getLogger(__name__)


class ClientGoneError(Exception):
    """The client left before it was answered."""


def error_body(error: RequestError) -> bytes:
    """The JSON of an error; `detail`, which Jina's clients read, is its message again."""
    message = str(error)
    told = {"message": message, "type": error.kind, "param": error.param, "code": error.code}
    return msgspec.json.encode({"error": told, "detail": message})


def error_response(error: RequestError) -> Response[bytes]:
    """The answer to a request that is refused."""
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(error_body(error), status_code=error.status, media_type=JSON, headers=headers)


def on_request_error(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer a request that was refused on purpose."""
    if isinstance(error, RequestError):
        return error_response(error)
    return on_unexpected(_, error)


def on_http_error(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer what the framework itself refuses: routes, methods, bodies."""
    if not isinstance(error, HTTPException):
        return on_unexpected(request, error)
    status = error.status_code
    if isinstance(error, LitestarMethodError):
        response = error_response(MethodError("this route does not take the method"))
        for name, value in (error.headers or {}).items():
            if name.lower() == "allow":
                response.headers[name.lower()] = value
        return response
    if status == NotFoundError.status:
        hint = "the routes are listed at /openapi.json"
        return error_response(NotFoundError("there is no such route", hint=hint, code="no_route"))
    if status < 500:
        return error_response(MalformedError("the request cannot be read"))
    return on_unexpected(request, error)


def on_failure(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer a request upon which the engine or the gallery failed."""
    log.error("%s: %s", type(error).__name__, _places(error))
    what = "the request could not be answered"
    return error_response(FailedError(what, got=type(error).__name__, retry_after_s=1.0))


def on_gone(_: Request[Any, Any, Any], __: Exception) -> Response[bytes]:
    """Count a client that left."""
    return Response(b"", status_code=GONE, media_type=JSON)


def on_unexpected(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer a defect, and log where it happened; what it says may hold a payload."""
    log.error("unexpected %s: %s", type(error).__name__, _places(error))
    return error_response(RequestError("an unexpected error, which the server's log describes"))


HANDLERS: Any = {
    RequestError: on_request_error,
    HTTPException: on_http_error,
    SgrafDeployError: on_failure,
    ClientGoneError: on_gone,
    Exception: on_unexpected,
}
"""By what is raised; the framework looks for the nearest class."""


def _places(error: BaseException) -> str:
    """Files, lines and functions of a traceback, without messages."""
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(frames))
