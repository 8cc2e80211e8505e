"""Waiting for the engines: for samples, for the next news, and for clients that read slowly."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, TypeVar

from starlette.responses import StreamingResponse

from trivium.errors import TriviumError
from trivium.generation.engine import Sample
from trivium.serving.errors import ApiError
from trivium.serving.scheduler import News, Ticket

Result = TypeVar("Result")


async def in_time(seconds: float, work: Awaitable[Result],
                  late: str = "the answer took more than {} seconds; ask for fewer tokens") -> Result:
    """The result of ``work``. Raises :class:`ApiError` (408) when it takes longer."""
    try:
        async with asyncio.timeout(seconds):  # wait_for of Python 3.11 forgets that it was cancelled where both come
            return await work
    except TimeoutError as error:
        raise ApiError(408, late.format(f"{seconds:g}"), "timeout_error", code="timeout") from error


async def all_samples(tickets: Sequence[Ticket]) -> list[tuple[Ticket, Sample]]:
    """All samples of all tickets, in the order in which they were asked for."""
    samples = []
    for ticket in tickets:
        ended: dict[int, Sample] = {}
        while len(ended) < len(ticket.seeds):
            news = await ticket.news.get()
            if isinstance(news, Exception):
                raise _engine_error(news) from news
            if news.ended is not None:
                ended[news.sample] = news.ended
        samples += [(ticket, ended[i]) for i in range(len(ticket.seeds))]
    return samples


async def news_in_order(tickets: Sequence[Ticket], deadline: float) -> AsyncIterator[tuple[int, list[News]]]:
    """``(place of the ticket, its news)``, one ticket after the other, in as few pieces as there are."""
    for place, ticket in enumerate(tickets):
        left = len(ticket.seeds)
        while left:
            items = [await in_time(max(0.0, deadline - time.perf_counter()), ticket.news.get())]
            while not ticket.news.empty():
                items.append(ticket.news.get_nowait())
            error = next((item for item in items if isinstance(item, Exception)), None)
            if error is not None:
                raise _engine_error(error) from error
            news = [item for item in items if not isinstance(item, Exception)]
            left -= sum(item.ended is not None for item in news)
            yield place, news


def _engine_error(error: Exception) -> ApiError:
    """What a client is told of a fault in an engine."""
    if isinstance(error, TriviumError):
        return ApiError(400, str(error))
    return ApiError(500, "the engine failed; the server's log says why", "server_error")


class HeldStream(StreamingResponse):
    """A stream that leaves ``context`` when it ends, even where its client went away before it began, or reads nothing
    and does not go: after ``seconds`` its connection is closed."""

    def __init__(self, context: contextlib.AbstractAsyncContextManager[Any], seconds: float, *content: Any,
                 **options: Any) -> None:
        super().__init__(*content, **options)
        self._context, self._seconds = context, seconds

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    await super().__call__(scope, receive, send)
        finally:
            await self._context.__aexit__(None, None, None)
