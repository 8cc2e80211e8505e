"""The server: the OpenAI API over sampling engines, a chat page, and where its feedback goes.

Whatever comes from a client is hostile: bodies are bounded before they are read, checked before they are used, and
every fault is an error in OpenAI's form with the right status.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import secrets
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import torch
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from torch import Tensor

from trivium import randomness
from trivium.errors import TriviumError, nearest
from trivium.feedback.store import Store
from trivium.files import read_json
from trivium.generation.engine import Engine, Sample
from trivium.generation.sampling import Sampling
from trivium.model import LanguageModel
from trivium.model import folder as model_folder
from trivium.model.images import look
from trivium.model.vision import SeeingModel
from trivium.serving.metrics import Labels, Metrics
from trivium.serving.protocol import (
    ApiError,
    ChatRequest,
    Choice,
    CompletionRequest,
    Thumb,
    parse,
)
from trivium.serving.scheduler import News, Scheduler, Ticket
from trivium.serving.text import GrowingText, token_entry, whole_text
from trivium.tokenizer.chat import ChatTokenizer
from trivium.version import __version__

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action "
    "'none'; base-uri 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'")
HEADERS = [(b"content-security-policy", POLICY.encode()), (b"x-content-type-options", b"nosniff"),
           (b"referrer-policy", b"no-referrer"), (b"cross-origin-opener-policy", b"same-origin"),
           (b"cross-origin-resource-policy", b"same-origin"),
           (b"permissions-policy", b"camera=(), microphone=(), geolocation=()")]
STATIC = {
    "": ("chat.html", "text/html"), "chat.css": ("chat.css", "text/css"), "chat.js": ("chat.js", "text/javascript"),
    "words.js": ("words.js", "text/javascript"), "icon.svg": ("icon.svg", "image/svg+xml")
}

LINGER = 10.0
"""Seconds after its answer's time is up for which a client that reads slowly keeps its connection."""

Body = TypeVar("Body", bound=BaseModel)


@dataclass(frozen=True)
class Limits:
    """What one client may ask of the server."""

    rows: int = 32
    """Samples computed at a time, for each model."""
    queue: int = 64
    """Samples that may wait beyond these, for each model, before clients are told to come again later (429)."""
    body: int = 1_000_000
    """Largest body of a request, in bytes (413)."""
    seconds: float = 120.0
    """Longest time for one answer; then it is cut off (408)."""
    context: int = 4096
    """Longest prompt with its answer, in tokens, where the model's own limit is not shorter."""


@dataclass
class Served:
    """A model that answers."""

    name: str
    engine: Engine
    tokenizer: ChatTokenizer
    stage: str | None
    """The kind of stage that made it, where a manifest says so."""
    chat: bool
    """Whether it learned to chat, as far as its manifest tells."""
    digest: str
    created: int
    eyes: SeeingModel | None = None
    """What sees, in a model that does."""
    taken: int = field(default=0)
    """Samples that were promised and have not ended."""

    @classmethod
    def load(cls, name: str, folder: Path, limits: Limits) -> Served:
        """From a model's folder; raises :class:`TriviumError` where it cannot be served."""
        model = model_folder.load(folder)
        if not isinstance(model, LanguageModel):
            raise TriviumError(f"{folder}: {model_folder.what_is(model)} does not chat; serve a language model")
        tokenizer = ChatTokenizer.load(folder)
        if tokenizer.vocab_size > model.config.vocab_size:
            raise TriviumError(
                f"{folder}: the tokenizer has {tokenizer.vocab_size} entries, but the model only "
                f"{model.config.vocab_size}"
            )
        manifest: dict[str, Any] = read_json(folder / "manifest.json") if (folder / "manifest.json").exists() else {}
        stage = manifest.get("kind")
        return cls(name, Engine(model.eval().to(_device()), limits.rows, limits.context, tokenizer.decode), tokenizer,
                   str(stage) if stage else None, stage not in ("pretrain", "untrained"),
                   str(manifest.get("digest") or "")[:16], int((folder / "tokenizer.json").stat().st_mtime),
                   model if isinstance(model, SeeingModel) else None)

    def encode(self, messages: Sequence[dict[str, Any]]) -> tuple[list[int], Tensor | None]:
        """The tokens that ask for the next words of a chat, and its pictures as they stand in the prompt. Raises
        :class:`TriviumError` for pictures that cannot be seen; how many fit is known before one of them is opened."""
        places = self.eyes.picture_places if self.eyes else 0
        ids = self.tokenizer.encode_chat(messages, generation_prompt=True, picture_places=places)[0]
        if self.eyes is None or self.eyes.picture_id not in ids or len(ids) >= self.engine.capacity:
            return ids, None
        vision = self.eyes.vision.config
        pixels = torch.from_numpy(look(messages, vision.size, vision.channels))
        with torch.inference_mode():
            return ids, self.eyes.pictures(pixels.to(self.engine.device))


