"""The control API: one application over the service, and every error in one shape.

Synchronous throughout: each request runs in a thread of FastAPI's pool, outside the event loop.
"""

from __future__ import annotations

import importlib.metadata
import logging
import re
from collections.abc import Callable, Iterable
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ops import errors
from ops.api import cost, health, ledger, models, people, policies, releases
from ops.api.authentication import Served
from ops.api.docs_page import page
from ops.api.shapes import SENTENCES, ErrorShape
from ops.api.uploads import Uploads
from ops.problems import NOWHERE, Problem
from ops.service.service import Service
from serve.errors import ArtifactError, ServeError

PREFIX = "/api/v1"
MAX_BODY_BYTES = 1 << 20
UPLOAD_PATH = re.compile(rf"{PREFIX}/models/[^/]+/versions")
# The status of every error class; a derived class without an own status has that of its base.
STATUS: dict[type[Exception], int] = {
    errors.NotAuthenticated: 401,
    errors.NotAllowed: 403,
    errors.UploadBroken: 408,
    errors.NotFound: 404,
    errors.UnknownVersion: 404,
    errors.Conflict: 409,
    errors.VersionInUse: 409,
    errors.ReleaseError: 409,
    errors.UnknownRelease: 404,
    errors.Invalid: 422,
    errors.BadModelName: 422,
    errors.PolicyError: 422,
    ArtifactError: 422,
    errors.ArtifactStoreError: 422,
    errors.StoreUnavailable: 503,
    errors.DatabaseUnavailable: 503,
    errors.DatabaseIncompatible: 503,
    errors.NotReady: 503,
    errors.NotRunning: 503,
    errors.OpsError: 500,
    ServeError: 500,
}

Check = Callable[[], None]

logger = logging.getLogger(__name__)


def create_app(
    service: Service,
    *,
    extra_routers: Iterable[APIRouter] = (),
    readiness: Iterable[Check] = (),
    uploads: Uploads | None = None,
) -> FastAPI:
    """Create the application.

    Args:
        extra_routers: Routers to serve under ``PREFIX``, alongside those of this package.
        readiness: Checks of ``/readyz`` besides the database; each raises an ``OpsError`` with
            the reason if the platform is not ready.
        uploads: Limits for uploads; None applies the defaults.
    """
    app = FastAPI(
        title="bertstream",
        version=importlib.metadata.version("bertstream"),
        openapi_url=f"{PREFIX}/openapi.json",
        # Both pages would load scripts from other sites.
        docs_url=None,
        redoc_url=None,
        # A redirect would be a response without the shape of our errors.
        redirect_slashes=False,
    )
    app.state.service = service
    app.state.uploads = uploads or Uploads()
    app.add_middleware(BodyLimit, max_bytes=MAX_BODY_BYTES, uploads=app.state.uploads)
    _handle_errors(app)
    own = (
        models.router,
        policies.router,
        releases.router,
        people.router,
        ledger.router,
        health.router,
        cost.router,
    )
    responses: dict[int | str, dict[str, Any]] = {
        "4XX": {"model": ErrorShape, "description": "Refused; the message shows what to do."},
        "5XX": {"model": ErrorShape, "description": "Cannot be done now; 503 can be retried."},
    }
    for router in (*own, *extra_routers):
        app.include_router(router, prefix=PREFIX, responses=responses)
    app.include_router(_health(tuple(readiness)))

    @app.get(f"{PREFIX}/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(page(app.openapi()))

    return app


class BodyLimit:
    """Refuses bodies that are too large before they are in memory."""

    def __init__(self, app: ASGIApp, max_bytes: int, uploads: Uploads) -> None:
        self._app, self._max_bytes, self._uploads = app, max_bytes, uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the received bytes, independently of the declared length."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        max_bytes, sentence = self._bound(scope)
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        is_whole = length == b"0" and b"transfer-encoding" not in headers
        seen = 0

        async def counted() -> Message:
            nonlocal seen, is_whole
            message = await receive()
            seen += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if seen > max_bytes:
                raise HTTPException(413, sentence)
            return message

        async def closing(message: Message) -> None:
            # A client that is still sending need not send the rest.
            if message["type"] == "http.response.start" and not is_whole:
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        if length.isdigit() and int(length) <= max_bytes:
            await self._app(scope, counted, closing)
        else:
            await _body(413, "TooLarge", sentence)(scope, receive, closing)

    def _bound(self, scope: Scope) -> tuple[int, str]:
        if scope["method"] == "POST" and UPLOAD_PATH.fullmatch(scope["path"]):
            return self._uploads.max_bytes, self._uploads.bound()
        return self._max_bytes, f"a request has at most {self._max_bytes:,} bytes"


def _health(readiness: tuple[Check, ...]) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="The process is alive")
    async def healthz() -> dict[str, bool]:
        return {"alive": True}

    @router.get("/readyz", summary="The service is ready for requests")
    def readyz(service: Served) -> dict[str, bool]:
        for check in (service.require_database, *readiness):
            check()
        return {"ready": True}

    return router


def _handle_errors(app: FastAPI) -> None:
    async def ours(_request: Request, error: Exception) -> JSONResponse:
        status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
        problems = [*getattr(error, "problems", ())]
        return _body(status, type(error).__name__, str(error), problems)

    async def malformed(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        problems = [_problem(found) for found in error.errors()]
        listed = "; ".join(f"{_last(found.path)}: {found.message}" for found in problems)
        return _body(422, "Invalid", f"the request cannot be read: {listed}", problems)

    async def of_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        kind, message = "Refused", str(error.detail)
        if error.status_code == 404:
            kind, message = "NotFound", f"there is no {request.url.path}; see {PREFIX}/docs"
        return _body(error.status_code, kind, message)

    async def unexpected(_request: Request, _error: Exception) -> JSONResponse:
        # The server logs the error with its traceback, which the caller must not see.
        message = "an internal error occurred; see the platform's log for the reason"
        return _body(500, "InternalError", message)

    app.add_exception_handler(errors.OpsError, ours)
    app.add_exception_handler(ServeError, ours)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(Exception, unexpected)


def _problem(error: dict[str, Any]) -> Problem:
    """Return the problem without the value that was sent, which may be secret."""
    path = ".".join(str(step) for step in error["loc"])
    pattern = error.get("ctx", {}).get("pattern")
    return Problem(*NOWHERE, path, SENTENCES.get(pattern, error["msg"]))


def _last(path: str) -> str:
    """Return the path without its first part, which names the part of the request."""
    return path.partition(".")[2] or path


def _body(status: int, kind: str, message: str, problems: Iterable[Problem] = ()) -> JSONResponse:
    content = ErrorShape(error=kind, message=message, problems=list(problems))
    headers = {"www-authenticate": "Bearer"} if status == 401 else None
    return JSONResponse(content.model_dump(), status_code=status, headers=headers)
