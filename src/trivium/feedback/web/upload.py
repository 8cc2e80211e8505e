"""Rows that a lead brings in the browser."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import Annotated

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import HTMLResponse, Response

from trivium.feedback.rows import LONGEST_ID, moment
from trivium.feedback.uploads import import_file
from trivium.feedback.web.guard import MOST_BYTES
from trivium.feedback.web.items import Moment
from trivium.feedback.web.visitors import FormLeader, Leader, ThePages, TheStore

MOST_SHOWN = 100
"""Refused rows on the page."""

router = APIRouter()


@router.get("/lead/upload", response_class=HTMLResponse)
def upload_page(request: Request, pages: ThePages, visitor: Leader) -> Response:
    return pages.page(request, "upload.html", outcome=None, name="", megabytes=MOST_BYTES // 1_000_000)


@router.post("/lead/upload", response_class=HTMLResponse)
def upload(request: Request, store: TheStore, pages: ThePages, visitor: FormLeader,
           file: Annotated[UploadFile, File()], batch: Annotated[str, Form(max_length=LONGEST_ID)] = "",
           deadline: Moment = "") -> Response:
    at, batch = moment(deadline) if deadline else None, batch.strip()
    name = PurePosixPath(file.filename or "rows").name
    if at is not None and not batch:
        batch = name[:LONGEST_ID]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "upload"  # nothing of what a browser calls it
        with open(path, "wb") as target:
            shutil.copyfileobj(file.file, target)
        outcome = import_file(store, path, name, visitor.id, batch=batch)
    with store.state() as state:
        there = batch in state.batches
    if at is not None and there:
        store.set_deadline(at, batch=batch, who=visitor.id)
    return pages.page(request, "upload.html", outcome=outcome, name=name, most=MOST_SHOWN,
                      megabytes=MOST_BYTES // 1_000_000)
