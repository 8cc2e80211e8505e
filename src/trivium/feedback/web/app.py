"""The app of one project: its routes by topic, and what becomes of faults."""

from __future__ import annotations

from typing import Any

import python_multipart  # noqa: F401 -- FastAPI reads forms with it, and without it fails by no ImportError
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException as AnyHTTPException

from trivium.clients import Hosts
from trivium.errors import TriviumError
from trivium.feedback.accounts import Accounts, TooManyTries
from trivium.feedback.catalogue import Catalogue
from trivium.feedback.dashboard import Dashboard
from trivium.feedback.store import Conflict, Store
from trivium.feedback.texts import fault_words, translate
from trivium.feedback.web import export, files, items, lead, session, upload, work
from trivium.feedback.web.bodies import Wrong
from trivium.feedback.web.guard import Guard
from trivium.feedback.web.pages import Pages, language_of
from trivium.feedback.web.visitors import Elsewhere, Site


def create_app(store: Store, address: str | None = None, hosts: frozenset[str] | None = None) -> FastAPI:
    """The app of one project. ``address`` is the address that people use, for links, where the requests do not say it;
    ``hosts`` are the names by which it may be asked (None: any)."""
    refusals: dict[int | str, dict[str, Any]] = {code: {"model": Wrong}
                                                 for code in (400, 401, 403, 404, 408, 409, 413, 421, 422, 429, 503)}
    app = FastAPI(title="Trivium feedback", docs_url=None, redoc_url=None, responses=refusals)
    app.state.others = {}
    app.state.site = Site(store, Accounts(store), Dashboard(store), Catalogue(store), Pages(store), address)
    app.exception_handler(Elsewhere)(elsewhere)
    app.exception_handler(TriviumError)(fault)
    app.exception_handler(AnyHTTPException)(refused)
    app.exception_handler(RequestValidationError)(invalid)
    if hosts is not None:
        app.add_middleware(Hosts, known=hosts, refusal=not_known)
    app.add_middleware(Guard)
    for topic in (session, work, lead, items, upload, export, files):
        app.include_router(topic.router)
    return app


def not_known(message: str) -> Response:
    """The answer to who asks by a name that the app is not known by."""
    return JSONResponse({"error": message}, 421)


def elsewhere(_: Request, error: Elsewhere) -> Response:
    """Another page instead of this one."""
    return RedirectResponse(error.to, 303)


def fault(request: Request, error: TriviumError) -> Response:
    """What is wrong with a request, by the store or the accounts."""
    if isinstance(error, TooManyTries):
        return _refuse(request, 429, str(error), {"retry-after": str(error.seconds)})
    return _refuse(request, 409 if isinstance(error, Conflict) else 422, str(error))


def refused(request: Request, error: AnyHTTPException) -> Response:
    """What a route, or the framework, does not allow."""
    message = translate(language_of(request), "error_missing") if error.status_code == 404 else str(error.detail)
    return _refuse(request, error.status_code, message, dict(error.headers or {}))


def invalid(request: Request, error: RequestValidationError) -> Response:
    """The first fault of a request that does not have its form."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body") or "the body"
    return _refuse(request, 422, f"{where}: {first['msg']}"[:300].encode("utf-8", "replace").decode())


def _refuse(request: Request, status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """A refusal in the visitor's language: as JSON for scripts, as a page for people."""
    message = fault_words(language_of(request), message)
    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": message}, status, headers)
    site: Site = request.app.state.site
    response = site.pages.page(request, "error.html", status, message=message)
    response.headers.update(headers or {})
    return response
