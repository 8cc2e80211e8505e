"""The chat page: its files, and what it must know of the server."""

from __future__ import annotations

from functools import cache
from importlib import resources

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from trivium.serving.protocol import ApiError
from trivium.serving.service import TheService

STATIC = {
    "": ("chat.html", "text/html"), "chat.css": ("chat.css", "text/css"), "chat.js": ("chat.js", "text/javascript"),
    "words.js": ("words.js", "text/javascript"), "icon.svg": ("icon.svg", "image/svg+xml")
}
"""File and media type of each path."""

router = APIRouter()


@router.get("/settings.json")
async def settings(service: TheService) -> Response:
    return JSONResponse({"key_needed": service.needs_key, "feedback": service.feedback is not None})


@router.get("/")
@router.get("/{name}", include_in_schema=False)
async def static(name: str = "") -> Response:
    if name not in STATIC:
        raise ApiError(404, f"there is no page {name[:80]!r} here")
    return Response(_content(name), media_type=STATIC[name][1], headers={"cache-control": "no-cache"})


@cache
def _content(name: str) -> bytes:
    return resources.files("trivium.serving").joinpath("static", STATIC[name][0]).read_bytes()
