"""Rows that a lead brings in the browser."""

from __future__ import annotations

import contextlib
import re
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import HTMLResponse, Response

from trivium.errors import TriviumError
from trivium.feedback.rows import LONGEST_ID, moment
from trivium.feedback.store import Imported, Store
from trivium.feedback.texts import translate
from trivium.feedback.uploads import ROLES, columns_of, import_file
from trivium.feedback.web.guard import MOST_BYTES
from trivium.feedback.web.items import Moment
from trivium.feedback.web.pages import language_of
from trivium.feedback.web.visitors import FormLeader, Leader, Site, TheSite

MOST_SHOWN = 100
"""Refused rows on the page."""
MOST_KEPT = 8
"""Files that wait for somebody to say what their columns are."""
GUESSES = {role: re.compile(pattern, re.IGNORECASE) for role, pattern in (
    ("prompt", "prompt|question|query|instruction|input|context|问题|提示|指令"), ("system", "system"),
    ("response", "(response|answer|output|completion|reply|chosen|rejected|回答|答案)s?[ _]?\\w{0,2}"), ("id", "id"))}
"""What columns of these names are taken for at first."""

Batch = Annotated[str, Form(max_length=LONGEST_ID)]

router = APIRouter()


@router.get("/lead/upload", response_class=HTMLResponse)
def upload_page(request: Request, site: TheSite, visitor: Leader) -> Response:
    return _outcome_page(request, site, "", None)


@router.post("/lead/upload", response_class=HTMLResponse)
def upload(request: Request, site: TheSite, visitor: FormLeader, file: Annotated[UploadFile, File()],
           batch: Batch = "", deadline: Moment = "", columns: Annotated[bool, Form()] = False) -> Response:
    name, data = PurePosixPath(file.filename or "rows").name, file.file.read()
    if columns:
        return _columns_page(request, site, visitor.id, name, data, batch, deadline)
    outcome = _brought(site.store, visitor.id, name, data, batch, deadline)
    if outcome.rejects and not outcome.added and not outcome.known_already:  # perhaps its columns have other names
        with contextlib.suppress(TriviumError):
            return _columns_page(request, site, visitor.id, name, data, batch, deadline, outcome.rejects[0]["reason"])
    return _outcome_page(request, site, name, outcome)


@router.post("/lead/upload/columns", response_class=HTMLResponse)
def upload_by_columns(request: Request, site: TheSite, visitor: FormLeader, token: Annotated[str, Form(max_length=60)],
                      column: Annotated[list[str], Form()], role: Annotated[list[str], Form()], batch: Batch = "",
                      deadline: Moment = "") -> Response:
    kept = site.uploads.get(token)
    if kept is None or kept[0] != visitor.id:
        raise TriviumError("the file is not here any more; upload it again")
    _, name, data = kept
    roles = {one: what for one, what in zip(column, role) if what in ROLES}
    if "prompt" not in roles.values():
        return _columns_page(request, site, visitor.id, name, data, batch, deadline,
                             translate(language_of(request), "columns_no_prompt"), roles)
    del site.uploads[token]
    return _outcome_page(request, site, name, _brought(site.store, visitor.id, name, data, batch, deadline, roles))


def _columns_page(request: Request, site: Site, person: int, name: str, data: bytes, batch: str, deadline: str,
                  message: str = "", roles: Mapping[str, str] | None = None) -> Response:
    """Ask what each column of a file is. The file is kept for a while."""
    with _as_file(data) as path:
        found = columns_of(path, name)
    if not found:
        raise TriviumError(f"{name}: no rows")
    token = secrets.token_urlsafe(24)
    site.uploads[token] = person, name, data
    while len(site.uploads) > MOST_KEPT:
        del site.uploads[next(iter(site.uploads))]
    guessed = roles or {column: role for column in found for role, known in GUESSES.items() if known.fullmatch(column)}
    return site.pages.page(request, "columns.html", name=name, token=token, columns=found, roles=ROLES, chosen=guessed,
                           batch=batch, deadline=deadline, message=message or None)


def _brought(store: Store, person: int, name: str, data: bytes, batch: str, deadline: str,
             roles: Mapping[str, str] | None = None) -> Imported:
    at, batch = moment(deadline) if deadline else None, batch.strip()
    if at is not None and not batch:
        batch = name[:LONGEST_ID]
    with _as_file(data) as path:
        outcome = import_file(store, path, name, person, batch=batch, roles=roles)
    with store.state() as state:
        there = batch in state.batches
    if at is not None and there:
        store.set_deadline(at, batch=batch, who=person)
    return outcome


@contextlib.contextmanager
def _as_file(data: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "upload"  # nothing of what a browser calls it
        path.write_bytes(data)
        yield path


def _outcome_page(request: Request, site: Site, name: str, outcome: Imported | None) -> Response:
    return site.pages.page(request, "upload.html", outcome=outcome, name=name, most=MOST_SHOWN,
                           megabytes=MOST_BYTES // 1_000_000)
