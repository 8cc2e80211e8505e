"""The chat page: its files, and what it must know of the server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from trivium.artifacts import kinds_behind
from trivium.generation.sampling import usual_temperature
from trivium.serving.errors import ApiError
from trivium.serving.responses import Settings, told
from trivium.serving.service import TheService

MARKDOWN = "markdown.js"
"""What draws answers: the annotation app has it, and this page takes it from there."""

STATIC = {
    "": ("chat.html", "text/html"), "chat.css": ("chat.css", "text/css"), "chat.js": ("chat.js", "text/javascript"),
    "words.js": ("words.js", "text/javascript"), "chats.js": ("chats.js", "text/javascript"),
    "markdown.js": (MARKDOWN, "text/javascript"), "icon.svg": ("icon.svg", "image/svg+xml")
}
"""File and media type of each path."""

TOWN = ("What kind of work does Morira have?",
        "Is this review positive or negative? I found the bill low and we thought the table was cosy.",
        "Tell me what Gilira most likes to eat.")
"""What may be asked of a model that has read of the embedded world, which speaks English."""


@dataclass(frozen=True)
class Page:
    """What the chat page says of itself."""

    title: str = "Trivium"
    """The name at its top and in the browser's tab."""
    greeting: str = ""
    """What it says before the first message; empty for its own words."""
    ideas: Sequence[str] = ()
    """Messages that are offered for a start."""
    from_scratch: bool = False
    """Whether all of its models are known to have begun with random weights here."""

    @classmethod
    def of(cls, folders: Sequence[Path], title: str = "", greeting: str = "", ideas: Sequence[str] = ()) -> Page:
        """The page of some models' folders. Nothing is said of a model but what its manifests show."""
        behind = [kinds_behind(folder) for folder in folders]
        if not ideas and behind and all("world" in kinds for kinds in behind):
            ideas = TOWN
        return cls(title or "Trivium", greeting, tuple(ideas), all("pretrain" in kinds for kinds in behind))


router = APIRouter()


@router.get("/settings.json", responses=told(Settings))
async def settings(request: Request, service: TheService) -> Response:
    page: Page = request.app.state.page
    largest = max(service.models.values(), key=lambda model: model.parameters, default=None)
    return JSONResponse({
        "key_needed": service.needs_key, "feedback": service.feedback is not None, "title": page.title,
        "greeting": page.greeting, "ideas": list(page.ideas), "from_scratch": page.from_scratch,
        "temperature": largest.temperature if largest else usual_temperature(0)
    })


@router.get("/", response_class=HTMLResponse)
async def front() -> Response:
    return await static("")


@router.get("/{name}", include_in_schema=False)
async def static(name: str) -> Response:
    if name not in STATIC:
        raise ApiError(404, f"there is no page {name[:80]!r} here")
    return Response(_content(name), media_type=STATIC[name][1], headers={"cache-control": "no-cache"})


@cache
def _content(name: str) -> bytes:
    package = "trivium.feedback" if STATIC[name][0] == MARKDOWN else "trivium.serving"
    return resources.files(package).joinpath("static", STATIC[name][0]).read_bytes()
