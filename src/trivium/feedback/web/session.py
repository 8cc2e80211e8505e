"""Coming in and going: sign-in, invitations, the language. What a form's fields are called stands in the templates."""

from __future__ import annotations

import secrets
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from trivium.errors import TriviumError
from trivium.feedback.accounts import TooManyTries, Visitor
from trivium.feedback.texts import LANGUAGES, fault_words
from trivium.feedback.web.pages import language_of
from trivium.feedback.web.visitors import COOKIE, Member, Site, TheSite, check_token, members_of, visitor_of

DOOR_COOKIE = "trivium_door"
"""Ties the form of somebody without a session to the browser that asked for it."""

Name = Annotated[str, Form(max_length=200)]
Password = Annotated[str, Form(max_length=1000)]
Token = Annotated[str, Form()]

router = APIRouter()


@router.get("/", include_in_schema=False)
def start(visitor: Member) -> Response:
    return RedirectResponse("/lead" if visitor.role == "lead" else "/work", 303)


@router.get("/login", response_class=HTMLResponse)
def login_page(request: Request, site: TheSite) -> Response:
    return RedirectResponse("/", 303) if visitor_of(request) else _door(request, site, "login.html")


@router.post("/login", response_class=HTMLResponse)
def login(request: Request, site: TheSite, name: Name, password: Password, csrf: Token = "") -> Response:
    _check_door(request, site, csrf)
    try:
        return _enter(request, site.accounts.login(name, password, address_of(request)))
    except TooManyTries:
        raise
    except TriviumError as error:
        return _door(request, site, "login.html", 401, message=str(error), name=name)


@router.post("/logout", response_class=HTMLResponse)
def logout(request: Request, site: TheSite, visitor: Member, csrf: Token = "") -> Response:
    check_token(request, csrf, visitor.csrf)
    site.accounts.logout(request.cookies[COOKIE])
    response = RedirectResponse("/login", 303, headers={"clear-site-data": '"storage"'})
    response.delete_cookie(COOKIE)
    return response


@router.get("/invite/{token}", response_class=HTMLResponse)
def invite_page(request: Request, site: TheSite, token: str) -> Response:
    return _door(request, site, "invite.html", invite=site.accounts.look_up(token, address_of(request)), token=token,
                 known=_known_elsewhere(request))


@router.post("/invite/{token}", response_class=HTMLResponse)
def accept(request: Request, site: TheSite, token: str, password: Password, name: Name = "",
           csrf: Token = "") -> Response:
    _check_door(request, site, csrf)
    invite = site.accounts.look_up(token, address_of(request))
    try:
        return _enter(request, site.accounts.accept(token, name, password, address_of(request)))
    except TriviumError as error:
        return _door(request, site, "invite.html", 422, invite=invite, token=token, message=str(error), name=name,
                     known=_known_elsewhere(request))


@router.post("/invite/{token}/as", response_class=HTMLResponse)
def accept_as(request: Request, site: TheSite, token: str, csrf: Token = "") -> Response:
    """Join with the name and the password that somebody has in another project of the app."""
    _check_door(request, site, csrf)
    invite, known = site.accounts.look_up(token, address_of(request)), _known_elsewhere(request)
    if known is None or invite.person is not None:
        raise HTTPException(404)
    there, visitor = known
    try:
        return _enter(request, site.accounts.accept(token, visitor.name, "", address_of(request),
                                                    hashed=there.accounts.password_of(visitor.id)))
    except TriviumError as error:
        return _door(request, site, "invite.html", 422, invite=invite, token=token, message=str(error), known=None)


def _known_elsewhere(request: Request) -> tuple[Site, Visitor] | None:
    """Who somebody is in another project, if they are logged in there."""
    return next(iter(members_of(request, request.app.state.others).values()), None)


@router.post("/language", response_class=HTMLResponse)
def language(request: Request, to: Annotated[str, Form()], back: Annotated[str, Form()] = "/") -> Response:
    parts = urlsplit(back if back.isprintable() else "/")
    path = "/" + parts.path.lstrip("/\\") + (f"?{parts.query}" if parts.query else "")  # only ever a page of ours
    response = RedirectResponse(path, 303)
    response.set_cookie("language", to if to in LANGUAGES else "en", max_age=365 * 86_400, samesite="lax")
    return response


def address_of(request: Request) -> str:
    """From where somebody asks."""
    return request.client.host if request.client else "unknown"


def _enter(request: Request, token: str) -> RedirectResponse:
    """Let somebody in, with a session's token."""
    response = RedirectResponse("/", 303)
    response.set_cookie(COOKIE, token, max_age=7 * 86_400, httponly=True, samesite="lax",
                        secure=request.url.scheme == "https")
    response.delete_cookie(DOOR_COOKIE)
    return response


def _door(request: Request, site: Site, page: str, status: int = 200, /, **values: Any) -> Response:
    """A page with a form for somebody who has no session yet: its token belongs to a cookie of its own."""
    ticket = request.cookies.get(DOOR_COOKIE) or secrets.token_urlsafe(24)
    if "message" in values:
        values["message"] = fault_words(language_of(request), values["message"])
    response = site.pages.page(request, page, status, door=site.accounts.csrf(ticket), **values)
    response.set_cookie(DOOR_COOKIE, ticket, max_age=3600, httponly=True, samesite="strict",
                        secure=request.url.scheme == "https")
    return response


def _check_door(request: Request, site: Site, token: str) -> None:
    """Refuse a form that was not given to this browser."""
    ticket = request.cookies.get(DOOR_COOKIE)
    check_token(request, token if ticket else None, site.accounts.csrf(ticket or ""))