def _device() -> Any:
    from trivium.training.machine import choose_device
    return choose_device()


def create_app(models: Sequence[Served], limits: Limits, keys: Sequence[str] = (),
               feedback: Callable[[], Store] | None = None) -> FastAPI:
    """The application. ``keys`` are the API keys that are accepted (none: everybody is); ``feedback`` opens the
    store at its first use (None: no thumbs and votes)."""
    served = {model.name: model for model in models}
    digests = [hashlib.sha256(key.encode()).digest() for key in keys]
    scheduler, metrics = Scheduler(), Metrics()
    stores: list[Store] = []
    opening = threading.Lock()
    for name, kind, about in (
            ("trivium_requests_total", "counter", "Requests by route and status."),
            ("trivium_prompt_tokens_total", "counter", "Tokens of prompts."),
            ("trivium_completion_tokens_total", "counter", "Tokens that were sampled."),
            ("trivium_cancelled_total", "counter", "Requests whose client went away or whose time was up."),
            ("trivium_running_samples", "gauge", "Samples that are computed now."),
            ("trivium_waiting_samples", "gauge", "Samples that wait for a row."),
            ("trivium_request_seconds", "histogram", "Time to the end of an answer."),
            ("trivium_first_token_seconds", "histogram", "Time to an answer's first token.")):
        metrics.describe(name, kind, about)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        scheduler.start()
        yield
        await run_in_threadpool(scheduler.stop)
        for opened in stores:
            opened.close()

    app = FastAPI(title="Trivium", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.scheduler = scheduler

    # what every request meets

    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> Response:
        headers = {429: {"retry-after": "1"}, 401: {"www-authenticate": "Bearer"},
                   408: {"x-should-retry": "false"}}.get(error.status)
        return JSONResponse(error.body, error.status, headers)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        return JSONResponse(ApiError(error.status_code, str(error.detail)).body, error.status_code, error.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)  # nobody is there to read it

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> Response:
        return JSONResponse(ApiError(500, "the server failed; its log says why", "server_error").body, 500)

    app.add_middleware(_Outer, metrics=metrics)

    def check_key(request: Request) -> None:
        if not digests:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        digest = hashlib.sha256(given.strip().encode("utf-8", "surrogateescape")).digest()
        if scheme.lower() != "bearer" or sum(hmac.compare_digest(digest, known) for known in digests) == 0:
            raise ApiError(401, "no valid API key was given; send one as `Authorization: Bearer KEY`",
                           "authentication_error", code="invalid_api_key")

    async def body_of(kind: type[Body], request: Request) -> Body:
        check_key(request)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise ApiError(415, "the content type must be application/json")  # which also keeps other sites' forms out
        declared = request.headers.get("content-length", "0")
        data = bytearray()
        if not declared.isdecimal() or int(declared[:20]) <= limits.body:
            async def read() -> None:
                async for piece in request.stream():
                    data.extend(piece)
                    if len(data) > limits.body:
                        break

            await _in_time(limits.seconds, read(), "the body took more than {} seconds to arrive")
            if len(data) <= limits.body:
                return parse(kind, bytes(data))
        raise ApiError(413, f"the body is larger than {limits.body:,} bytes", code="request_too_large")

    def model_of(name: str) -> Served:
        if name not in served:
            shown = name if len(name) <= 80 else name[:80] + "…"
            raise ApiError(404, f"the model {shown!r} does not exist{nearest(shown, served)}", param="model",
                           code="model_not_found")
        return served[name]

    def sampling_of(request: ChatRequest | CompletionRequest, model: Served, longest: int) -> Sampling:
        """The rules of a request whose longest prompt has so many tokens; raises where the context is too short."""
        room = model.engine.capacity - longest
        limit = request.limit
        if room < 1 or (limit is not None and limit > room):
            asked = f" and {limit} new ones were asked for" if limit is not None else ""
            raise ApiError(400,
                           f"this model's context is {model.engine.capacity} tokens; the prompt has {longest}{asked}",
                           param="messages" if isinstance(request, ChatRequest) else "prompt",
                           code="context_length_exceeded")
        return Sampling(temperature=1.0 if request.temperature is None else request.temperature, top_p=request.top_p
                        or 1.0, top_k=request.top_k or 0, min_p=request.min_p or 0.0,
                        repetition_penalty=request.repetition_penalty or 1.0,
                        max_new_tokens=room if limit is None else limit,
                        seed=secrets.randbits(62) if request.seed is None else request.seed, stop=request.stops)

    @contextlib.asynccontextmanager
    async def asked(model: Served, request: ChatRequest | CompletionRequest, prompts: Sequence[list[int]],
                    pictures: Tensor | None) -> AsyncIterator[list[Ticket]]:
        """Tickets for prompts (or one with pictures), which are cancelled when their answers are no longer wanted."""
        count = (request.n or 1) * len(prompts)
        if count > limits.rows + limits.queue:
            raise ApiError(
                400, f"{count} completions are more than the {limits.rows + limits.queue} that one request may ask for",
                param="n")
        if model.taken + count > limits.rows + limits.queue:
            raise ApiError(429, f"the model is busy: {model.taken} samples are running or waiting; try again later",
                           "rate_limit_error", code="rate_limit_exceeded")
        sampling = sampling_of(request, model, max(map(len, prompts)))
        stop = frozenset((model.tokenizer.end_id, model.tokenizer.document_id))
        tickets = [
            Ticket(model.engine, prompt, sampling,
                   [randomness.derive(sampling.seed, place, i)
                    for i in range(request.n or 1)], stop, request.alternatives, bool(request.stream), pictures)
            for place, prompt in enumerate(prompts)
        ]
        model.taken += count
        try:
            for ticket in tickets:
                scheduler.submit(ticket)
            yield tickets
        finally:
            model.taken -= count
            for ticket in tickets:
                scheduler.cancel(ticket)

    def usage(prompts: Sequence[list[int]], samples: int) -> dict[str, int]:
        prompt_tokens = sum(map(len, prompts))
        return {"prompt_tokens": prompt_tokens, "completion_tokens": samples, "total_tokens": prompt_tokens + samples}

    def log_probs_of(chat: bool, model: Served, tokens: Sequence[int],
                     plain: Sequence[tuple[float, list[tuple[int, float]]]]) -> dict[str, Any]:
        entries = [
            token_entry(model.tokenizer, token, log_prob)
            | {"top_logprobs": [token_entry(model.tokenizer, *other) for other in others]}
            for token, (log_prob, others) in zip(tokens, plain, strict=False)
        ]
        if chat:
            return {"content": entries, "refusal": None}
        offsets, place = [], 0
        for entry in entries:
            offsets.append(place)
            place += len(entry["token"])
        return {
            "tokens": [entry["token"] for entry in entries], "token_logprobs": [entry["logprob"] for entry in entries],
            "top_logprobs": [{other["token"]: other["logprob"]
                              for other in entry["top_logprobs"]} for entry in entries], "text_offset": offsets
        }

    # answers

    async def answer(http: Request, request: ChatRequest | CompletionRequest, model: Served,
                     prompts: Sequence[list[int]], pictures: Tensor | None = None) -> Response:
        chat = isinstance(request, ChatRequest)
        head = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}", "created": int(time.time()),
            "model": model.name, "system_fingerprint": model.digest or None
        }
        metrics.add("trivium_prompt_tokens_total", sum(map(len, prompts)), model=model.name)
        begun = time.perf_counter()
        if request.stream:
            context = asked(model, request, prompts, pictures)
            tickets = await context.__aenter__()  # refusals have their own status; what comes later is in the stream
            return _Held(context, limits.seconds + LINGER, stream(tickets, request, model, prompts, head,
                                                                  begun), media_type="text/event-stream",
                         headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        samples = None
        try:
            async with asked(model, request, prompts, pictures) as tickets:
                samples = await _unless_gone(http, _in_time(limits.seconds, _samples(tickets)))
        except ApiError as error:
            if error.status == 408:
                metrics.add("trivium_cancelled_total", model=model.name)
            raise
        if samples is None:
            metrics.add("trivium_cancelled_total", model=model.name)
            return Response(status_code=499)  # nobody is there to read it
        counted = sum(len(sample.tokens) for _, sample in samples)
        metrics.add("trivium_completion_tokens_total", counted, model=model.name)
        metrics.observe("trivium_request_seconds", time.perf_counter() - begun, model=model.name)
        choices = []
        for number, (ticket, sample) in enumerate(samples):
            tokens = [token for token in sample.tokens if token not in ticket.stop]
            text = whole_text(model.tokenizer, tokens, request.stops)
            log_probs = log_probs_of(chat, model, tokens, sample.plain) if request.alternatives >= 0 else None
            content = {"message": {"role": "assistant", "content": text, "refusal": None}} if chat else {"text": text}
            choices.append({"index": number, **content, "logprobs": log_probs, "finish_reason": sample.reason})
        return JSONResponse({
            **head, "object": "chat.completion" if chat else "text_completion", "choices": choices,
            "usage": usage(prompts, counted)
        })

    async def stream(tickets: list[Ticket], request: ChatRequest | CompletionRequest, model: Served,
                     prompts: Sequence[list[int]], head: dict[str, Any], begun: float) -> AsyncIterator[bytes]:
        chat, each = isinstance(request, ChatRequest), request.n or 1
        kind = "chat.completion.chunk" if chat else "text_completion"
        with_usage = bool(request.stream_options and request.stream_options.include_usage)
        counted, finished = 0, False

        def event(number: int, text: str | None, reason: str | None, log_probs: dict[str, Any] | None,
                  opening: bool = False) -> bytes:
            content: dict[str, Any] = {
                "delta": (
                    {"role": "assistant", "content": ""} if opening else {} if text is None else {"content": text})
            } if chat else {"text": text or ""}
            choice = {"index": number, **content, "logprobs": log_probs, "finish_reason": reason}
            return _event({**head, "object": kind, "choices": [choice], **({"usage": None} if with_usage else {})})

        try:
            if chat:
                for number in range(each):
                    yield event(number, None, None, None, opening=True)
            texts = [GrowingText(model.tokenizer, request.stops) for _ in range(each * len(tickets))]
            async for place, news in _in_order(tickets, begun + limits.seconds):
                if not counted:
                    metrics.observe("trivium_first_token_seconds", time.perf_counter() - begun, model=model.name)
                out = []
                for one in news:  # what has come since is told together
                    number, said = place * each + one.sample, [] if one.token in tickets[place].stop else [one.token]
                    counted += 1
                    text = texts[number].push(said, last=one.ended is not None)
                    log_probs = log_probs_of(chat, model, said, [one.plain]) if one.plain else None
                    if text or log_probs:
                        out.append(event(number, text, None, log_probs))
                    if one.ended is not None:
                        out.append(event(number, None, one.ended.reason, None))
                yield b"".join(out)
            if with_usage:
                yield _event({**head, "object": kind, "choices": [], "usage": usage(prompts, counted)})
            yield b"data: [DONE]\n\n"
            finished = True
        except ApiError as error:
            yield _event(error.body)
        finally:
            metrics.add("trivium_completion_tokens_total", counted, model=model.name)
            if finished:
                metrics.observe("trivium_request_seconds", time.perf_counter() - begun, model=model.name)
            else:
                metrics.add("trivium_cancelled_total", model=model.name)

    # routes

    def described(kind: type[BaseModel]) -> dict[str, Any]:
        schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
        definitions = schema.pop("$defs", {})
        app.state.schemas = getattr(app.state, "schemas", {}) | definitions
        return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}

    @app.post("/v1/chat/completions", openapi_extra=described(ChatRequest))
    async def chat_completions(http: Request) -> Response:
        request = await body_of(ChatRequest, http)
        model = model_of(request.model)
        ids, pictures = await run_in_threadpool(_encoded, lambda: model.encode([m.plain() for m in request.messages]),
                                                "messages")
        return await answer(http, request, model, [ids], pictures)

    @app.post("/v1/completions", openapi_extra=described(CompletionRequest))
    async def completions(http: Request) -> Response:
        request = await body_of(CompletionRequest, http)
        model = model_of(request.model)

        def encode(prompt: str | list[int]) -> list[int]:
            if isinstance(prompt, str):
                return [model.tokenizer.document_id, *model.tokenizer.encode(prompt)]
            if not prompt or max(prompt) >= model.engine.config.vocab_size:
                raise TriviumError("a prompt of tokens is empty or holds one that the model does not know")
            return prompt

        return await answer(
            http, request, model, await
            run_in_threadpool(_encoded, lambda: [encode(prompt) for prompt in request.prompts], "prompt"))

    def card(model: Served) -> dict[str, Any]:
        return {
            "id": model.name, "object": "model", "created": model.created, "owned_by": "trivium", "stage": model.stage,
            "chat": model.chat, "digest": model.digest or None, "context": model.engine.capacity, "sees": model.eyes
            is not None
        }

    @app.get("/v1/models")
    async def list_models(http: Request) -> Response:
        check_key(http)
        return JSONResponse({"object": "list", "data": [card(model) for model in models]})

    @app.get("/v1/models/{name:path}")
    async def get_model(http: Request, name: str) -> Response:
        check_key(http)
        return JSONResponse(card(model_of(name)))

    def store() -> Store:
        if feedback is None:
            raise ApiError(404, "this server takes no feedback; start it with --feedback PROJECT")
        with opening:
            if not stores:
                stores.append(feedback())
        return stores[0]

    async def keep(write: Callable[[], Any]) -> Response:
        try:
            await run_in_threadpool(write)
        except (TriviumError, UnicodeError) as error:
            raise ApiError(400, str(error)) from error
        return JSONResponse({"kept": True})

    @app.post("/feedback/thumb", openapi_extra=described(Thumb))
    async def thumb(http: Request) -> Response:
        said = await body_of(Thumb, http)
        return await keep(lambda: store().add_thumb([m.words() for m in said.messages], said.completion, said.label,
                                                    said.who, said.model))

    @app.post("/feedback/choice", openapi_extra=described(Choice))
    async def choice(http: Request) -> Response:
        said = await body_of(Choice, http)
        better = said.better
        ranking: list[list[int]] | None = [[better], [1 - better]] if isinstance(
            better, int) else [[0, 1]] if better == "tie" else None
        return await keep(lambda: store().add_choice([m.words() for m in said.messages], said.responses, ranking, said.
                                                     who, said.models))

    @app.get("/health")
    async def health() -> Response:
        return JSONResponse({"status": "ok" if scheduler.alive else "failed", "models": list(served)},
                            200 if scheduler.alive else 503)

    @app.get("/metrics")
    async def prometheus(http: Request) -> Response:
        check_key(http)
        gauges: dict[str, dict[Labels, float]] = {
            "trivium_running_samples": {(("model", m.name),): float(len(m.engine.live))
                                        for m in models},
            "trivium_waiting_samples": {(("model", m.name),): float(max(0, m.taken - len(m.engine.live)))
                                        for m in models}
        }
        return Response(metrics.text(gauges), media_type="text/plain; version=0.0.4")

    @app.get("/settings.json")
    async def settings() -> Response:
        return JSONResponse({"key_needed": bool(digests), "feedback": feedback is not None})

    pages = {
        path: (resources.files("trivium.serving").joinpath("static", name).read_bytes(), kind)
        for path, (name, kind) in STATIC.items()
    }

    @app.get("/")
    @app.get("/{name}", include_in_schema=False)
    async def static(name: str = "") -> Response:
        if name not in pages:
            raise ApiError(404, f"there is no page {name[:80]!r} here")
        content, kind = pages[name]
        return Response(content, media_type=kind, headers={"cache-control": "no-cache"})

    usual = app.openapi

    def openapi() -> dict[str, Any]:
        schema = usual()
        schema.setdefault("components", {}).setdefault("schemas", {}).update(app.state.schemas)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
    return app


