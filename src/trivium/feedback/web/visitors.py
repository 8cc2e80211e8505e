"""Who asks: what every route may depend on."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, FastAPI, Form, Header, HTTPException, Request

from trivium.feedback.accounts import Accounts, Visitor
from trivium.feedback.catalogue import Catalogue
from trivium.feedback.dashboard import Dashboard
from trivium.feedback.store import Store
from trivium.feedback.texts import translate
from trivium.feedback.web.pages import Pages, language_of

COOKIE = "trivium_session"


@dataclass(frozen=True)
class Site:
    """What the routes of one project share."""

    store: Store
    accounts: Accounts
    dashboard: Dashboard
    catalogue: Catalogue
    pages: Pages
    address: str | None
    """The address that people use, for links; None: the one they asked at."""
    uploads: dict[str, tuple[int, str, bytes]] = field(default_factory=dict)
    """Files that wait for somebody to say what their columns are: who sent them, their names and bytes."""


class Elsewhere(Exception):
    """Send the browser to another page."""

    def __init__(self, to: str) -> None:
        self.to = to


async def site_of(request: Request) -> Site:
    """What the routes of the project share. A coroutine: it needs no thread."""
    site: Site = request.app.state.site
    return site


async def store_of(request: Request) -> Store:
    """The project's store."""
    return (await site_of(request)).store


async def pages_of(request: Request) -> Pages:
    """The project's pages."""
    return (await site_of(request)).pages


def visitor_of(request: Request) -> Visitor | None:
    """Who is logged in, if anybody; pages show them."""
    site: Site = request.app.state.site
    visitor = site.accounts.visitor(request.cookies.get(COOKIE))
    request.state.visitor = visitor
    return visitor


def mark_of(name: str) -> str:
    """What a project's cookies have at the end of their names."""
    return "_" + hashlib.sha256(name.encode()).hexdigest()[:12]


def members_of(request: Request, projects: Mapping[str, FastAPI]) -> dict[str, tuple[Site, Visitor]]:
    """The projects in which whoever asks is logged in, each with who they are there."""
    found = {}
    cookies = getattr(request.state, "every_cookie", request.cookies)  # a project is shown its own alone
    for name, app in projects.items():
        site: Site = app.state.site
        visitor = site.accounts.visitor(cookies.get(COOKIE + mark_of(name)))
        if visitor is not None:
            found[name] = site, visitor
    return found


def member(request: Request) -> Visitor:
    """Somebody who is logged in; others are sent to the login page."""
    visitor = visitor_of(request)
    if visitor is None:
        raise HTTPException(401, "log in first") if request.url.path.startswith("/api/") else Elsewhere("/login")
    return visitor


def leader(request: Request) -> Visitor:
    """A lead of the project."""
    visitor = member(request)
    if visitor.role != "lead":
        raise HTTPException(403, translate(language_of(request), "error_forbidden"))
    return visitor


def check_token(request: Request, token: str | None, expected: str) -> None:
    """Refuse a request that another site may have forged: it does not carry the token of the session."""
    if not token or not hmac.compare_digest(token.encode("utf-8", "replace"), expected.encode()):
        raise HTTPException(403, translate(language_of(request), "error_csrf"))


def acting_member(request: Request, x_csrf_token: Annotated[str | None, Header()] = None) -> Visitor:
    """Somebody whose script changes something."""
    visitor = member(request)
    check_token(request, x_csrf_token, visitor.csrf)
    return visitor


def acting_leader(request: Request, x_csrf_token: Annotated[str | None, Header()] = None) -> Visitor:
    """A lead whose script changes something."""
    visitor = leader(request)
    check_token(request, x_csrf_token, visitor.csrf)
    return visitor


def form_leader(request: Request, csrf: Annotated[str, Form()] = "") -> Visitor:
    """A lead who sends a form."""
    visitor = leader(request)
    check_token(request, csrf, visitor.csrf)
    return visitor


TheSite = Annotated[Site, Depends(site_of)]
TheStore = Annotated[Store, Depends(store_of)]
ThePages = Annotated[Pages, Depends(pages_of)]
Member = Annotated[Visitor, Depends(member)]
Leader = Annotated[Visitor, Depends(leader)]
ActingMember = Annotated[Visitor, Depends(acting_member)]
ActingLeader = Annotated[Visitor, Depends(acting_leader)]
FormLeader = Annotated[Visitor, Depends(form_leader)]
