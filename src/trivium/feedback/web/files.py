"""What needs no visitor: the files that pages load, under names that change with them, and a sign of life."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException
from fastapi.responses import Response

from trivium.feedback.web.pages import STATIC, asset

router = APIRouter()


@router.get("/static/{name}", include_in_schema=False)
def static(name: str) -> Response:
    if name not in STATIC:
        raise HTTPException(404)
    return Response(asset(name), media_type=STATIC[name],
                    headers={"cache-control": "public, max-age=31536000, immutable"})


@router.get("/healthz", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def healthz() -> Response:
    return Response("ok\n", media_type="text/plain")
