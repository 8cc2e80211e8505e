"""Feedback from the chat page: thumbs and votes on answers that were sampled here go to a feedback project."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse, Response

from trivium.errors import TriviumError
from trivium.serving.errors import ApiError
from trivium.serving.protocol import Choice, Thumb, described
from trivium.serving.responses import BODY, Kept, told
from trivium.serving.service import TheService, body
from trivium.serving.signing import Signer

RANKINGS: dict[int | str, list[list[int]] | None] = {0: [[0], [1]], 1: [[1], [0]], "tie": [[0, 1]], "bad": None}
"""The ranking of two answers that each vote means."""

router = APIRouter(prefix="/feedback")


@router.post("/thumb", openapi_extra=described(Thumb), responses=told(Kept, *BODY, 403, 404))
async def thumb(service: TheService, given: Annotated[Thumb, Depends(body(Thumb))]) -> Response:
    prompt = [message.words() for message in given.messages]

    def keep() -> None:
        store = service.store()
        Signer(store.secret).check(given.signature, given.who, given.model, given.messages, given.completion)
        store.add_thumb(prompt, given.completion, given.label, given.who, given.model)

    return await _keep(keep)


@router.post("/choice", openapi_extra=described(Choice), responses=told(Kept, *BODY, 403, 404))
async def choice(service: TheService, given: Annotated[Choice, Depends(body(Choice))]) -> Response:
    prompt = [message.words() for message in given.messages]

    def keep() -> None:
        store = service.store()
        signer = Signer(store.secret)
        for signature, model, text in zip(given.signatures, given.models, given.responses, strict=True):
            signer.check(signature, given.who, model, given.messages, text)
        store.add_choice(prompt, given.responses, RANKINGS[given.better], given.who, given.models)

    return await _keep(keep)


async def _keep(write: Callable[[], Any]) -> Response:
    """Write beside the event loop; what the store refuses is the client's fault."""
    try:
        await asyncio.to_thread(write)
    except (TriviumError, UnicodeError) as error:
        raise ApiError(400, str(error)) from error
    return JSONResponse({"kept": True})