Made = TypeVar("Made")


def _encoded(make: Callable[[], Made], param: str) -> Made:
    try:
        return make()
    except TriviumError as error:
        raise ApiError(400, str(error), param=param) from error


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def _failed(error: Exception) -> ApiError:
    return ApiError(400, str(error)) if isinstance(error, TriviumError) else ApiError(
        500, "the engine failed; the server's log says why", "server_error")


async def _in_time(seconds: float, work: Awaitable[Made],
                   late: str = "the answer took more than {} seconds; ask for fewer tokens") -> Made:
    try:
        return await asyncio.wait_for(work, seconds)
    except TimeoutError as error:
        raise ApiError(408, late.format(f"{seconds:g}"), "timeout_error", code="timeout") from error


async def _samples(tickets: Sequence[Ticket]) -> list[tuple[Ticket, Sample]]:
    """All samples of all tickets, in the order in which they were asked for."""
    found = []
    for ticket in tickets:
        ended: dict[int, Sample] = {}
        while len(ended) < len(ticket.seeds):
            news = await ticket.news.get()
            if isinstance(news, Exception):
                raise _failed(news) from news
            if news.ended is not None:
                ended[news.sample] = news.ended
        found += [(ticket, ended[i]) for i in range(len(ticket.seeds))]
    return found


