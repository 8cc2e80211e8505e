"""What every request of a server meets: the models, the keys, the limits on bodies, and where feedback goes."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request

from trivium.errors import TriviumError, nearest
from trivium.feedback.store import Store
from trivium.serving.errors import ApiError
from trivium.serving.metrics import Metrics
from trivium.serving.models import Encoder, Limits, Served
from trivium.serving.protocol import Body, parse
from trivium.serving.scheduler import Scheduler
from trivium.serving.signing import Signer
from trivium.serving.waiting import in_time

Result = TypeVar("Result")
log = logging.getLogger("trivium.serving")

METRICS = (
    ("trivium_requests_total", "counter", "Requests by route and status."),
    ("trivium_prompt_tokens_total", "counter", "Tokens of prompts."),
    ("trivium_completion_tokens_total", "counter", "Tokens that were sampled."),
    ("trivium_cancelled_total", "counter", "Requests whose client went away or whose time was up."),
    ("trivium_running_samples", "gauge", "Samples that are computed now."),
    ("trivium_waiting_samples", "gauge", "Samples that wait for a row."),
    ("trivium_request_seconds", "histogram", "Time to the end of an answer."),
    ("trivium_first_token_seconds", "histogram", "Time to an answer's first token."),
)


class Service:
    """One server's models and what belongs to them. ``keys`` are the API keys that are accepted (none: everybody is);
    ``feedback`` opens the store at its first use (None: no thumbs and votes); ``hides_reasoning`` keeps what models
    think before they answer from everybody."""

    def __init__(self, models: Sequence[Served | Encoder], limits: Limits, keys: Sequence[str] = (),
                 feedback: Callable[[], Store] | None = None, hides_reasoning: bool = False) -> None:
        self.models = {model.name: model for model in models if isinstance(model, Served)}
        self.encoders = {model.name: model for model in models if isinstance(model, Encoder)}
        self.limits, self.feedback, self.hides_reasoning = limits, feedback, hides_reasoning
        self.scheduler, self.metrics = Scheduler(), Metrics()
        self._keys = [hashlib.sha256(key.encode()).digest() for key in keys]
        self._store: Store | None = None
        self._signer: Signer | None = None
        self._opening = threading.Lock()
        self._forms = ThreadPoolExecutor(2, "forms")
        for metric in METRICS:
            self.metrics.describe(*metric)

    @property
    def needs_key(self) -> bool:
        """Whether clients must send an API key."""
        return bool(self._keys)

    def check_key(self, request: Request) -> None:
        """Refuse a request without a valid API key (401)."""
        if not self._keys:
            return
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        digest = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
        if scheme.lower() != "bearer" or sum(hmac.compare_digest(digest, known) for known in self._keys) == 0:
            raise ApiError(401, "no valid API key was given; send one as `Authorization: Bearer KEY`",
                           "authentication_error", code="invalid_api_key")

    def known(self, name: str) -> Served | Encoder:
        """The model of that name, whatever it is for; another one is not there (404)."""
        found = self.models.get(name) or self.encoders.get(name)
        if found is None:
            name = name if len(name) <= 80 else name[:80] + "…"
            raise ApiError(404, f"the model {name!r} does not exist{nearest(name, {**self.models, **self.encoders})}",
                           param="model", code="model_not_found")
        return found

    def model(self, name: str) -> Served:
        """The language model of that name. Raises :class:`ApiError`: 404 where it is not there, 400 for an encoder."""
        found = self.known(name)
        if isinstance(found, Encoder):
            raise ApiError(400, f"{name!r} is an encoder, which writes nothing; ask /v1/embeddings", param="model",
                           code="model_not_supported")
        return found

    def encoder(self, name: str) -> Encoder:
        """The encoder of that name. Raises :class:`ApiError`: 404 where it is not there, 400 for a language model."""
        found = self.known(name)
        if isinstance(found, Served):
            raise ApiError(400, f"{name!r} is a language model, which has no embeddings; ask an encoder"
                           + (f": {', '.join(sorted(self.encoders))[:200]}" if self.encoders else ""), param="model",
                           code="model_not_supported")
        return found

    async def compiled(self, compile_: Callable[[], Result]) -> Result:
        """What binds an answer, beside the event loop. Raises :class:`ApiError` (400) where that takes too long."""
        seconds = self.limits.form_seconds
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.get_running_loop().run_in_executor(self._forms, compile_)
        except TimeoutError as error:
            raise ApiError(400, f"the asked form is too intricate: it took more than {seconds:g} seconds to read; ask "
                           "for a simpler schema", param="response_format", code="invalid_value") from error

    def store(self) -> Store:
        """The feedback project, opened at the first call. May be called from many threads."""
        if self.feedback is None:
            raise ApiError(404, "this server takes no feedback; start it with --feedback PROJECT")
        with self._opening:
            if self._store is None:
                self._store = self.feedback()
        return self._store

    async def signer(self) -> Signer | None:
        """What signs answers; None where no feedback is taken, or its project cannot be opened, which the log says."""
        if self._signer is None and self.feedback is not None:
            try:
                self._signer = Signer((await asyncio.to_thread(self.store)).secret)
            except TriviumError as error:
                log.warning("answers get no signature, and so no feedback: %s", error)
        return self._signer

    def close(self) -> None:
        """End the engines' thread, and let go of the feedback project."""
        self.scheduler.stop()
        if self._store is not None:
            self._store.close()


async def service_of(request: Request) -> Service:
    """The server's service. A coroutine: it needs no thread."""
    service: Service = request.app.state.service
    return service


async def check_key(request: Request) -> None:
    """Refuse a request without a valid API key (401)."""
    (await service_of(request)).check_key(request)


def body(kind: type[Body]) -> Callable[[Request], Coroutine[Any, Any, Body]]:
    """A dependency: the checked body of a request with a valid key. Bodies are bounded before they are read (413, 408)
    and checked before they are used (400, 415)."""
    async def read_body(request: Request) -> Body:
        service = await service_of(request)
        service.check_key(request)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise ApiError(415, "the content type must be application/json")  # which also keeps other sites' forms out
        return parse(kind, await _read(request, service.limits))

    return read_body


async def _read(request: Request, limits: Limits) -> bytes:
    """The bytes of a body, as long as they are not too many."""
    declared, data = request.headers.get("content-length", "0"), bytearray()

    async def read() -> None:
        async for piece in request.stream():
            data.extend(piece)
            if len(data) > limits.body:
                break

    seconds = min(limits.seconds, limits.body_seconds)
    too_large = declared.isdecimal() and int(declared[:20]) > limits.body
    if not too_large:
        await in_time(seconds, read(), "the body took more than {} seconds to arrive")
    if too_large or len(data) > limits.body:
        raise ApiError(413, f"the body is larger than {limits.body:,} bytes", code="request_too_large")
    return bytes(data)


TheService = Annotated[Service, Depends(service_of)]
