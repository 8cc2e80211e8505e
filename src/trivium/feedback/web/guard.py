"""What stands around the whole app: the headers of every answer, and limits on every request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

MOST_BYTES = 2_000_000
"""What a request may hold."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'")
HEADERS = {"content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "same-origin",
           "cross-origin-opener-policy": "same-origin", "cross-origin-resource-policy": "same-origin",
           "permissions-policy": "camera=(), microphone=(), geolocation=()", "x-frame-options": "DENY"}

Scope = MutableMapping[str, Any]


class Guard:
    """ASGI middleware: adds :data:`HEADERS` to every answer, refuses bodies over :data:`MOST_BYTES` (413) and POSTs
    that come from another site (403)."""

    def __init__(self, app: Callable[[Scope, Any, Any], Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = _Body(receive)

        async def sending(message: Scope) -> None:
            await send(_with_headers(message) if message["type"] == "http.response.start" else message)

        if scope["method"] == "POST" and not same_origin(dict(scope["headers"])):
            await body.drain({"more_body": True})
            refused = JSONResponse({"error": "the request comes from another site"}, 403, {"connection": "close"})
            await refused(scope, receive, sending)
        else:
            await self.app(scope, body.receive, sending)


class _Body:
    """A request's body on its way in, counted."""

    def __init__(self, receive: Any) -> None:
        self._receive, self._size = receive, 0

    async def receive(self) -> Any:
        """The next message; raises 413 once the body is too large."""
        message = await self._next()
        if self._size > MOST_BYTES:
            await self.drain(message)
            raise HTTPException(413, f"a request may hold {MOST_BYTES:,} bytes", {"connection": "close"})
        return message

    async def drain(self, message: Any) -> None:
        """Read what is still being sent, within reason: who sends would not see the answer."""
        while message.get("more_body") and self._size < 16 * MOST_BYTES:
            message = await self._next()

    async def _next(self) -> Any:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        return message


def _with_headers(message: Scope) -> Scope:
    """The start of an answer with the headers of all answers. Nothing is stored by browsers unless a route says so."""
    present = {name for name, _ in message["headers"]}
    extra = HEADERS | ({} if b"cache-control" in present else {"cache-control": "no-store"})
    return {**message, "headers": [*message["headers"], *((k.encode(), v.encode()) for k, v in extra.items())]}


def same_origin(headers: dict[bytes, bytes]) -> bool:
    """Whether a POST comes from a page of ours: browsers name the origin of every POST, and one from elsewhere is
    refused, whatever cookies it carries."""
    if headers.get(b"sec-fetch-site", b"same-origin") not in (b"same-origin", b"none"):
        return False
    origin = headers.get(b"origin")
    return origin is None or origin.partition(b"://")[2] == headers.get(b"host")
