"""From a checked request to its answer in OpenAI's form, whole or as a stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi.responses import JSONResponse, Response
from torch import Tensor

from trivium import randomness
from trivium.generation.engine import Sample
from trivium.generation.sampling import SMALLEST, Sampling
from trivium.serving.constrained import Bound
from trivium.serving.errors import ApiError
from trivium.serving.models import Served
from trivium.serving.protocol import ChatRequest, CompletionRequest
from trivium.serving.reading import AnswerReader, Delta, message_of
from trivium.serving.scheduler import News, Ticket
from trivium.serving.service import Service
from trivium.serving.signing import Signer
from trivium.serving.telling import Telling
from trivium.serving.waiting import HeldStream, all_samples, in_time, news_in_order

LINGER = 10.0
"""Seconds after its answer's time is up for which a client that reads slowly keeps its connection."""


class Answer:
    """An answer on its way: to one chat, with its pictures, or to texts to continue, each as tokens."""

    def __init__(self, service: Service, request: ChatRequest | CompletionRequest, model: Served,
                 prompts: Sequence[list[int]], pictures: Tensor | None = None, guide: Bound | None = None) -> None:
        self.service, self.metrics = service, service.metrics
        self.request, self.model, self.prompts, self.pictures = request, model, prompts, pictures
        self.chat, self.samples_each, self.guide = isinstance(request, ChatRequest), request.n or 1, guide
        self.thinking = self.chat and model.thinks(prompts[0])
        self.echo = isinstance(request, CompletionRequest) and bool(request.echo)
        self.signer: Signer | None = None
        self.begun = time.perf_counter()
        self.head = {
            "id": f"{'chatcmpl' if self.chat else 'cmpl'}-{uuid.uuid4().hex}", "created": int(time.time()),
            "model": model.name, "system_fingerprint": model.digest or None
        }

    async def respond(self) -> Response:
        """The response. Raises :class:`ApiError` where there is none."""
        self.metrics.add("trivium_prompt_tokens_total", sum(map(len, self.prompts)), model=self.model.name)
        if self.chat:
            self.signer = await self.service.signer()
        return await (self._stream() if self.request.stream else self._whole())

    # tickets

    def _sampling(self) -> Sampling:
        """The rules of the request. Raises :class:`ApiError` where the context is too short."""
        request, longest = self.request, max(map(len, self.prompts))
        room, limit = self.model.engine.capacity - longest, request.limit
        if room < 1 or (limit is not None and limit > room):
            new = f" and {limit} new ones were asked for" if limit is not None else ""
            raise ApiError(
                400, f"this model's context is {self.model.engine.capacity} tokens; the prompt has {longest}{new}",
                param="messages" if self.chat else "prompt", code="context_length_exceeded")
        return Sampling(temperature=1.0 if request.temperature is None else request.temperature,
                        top_p=1.0 if request.top_p is None else max(request.top_p, SMALLEST),
                        top_k=request.top_k or 0, min_p=request.min_p or 0.0,
                        repetition_penalty=request.repetition_penalty or 1.0,
                        max_new_tokens=room if limit is None else max(limit, 1),
                        seed=secrets.randbits(62) if request.seed is None else request.seed, stop=request.stops)

    @contextlib.asynccontextmanager
    async def _tickets(self) -> AsyncIterator[list[Ticket]]:
        """Tickets for the prompts, which are cancelled when their answers are no longer wanted."""
        request, model, most = self.request, self.model, self.service.limits.samples
        count = self.samples_each * len(self.prompts)
        if count > most:
            raise ApiError(400, f"{count} completions are more than the {most} that one request may ask for", param="n")
        if model.taken + count > most:
            raise ApiError(429, f"the model is busy: {model.taken} samples are running or waiting; try again later",
                           "rate_limit_error", code="rate_limit_exceeded")
        sampling = self._sampling()
        stop = frozenset(model.stop)
        tickets = [
            Ticket(model.engine, prompt, sampling,
                   [randomness.derive(sampling.seed, place, i) for i in range(self.samples_each)], stop,
                   request.alternatives, bool(request.stream), self.pictures,
                   [self.guide.copy() for _ in range(self.samples_each)] if self.guide else (),
                   self.echo and request.alternatives >= 0)
            for place, prompt in enumerate(self.prompts)
        ]
        model.taken += count
        try:
            for ticket in tickets:
                self.service.scheduler.submit(ticket)
            yield tickets
        finally:
            model.taken -= count
            for ticket in tickets:
                self.service.scheduler.cancel(ticket)

    # as a whole

    async def _whole(self) -> Response:
        name = self.model.name
        try:
            async with self._tickets() as tickets:
                samples = await in_time(self.service.limits.seconds, all_samples(tickets))
        except ApiError as error:
            if error.status == 408:
                self.metrics.add("trivium_cancelled_total", model=name)
            raise
        except asyncio.CancelledError:  # the client has gone away
            self.metrics.add("trivium_cancelled_total", model=name)
            raise
        count = 0 if self.request.limit == 0 else sum(len(sample.tokens) for _, sample in samples)
        self.metrics.add("trivium_completion_tokens_total", count, model=name)
        self.metrics.observe("trivium_request_seconds", time.perf_counter() - self.begun, model=name)
        return JSONResponse({
            **self.head, "object": "chat.completion" if self.chat else "text_completion",
            "choices": [self._choice(number, *one) for number, one in enumerate(samples)], "usage": self._usage(count)
        })

    def _choice(self, number: int, ticket: Ticket, sample: Sample) -> dict[str, Any]:
        """One sample of a whole answer."""
        telling, before, heard = self._telling(), "", None
        if self.echo:
            before, heard = telling.prompt(self._shown(ticket), sample.heard)
        parts, log_probs = telling.push(self._said(ticket, sample.tokens), sample.plain, last=True)
        reason = "length" if self.request.limit == 0 else _reason(sample.reason, telling.reader)
        if self.chat:
            deltas = [part for part in parts if isinstance(part, dict)]
            return {"index": number, "message": message_of(deltas), "logprobs": self._all(log_probs),
                    "finish_reason": reason, **self._signed(telling)}
        text = before + "".join(part for part in parts if isinstance(part, str))
        return {"index": number, "text": text, "logprobs": self._all(heard, log_probs), "finish_reason": reason}

    def _telling(self) -> Telling:
        """How one sample is told."""
        hides = self.service.hides_reasoning or (isinstance(self.request, ChatRequest)
                                                 and self.request.include_reasoning is False)
        return Telling(self.model.tokenizer, self.request, self.thinking, hides)

    def _signed(self, telling: Telling) -> dict[str, str]:
        """The signature of a chat's answer that has ended, where feedback is taken."""
        if self.signer is None or not isinstance(self.request, ChatRequest) or not telling.said:
            return {}
        return {"signature": self.signer.sign(self.request.user or "", self.model.name, self.request.messages,
                                              telling.said)}

    def _said(self, ticket: Ticket, tokens: Sequence[int]) -> list[int]:
        """The tokens that are told: none that only ends the answer, none where none was asked for."""
        return [token for token in tokens if token not in ticket.stop and self.request.limit != 0]

    def _shown(self, ticket: Ticket) -> Sequence[int]:
        """A prompt as it was given, without what the model wants before every text."""
        assert isinstance(self.request, CompletionRequest)
        prompt, start = self.request.prompts[0], self.model.tokenizer.text_start
        if not isinstance(prompt, str):
            return ticket.prompt
        return [] if list(ticket.prompt) == [self.model.tokenizer.document_id] else ticket.prompt[len(start):]

    def _all(self, *told: dict[str, Any] | None) -> dict[str, Any] | None:
        """Log-probabilities together; None where none were asked for."""
        if self.request.alternatives < 0:
            return None
        names = ["content"] if self.chat else ["tokens", "token_logprobs", "top_logprobs", "text_offset"]
        return {name: [one for part in told if part for one in part[name]] for name in names} | (
            {"refusal": None} if self.chat else {})

    def _usage(self, count: int) -> dict[str, int]:
        prompt_tokens = sum(map(len, self.prompts))
        return {"prompt_tokens": prompt_tokens, "completion_tokens": count, "total_tokens": prompt_tokens + count}

    # as a stream

    async def _stream(self) -> Response:
        context = self._tickets()
        tickets = await context.__aenter__()  # refusals have their own status; what comes later is in the stream
        return HeldStream(context, self.service.limits.seconds + LINGER, self._events(tickets),
                          media_type="text/event-stream",
                          headers={"cache-control": "no-store", "x-accel-buffering": "no"})

    async def _events(self, tickets: list[Ticket]) -> AsyncIterator[bytes]:
        """Server-sent events, with what the metrics count of them."""
        name, count, finished = self.model.name, 0, False
        try:
            if self.chat:
                for number in range(self.samples_each):
                    yield self._chunk(number, {"role": "assistant", "content": ""})
            tellings = [self._telling() for _ in range(self.samples_each * len(tickets))]
            async for place, news in news_in_order(tickets, self.begun + self.service.limits.seconds):
                if not count:
                    self.metrics.observe("trivium_first_token_seconds", time.perf_counter() - self.begun, model=name)
                count += len(news) if self.request.limit != 0 else 0
                first = place * self.samples_each
                yield b"".join(  # what has come since is told together
                    chunk for one in news
                    for chunk in self._chunks(first + one.sample, one, tickets[place], tellings[first + one.sample]))
            if self._with_usage:
                yield _event({**self.head, "object": self._chunk_kind, "choices": [], "usage": self._usage(count)})
            yield b"data: [DONE]\n\n"
            finished = True
        except ApiError as error:
            yield _event(error.body)
        finally:
            self.metrics.add("trivium_completion_tokens_total", count, model=name)
            if finished:
                self.metrics.observe("trivium_request_seconds", time.perf_counter() - self.begun, model=name)
            else:
                self.metrics.add("trivium_cancelled_total", model=name)

    def _chunks(self, number: int, news: News, ticket: Ticket, telling: Telling) -> list[bytes]:
        """The events of one token of sample ``number``: its text, when some of it is sure, and the sample's end."""
        chunks = []
        if self.echo and not telling.begun:
            text, heard = telling.prompt(self._shown(ticket), news.heard)
            chunks.append(self._chunk(number, text, log_probs=heard))
        parts, log_probs = telling.push(self._said(ticket, [news.token]), [news.plain] if news.plain else [],
                                        last=news.ended is not None)
        if log_probs and not parts:
            parts = [{"content": ""} if self.chat else ""]
        chunks += [self._chunk(number, part, log_probs=None if place else log_probs)
                   for place, part in enumerate(parts)]
        if news.ended is not None:
            reason = "length" if self.request.limit == 0 else _reason(news.ended.reason, telling.reader)
            chunks.append(self._chunk(number, {} if self.chat else "", reason, more=self._signed(telling)))
        return chunks

    def _chunk(self, number: int, content: Delta | str, reason: str | None = None,
               log_probs: dict[str, Any] | None = None, more: dict[str, str] | None = None) -> bytes:
        """One event of sample ``number``, with a chat's delta or a text."""
        choice = {
            "index": number, "delta" if self.chat else "text": content, "logprobs": log_probs, "finish_reason": reason,
            **(more or {})
        }
        return _event({
            **self.head, "object": self._chunk_kind, "choices": [choice],
            **({"usage": None} if self._with_usage else {})
        })

    @property
    def _chunk_kind(self) -> str:
        return "chat.completion.chunk" if self.chat else "text_completion"

    @property
    def _with_usage(self) -> bool:
        return bool(self.request.stream_options and self.request.stream_options.include_usage)


def _reason(reason: str | None, reader: AnswerReader | None) -> str | None:
    """Why a sample ended, in OpenAI's words."""
    return "tool_calls" if reason == "stop" and reader and reader.calls else reason


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"
