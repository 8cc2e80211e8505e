"""Who may use the studio, and what stands around every answer of it.

Whoever may start a recipe may run code on this machine, since recipes name code. So requests must name this machine and
come from its own pages; and where the studio is reached from elsewhere, they need its key.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any

from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from trivium.feedback.web.guard import same_origin

COOKIE = "trivium_studio"
MOST_BYTES = 2_000_000
"""What a request may hold that is no upload."""
LARGEST_UPLOAD = 2_000_000_000
"""What an uploaded file may hold."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'")
REPORT_POLICY = ("sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
                 "img-src data:; base-uri 'none'; frame-ancestors 'none'")
"""For reports, which are one file with all in it: it runs apart from the studio, and reaches nothing."""
HEADERS = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer",
           "cross-origin-opener-policy": "same-origin", "cross-origin-resource-policy": "same-origin",
           "permissions-policy": "camera=(), microphone=(), geolocation=()", "cache-control": "no-store"}
OPEN = ("/login", "/studio.css", "/login.js", "/words.js", "/dom.js", "/icon.svg")
"""What is answered without the key."""

Scope = MutableMapping[str, Any]


class Guard:
    """ASGI middleware: headers for every answer; refuses posts from other sites (403), bodies that are too large (413),
    and, where there is a ``key``, requests without it (401)."""

    def __init__(self, app: Callable[[Scope, Any, Any], Awaitable[None]], key: str = "") -> None:
        self.app, self.key = app, key

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])

        async def sending(message: Scope) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                extra = HEADERS | ({} if b"content-security-policy" in present else
                                   {"content-security-policy": POLICY})
                message = {**message, "headers": [*message["headers"], *(
                    (name.encode(), value.encode()) for name, value in extra.items() if name.encode() not in present)]}
            await send(message)

        refused = self.refusal(scope, headers)
        if refused is not None:
            await refused(scope, receive, sending)
        else:
            most = LARGEST_UPLOAD if scope["path"] == "/api/files" else MOST_BYTES
            await self.app(scope, Counted(receive, most).receive, sending)

    def refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> JSONResponse | None:
        """The answer to a request that is not let in; None for one that is."""
        if scope["method"] != "GET" and not same_origin(headers):
            return JSONResponse({"error": "the request comes from another site"}, 403, {"connection": "close"})
        if self.key and scope["path"] not in OPEN and not self.knows(headers):
            if scope["method"] == "GET" and not scope["path"].startswith("/api/"):
                return JSONResponse({"error": "sign in first"}, 303, {"location": "/login"})
            return JSONResponse({"error": "sign in first"}, 401, {"connection": "close"})
        return None

    def knows(self, headers: dict[bytes, bytes]) -> bool:
        """Whether a request carries the key."""
        try:
            cookie = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(cookie.value.encode(), self.key.encode())


class Counted:
    """A request's body on its way in, counted."""

    def __init__(self, receive: Any, most: int) -> None:
        self.inner, self.most, self.size = receive, most, 0

    async def receive(self) -> Any:
        """The next message. Raises 413 once the body is too large."""
        message = await self.inner()
        self.size += len(message.get("body", b""))
        if self.size > self.most:
            raise HTTPException(413, f"a request may hold {self.most:,} bytes", {"connection": "close"})
        return message
