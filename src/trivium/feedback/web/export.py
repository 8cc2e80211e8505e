"""Downloads of what a project gives to training."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse

from trivium.feedback.exports import EXPORTS, write_lines
from trivium.feedback.web.visitors import Leader, ThePages, TheStore

router = APIRouter()


@router.get("/lead/export", response_class=HTMLResponse)
def export_page(request: Request, pages: ThePages, visitor: Leader) -> Response:
    return pages.page(request, "export.html", kinds=list(EXPORTS))


@router.get("/lead/export/{kind}.jsonl", response_class=StreamingResponse,
            responses={200: {"content": {"application/x-ndjson": {}}}})
def download(kind: Annotated[str, Path(max_length=40)], store: TheStore, visitor: Leader) -> Response:
    if kind not in EXPORTS:
        raise HTTPException(404)
    return StreamingResponse(write_lines(store, kind), media_type="application/x-ndjson",
                             headers={"content-disposition": f'attachment; filename="{kind}.jsonl"'})