async def _in_order(tickets: Sequence[Ticket], deadline: float) -> AsyncIterator[tuple[int, list[News]]]:
    """What happens to tickets, one after the other, in as few pieces as there are."""
    for place, ticket in enumerate(tickets):
        left = len(ticket.seeds)
        while left:
            news = [await _in_time(max(0.0, deadline - time.perf_counter()), ticket.news.get())]
            while not ticket.news.empty():
                news.append(ticket.news.get_nowait())
            fault = next((one for one in news if isinstance(one, Exception)), None)
            if fault is not None:
                raise _failed(fault) from fault
            told = [one for one in news if not isinstance(one, Exception)]
            left -= sum(one.ended is not None for one in told)
            yield place, told


async def _unless_gone(request: Request, work: Awaitable[Made]) -> Made | None:
    """The result of ``work``, or None as soon as the client has gone away."""
    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for each in (task, watch):
            each.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


class _Held(StreamingResponse):
    """A stream that leaves ``context`` when it ends, even where its client went away before it began, or reads nothing
    and does not go: after ``seconds`` its connection is closed."""

    def __init__(self, context: contextlib.AbstractAsyncContextManager[Any], seconds: float, *given: Any,
                 **more: Any) -> None:
        super().__init__(*given, **more)
        self._context, self._seconds = context, seconds

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    await super().__call__(scope, receive, send)
        finally:
            await self._context.__aexit__(None, None, None)


class _Outer:
    """Around everything: headers that keep browsers safe, and counts by status."""

    def __init__(self, app: Any, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *HEADERS]
                route = getattr(scope.get("route"), "path", "other")
                self.metrics.add("trivium_requests_total", route=route, status=str(message["status"]))
            await send(message)

        await self.app(scope, receive, sending)
