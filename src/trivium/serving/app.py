"""The server: the OpenAI API over sampling engines, a chat page, and where its feedback goes.

Whatever comes from a client is hostile. Bodies are bounded before they are read and checked before they are used. Every
fault is an error in OpenAI's form with the right status.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect

from trivium.clients import Hosts, names
from trivium.feedback.store import Store
from trivium.serving import chat_page, monitoring, openai_api, thumbs
from trivium.serving.errors import ApiError
from trivium.serving.metrics import Metrics
from trivium.serving.models import Encoder, Limits, Served
from trivium.serving.protocol import (
    REFERENCE,
    ChatRequest,
    Choice,
    CompletionRequest,
    EmbeddingRequest,
    Thumb,
    definitions,
)
from trivium.serving.responses import KEY, OUTSIDE, WHY, ChatChunk
from trivium.serving.service import Service
from trivium.version import __version__

HERE = names("localhost")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action "
    "'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'")
HEADERS = [(b"content-security-policy", POLICY.encode()), (b"x-content-type-options", b"nosniff"),
           (b"referrer-policy", b"no-referrer"), (b"cross-origin-opener-policy", b"same-origin"),
           (b"cross-origin-resource-policy", b"same-origin"),
           (b"permissions-policy", b"camera=(), microphone=(), geolocation=()")]


def create_app(models: Sequence[Served | Encoder], limits: Limits, keys: Sequence[str] = (),
               feedback: Callable[[], Store] | None = None, page: chat_page.Page | None = None,
               origins: Sequence[str] = (), hide_reasoning: bool = False,
               hosts: frozenset[str] | None = HERE) -> FastAPI:
    """The application. ``keys`` are the API keys that are accepted (none: everybody is); ``feedback`` opens the
    store at its first use (None: no thumbs and votes); ``page`` is what the chat page says of itself; ``origins`` are
    the sites whose pages may call the API from a browser; ``hide_reasoning`` keeps what models think before they answer
    from everybody; ``hosts`` are the names by which it may be asked where there are no keys (None: any)."""
    service = Service(models, limits, keys, feedback, hide_reasoning)
    app = FastAPI(title="Trivium", version=__version__, lifespan=_lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    app.state.page = page or chat_page.Page()
    app.exception_handler(ApiError)(_api_error)
    app.exception_handler(HTTPException)(_http_error)
    app.exception_handler(ClientDisconnect)(_gone)
    app.exception_handler(Exception)(_unexpected)
    if origins:
        app.add_middleware(_Origins, origins=origins)
    if hosts is not None and not keys:
        app.add_middleware(Hosts, known=hosts, refusal=lambda message: JSONResponse(
            ApiError(421, message, code="unknown_host").body, 421))
    app.add_middleware(_Outer, metrics=service.metrics)
    for topic in (openai_api, thumbs, monitoring, chat_page):  # the chat page takes every path that is left
        app.include_router(topic.router)
    plain_openapi = app.openapi

    def openapi() -> dict[str, Any]:
        """The description, with what the bodies refer to: routes read them by themselves, and FastAPI knows nothing of
        them."""
        document = plain_openapi()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas.update(definitions(ChatRequest, CompletionRequest, EmbeddingRequest, Thumb, Choice, ChatChunk))
        schemas[ChatChunk.__name__] = ChatChunk.model_json_schema(ref_template=REFERENCE)
        schemas[ChatChunk.__name__].pop("$defs")
        document["components"]["securitySchemes"] = KEY
        error = {"application/json": {"schema": {"$ref": REFERENCE.format(model="Error")}}}
        outside = {str(status): {"description": WHY[status], "content": error} for status in OUTSIDE}
        for operation in (one for operations in document["paths"].values() for one in operations.values()):
            operation["responses"].pop("422", None)  # a name in a path is any text
            operation["responses"] = outside | operation["responses"]
        return document

    app.openapi = openapi  # type: ignore[method-assign]
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    service.scheduler.start()
    yield
    await run_in_threadpool(service.close)


# faults


async def _api_error(_: Request, error: ApiError) -> Response:
    headers = {429: {"retry-after": "1"}, 401: {"www-authenticate": "Bearer"},
               408: {"x-should-retry": "false"}}.get(error.status)
    return JSONResponse(error.body, error.status, headers)


async def _http_error(_: Request, error: HTTPException) -> Response:
    return JSONResponse(ApiError(error.status_code, str(error.detail)).body, error.status_code, error.headers)


async def _gone(_: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=499)  # nobody is there to read it


async def _unexpected(_: Request, error: Exception) -> Response:
    return JSONResponse(ApiError(500, "the server failed; its log says why", "server_error").body, 500)


class _Origins:
    """Lets the pages of some sites call the API from a browser (CORS), and nothing else of the server."""

    def __init__(self, app: Any, origins: Sequence[str]) -> None:
        self.app = app
        self.api = CORSMiddleware(app, allow_origins=list(origins), allow_methods=["GET", "POST"],
                                  allow_headers=["*"], expose_headers=["retry-after"])

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        inside = scope["type"] == "http" and scope["path"].startswith("/v1/")
        await (self.api if inside else self.app)(scope, receive, send)


class _Outer:
    """Around everything: headers that keep browsers safe, and counts by status."""

    def __init__(self, app: Any, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["path"].startswith("/v1/"):  # a slash at the end is no other place: nobody is sent elsewhere
            scope = {**scope, "path": scope["path"].rstrip("/")}

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *HEADERS]
                route = getattr(scope.get("route"), "path", "other")
                self.metrics.add("trivium_requests_total", route=route, status=str(message["status"]))
            await send(message)

        await self.app(scope, receive, sending)
