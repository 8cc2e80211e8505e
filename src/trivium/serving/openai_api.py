"""OpenAI's routes: chats, texts, models."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse, Response
from torch import Tensor

from trivium.errors import TriviumError
from trivium.serving.answers import Answer
from trivium.serving.constrained import asks_a_form
from trivium.serving.errors import ApiError
from trivium.serving.models import Encoder, Served
from trivium.serving.protocol import ChatRequest, CompletionRequest, EmbeddingRequest, described
from trivium.serving.responses import (
    BODY,
    NEEDS_KEY,
    ChatChunk,
    ChatCompletion,
    Completion,
    Embeddings,
    Model,
    Models,
    told,
)
from trivium.serving.service import TheService, body, check_key
from trivium.serving.waiting import in_time

Encoded = TypeVar("Encoded")

router = APIRouter(prefix="/v1")


@router.post("/chat/completions", openapi_extra=described(ChatRequest),
             responses=told(ChatCompletion, *BODY, 404, 429, stream=ChatChunk))
async def chat_completions(service: TheService,
                           request: Annotated[ChatRequest, Depends(body(ChatRequest))]) -> Response:
    model = service.model(request.model)

    def encode() -> tuple[list[int], Tensor | None]:
        return model.encode([message.plain() for message in request.messages], request.callable_tools,
                            model.options(request))

    ids, pictures = await _encode(encode, "messages")
    guide = await service.compiled(
        lambda: model.forms.guide(request, model.thinks(ids))) if asks_a_form(request) else None
    return await Answer(service, request, model, [ids], pictures, guide).respond()


@router.post("/completions", openapi_extra=described(CompletionRequest),
             responses=told(Completion, *BODY, 404, 429, stream=Completion))
async def completions(service: TheService,
                      request: Annotated[CompletionRequest, Depends(body(CompletionRequest))]) -> Response:
    model = service.model(request.model)
    prompts = await _encode(lambda: [model.encode_text(prompt) for prompt in request.prompts], "prompt")
    return await Answer(service, request, model, prompts).respond()


@router.post("/embeddings", openapi_extra=described(EmbeddingRequest), responses=told(Embeddings, *BODY, 404))
async def embeddings(service: TheService,
                     request: Annotated[EmbeddingRequest, Depends(body(EmbeddingRequest))]) -> Response:
    model = service.encoder(request.model)
    width = model.model.config.hidden_size
    if request.dimensions is not None and request.dimensions > width:
        raise ApiError(400, f"dimensions: this model's vectors have {width} numbers, not {request.dimensions}",
                       param="dimensions", code="invalid_value")
    inputs = await _encode(lambda: [model.encode(text) for text in request.inputs], "input")
    turn = asyncio.get_running_loop().run_in_executor(model.turns, model.embed, inputs, request.dimensions)
    vectors = await in_time(service.limits.seconds, turn, "the vectors took more than {} seconds; send fewer texts")
    read = sum(map(len, inputs))
    service.metrics.add("trivium_prompt_tokens_total", read, model=model.name)
    return JSONResponse({
        "object": "list", "model": model.name, "usage": {"prompt_tokens": read, "total_tokens": read},
        "data": [{"object": "embedding", "index": index, "embedding": base64.b64encode(
            vector.astype("<f4").tobytes()).decode() if request.encoding_format == "base64" else vector.tolist()}
                 for index, vector in enumerate(vectors)]})


@router.get("/models", dependencies=[Depends(check_key)], openapi_extra=NEEDS_KEY, responses=told(Models, 401))
async def list_models(service: TheService) -> Response:
    models: list[Served | Encoder] = [*service.models.values(), *service.encoders.values()]
    return JSONResponse({"object": "list", "data": [_card(model) for model in models]})


@router.get("/models/{name:path}", dependencies=[Depends(check_key)], openapi_extra=NEEDS_KEY,
            responses=told(Model, 401, 404))
async def get_model(service: TheService, name: str) -> Response:
    return JSONResponse(_card(service.known(name)))


async def _encode(encode: Callable[[], Encoded], param: str) -> Encoded:
    """What ``encode`` returns, beside the event loop; its faults are those of the field ``param``."""
    try:
        return await asyncio.to_thread(encode)
    except TriviumError as error:
        raise ApiError(400, str(error), param=param) from error


def _card(model: Served | Encoder) -> dict[str, Any]:
    writes = model if isinstance(model, Served) else None
    return {
        "id": model.name, "object": "model", "created": model.created, "owned_by": "trivium", "stage": model.stage,
        "chat": bool(writes and writes.chat), "embeds": writes is None, "digest": model.digest or None,
        "context": model.context, "sees": bool(writes and writes.eyes)
    }
