"""Several projects in one app: each below ``/p/NAME/``, with a page before them.

Every project has its own people, so somebody may lead the one and annotate the other. One login opens all projects in
which the name has that password; who is in one of them joins another by its invitation without a new password.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException as AnyHTTPException

from trivium.clients import Hosts
from trivium.errors import TriviumError
from trivium.feedback.accounts import TooManyTries
from trivium.feedback.database import FILE
from trivium.feedback.settings import FeedbackSettings
from trivium.feedback.store import Store
from trivium.feedback.texts import fault_words
from trivium.feedback.web import app as one
from trivium.feedback.web import files, session
from trivium.feedback.web.guard import Guard, Scope
from trivium.feedback.web.pages import Pages, language_of
from trivium.feedback.web.session import Name, Password
from trivium.feedback.web.visitors import COOKIE, mark_of, members_of


def projects_in(folder: Path) -> list[Path]:
    """The projects that lie in a folder that is none itself."""
    return [] if (folder / FILE).exists() else sorted(file.parent for file in folder.glob(f"*/{FILE}"))


def create_front(stores: Mapping[str, Store], address: str | None = None, hosts: frozenset[str] | None = None,
                 title: str = "Feedback") -> Several:
    """The app of several projects by their names. ``address`` and ``hosts`` are as for one."""
    projects = {name: one.create_app(store, f"{address.rstrip('/')}/p/{quote(name)}" if address else None, hosts)
                for name, store in stores.items()}
    for app in projects.values():
        app.state.others = projects
    front = FastAPI(title="Trivium feedback", docs_url=None, redoc_url=None)
    front.state.projects = projects
    front.state.pages = Pages(Titled(title))
    front.exception_handler(TriviumError)(_fault)
    front.exception_handler(AnyHTTPException)(_refused)
    if hosts is not None:
        front.add_middleware(Hosts, known=hosts, refusal=one.not_known)
    front.add_middleware(Guard)
    front.get("/", response_class=HTMLResponse)(projects_page)
    front.post("/login", response_class=HTMLResponse)(login)
    front.post("/language", response_class=HTMLResponse)(session.language)
    front.get("/static/{name}", include_in_schema=False)(files.static)
    front.get("/healthz")(files.healthz)
    return Several(front, projects)


class Titled:
    """What a page says of itself where it is no project's."""

    def __init__(self, title: str) -> None:
        self.settings = FeedbackSettings(title=title[:80] or "Feedback")


class Several:
    """ASGI: hands a request below ``/p/NAME/`` to that project as if it were alone, and puts the prefix before what the
    project sends people to. Each project's cookies have names of their own."""

    def __init__(self, front: FastAPI, projects: Mapping[str, FastAPI]) -> None:
        self.front, self.projects = front, projects

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        name, _, rest = scope.get("path", "").removeprefix("/p/").partition("/")
        if not scope.get("path", "").startswith("/p/") or name not in self.projects:
            await self.front(scope, receive, send)
            return
        root, mark = f"/p/{quote(name)}", mark_of(name)
        headers = [(key, _to_project(value, mark) if key == b"cookie" else value) for key, value in scope["headers"]]
        inside = {**scope, "path": f"/{rest}", "raw_path": quote(f"/{rest}").encode(), "headers": headers,
                  "state": {**scope.get("state", {}), "root": root, "every_cookie": Request(scope).cookies}}

        async def sending(message: Scope) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [(key, _from_project(key, value, root, mark))
                                                  for key, value in message["headers"]]}
            await send(message)
        await self.projects[name](inside, receive, sending)


def _to_project(cookies: bytes, mark: str) -> bytes:
    """The cookies of a request as a project knows them: its own, and those of all (the language, light or dark)."""
    kept = []
    for cookie in cookies.decode("latin-1").split(";"):
        name, _, value = cookie.strip().partition("=")
        if not name.startswith("trivium_"):
            kept.append(f"{name}={value}")
        elif name.endswith(mark):
            kept.append(f"{name.removesuffix(mark)}={value}")
    return "; ".join(kept).encode("latin-1")


def _from_project(key: bytes, value: bytes, root: str, mark: str) -> bytes:
    if key == b"location" and value.startswith(b"/") and not value.startswith(b"//"):
        return root.encode() + value
    if key == b"set-cookie" and value.startswith(b"trivium_"):
        name, _, rest = value.decode("latin-1").partition("=")
        return f"{name}{mark}={rest}".replace("Path=/lead", f"Path={root}/lead").encode("latin-1")
    return value


def projects_page(request: Request, message: str = "", name: str = "", status: int = 200) -> Response:
    """The visitor's projects, and the door where there is none."""
    pages: Pages = request.app.state.pages
    mine = []
    for project, (site, visitor) in members_of(request, request.app.state.projects).items():
        with site.store.state() as state:
            waiting = sum(len(queue) for queue in state.random.values())
            given = len(state.given.get(visitor.id, ()))
        mine.append({"root": f"/p/{quote(project)}", "title": site.store.settings.title, "project": project,
                     "visitor": visitor, "waiting": waiting, "given": given})
    return pages.page(request, "projects.html", status, mine=mine, name=name,
                      message=fault_words(language_of(request), message) if message else None)


def login(request: Request, name: Name, password: Password) -> Response:
    """Log in wherever the name has that password. That the form is ours is seen by where it comes from (``Guard``); it
    changes nothing but sessions of whoever sends it."""
    response = RedirectResponse("/", 303)
    opened, held = 0, 0
    for project, app in request.app.state.projects.items():
        try:
            token = app.state.site.accounts.login(name, password, session.address_of(request))
        except TooManyTries as error:
            held = max(held, error.seconds)
        except TriviumError:
            continue
        else:
            opened += 1
            response.set_cookie(COOKIE + mark_of(project), token, max_age=7 * 86_400, httponly=True, samesite="lax",
                                secure=request.url.scheme == "https")
    if opened:
        return response
    if held:
        raise TooManyTries(held)
    return projects_page(request, "the name or the password is wrong", name, 401)


def _fault(request: Request, error: TriviumError) -> Response:
    return projects_page(request, str(error), "", 429 if isinstance(error, TooManyTries) else 422)


def _refused(request: Request, error: AnyHTTPException) -> Response:
    return projects_page(request, str(error.detail), "", error.status_code)

