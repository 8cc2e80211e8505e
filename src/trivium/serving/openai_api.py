"""OpenAI's routes: chats, texts, models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from trivium.errors import TriviumError
from trivium.serving.answers import Answer
from trivium.serving.models import Served
from trivium.serving.protocol import ApiError, ChatRequest, CompletionRequest, described
from trivium.serving.service import TheService, body, check_key

Encoded = TypeVar("Encoded")

router = APIRouter(prefix="/v1")


@router.post("/chat/completions", openapi_extra=described(ChatRequest))
async def chat_completions(http: Request, service: TheService,
                           request: Annotated[ChatRequest, Depends(body(ChatRequest))]) -> Response:
    model = service.model(request.model)
    def encode() -> Any:
        return model.encode([message.plain() for message in request.messages], request.callable_tools,
                            request.chat_template_kwargs)

    ids, pictures = await _encode(encode, "messages")
    return await Answer(service, request, model, [ids], pictures).respond(http)


@router.post("/completions", openapi_extra=described(CompletionRequest))
async def completions(http: Request, service: TheService,
                      request: Annotated[CompletionRequest, Depends(body(CompletionRequest))]) -> Response:
    model = service.model(request.model)
    prompts = await _encode(lambda: [model.encode_text(prompt) for prompt in request.prompts], "prompt")
    return await Answer(service, request, model, prompts).respond(http)


@router.get("/models", dependencies=[Depends(check_key)])
async def list_models(service: TheService) -> Response:
    return JSONResponse({"object": "list", "data": [_card(model) for model in service.models.values()]})


@router.get("/models/{name:path}", dependencies=[Depends(check_key)])
async def get_model(service: TheService, name: str) -> Response:
    return JSONResponse(_card(service.model(name)))


async def _encode(encode: Callable[[], Encoded], param: str) -> Encoded:
    """What ``encode`` returns, beside the event loop; its faults are those of the field ``param``."""
    try:
        return await run_in_threadpool(encode)
    except TriviumError as error:
        raise ApiError(400, str(error), param=param) from error


def _card(model: Served) -> dict[str, Any]:
    return {
        "id": model.name, "object": "model", "created": model.created, "owned_by": "trivium", "stage": model.stage,
        "chat": model.chat, "digest": model.digest or None, "context": model.engine.capacity,
        "sees": model.eyes is not None
    }
