"""What needs no visitor: the files that pages load, under names that change with them, and a sign of life."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Request
from fastapi.responses import Response

from trivium.feedback.web.pages import STATIC, asset
from trivium.feedback.web.visitors import Member, TheStore

router = APIRouter()


@router.get("/static/{name}", include_in_schema=False)
def static(name: str, request: Request) -> Response:
    if name not in STATIC:
        raise HTTPException(404)
    return Response(asset(name), media_type=STATIC[name],
                    headers={"cache-control": "public, max-age=31536000, immutable" if request.url.query
                             else "no-cache"})  # scripts import others by their names alone


@router.get("/picture/{name}", response_class=Response, responses={200: {"content": {"image/*": {}}}})
def picture(name: Annotated[str, Path(pattern="^[0-9a-f]{64}$")], store: TheStore, visitor: Member) -> Response:
    """A picture of a prompt, by the SHA-256 of its bytes."""
    found = store.pictures([name]).get(name)
    if found is None:
        raise HTTPException(404)
    return Response(found[1], media_type=found[0], headers={"cache-control": "private, max-age=31536000, immutable"})


@router.get("/healthz", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def healthz() -> Response:
    return Response("ok\n", media_type="text/plain")
