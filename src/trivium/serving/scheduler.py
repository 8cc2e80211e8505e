"""One thread that steps the engines of all models, and the asyncio side's way to it."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from trivium.errors import TriviumError
from trivium.generation.engine import Engine, Guide, Sample
from trivium.generation.sampling import Sampling

log = logging.getLogger("trivium.serving")


class News(NamedTuple):
    """One token of one sample, or its end."""

    sample: int
    token: int
    plain: tuple[float, list[tuple[int, float]]] | None
    ended: Sample | None
    heard: Sequence[tuple[float, list[tuple[int, float]]]] = ()
    """What was made of the prompt's tokens, where that was asked for."""


@dataclass(eq=False)
class Ticket:
    """A request on its way. ``news`` fills in the event loop: every token when ``each``, else only samples that ended;
    an exception when the engine failed."""

    engine: Engine
    prompt: Sequence[int]
    sampling: Sampling
    seeds: Sequence[int]
    stop: frozenset[int]
    top: int
    each: bool
    pictures: Tensor | None = None
    guides: Sequence[Guide] = ()
    echo: bool = False
    news: asyncio.Queue[News | Exception] = field(default_factory=asyncio.Queue)
    request: int = 0
    cancelled: bool = False


class Scheduler:
    """Owns the engines' thread. All methods are called from the event loop; :meth:`start` first."""

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[tuple[str, Ticket | None]] = queue.SimpleQueue()
        self._tickets: dict[tuple[int, int], Ticket] = {}
        self._engines: list[Engine] = []
        self._thread = threading.Thread(target=self._run, name="engines", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin to work for the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def submit(self, ticket: Ticket) -> None:
        """Queue a request."""
        self._inbox.put(("submit", ticket))

    def cancel(self, ticket: Ticket) -> None:
        """Forget a request; its rows are free before the next step."""
        self._inbox.put(("cancel", ticket))

    def stop(self) -> None:
        """End the thread, whatever is left."""
        self._inbox.put(("stop", None))
        if self._thread.is_alive():
            self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while True:
            busy = [engine for engine in self._engines if engine.busy]
            try:
                while True:
                    what, ticket = self._inbox.get(block=not busy)
                    if ticket is None:
                        return
                    (self._submit if what == "submit" else self._cancel)(ticket)
                    busy = [engine for engine in self._engines if engine.busy]
            except queue.Empty:
                pass
            self._tell([item for engine in busy for item in self._step(engine)])

    def _step(self, engine: Engine) -> list[tuple[Ticket, News | Exception]]:
        """One step of an engine, and what its clients must hear of it."""
        items: list[tuple[Ticket, News | Exception]] = []
        try:
            for sample in engine.step():
                ticket = self._tickets[id(engine), sample.request]
                if sample.fault:
                    items.append((ticket, sample.fault))
                elif ticket.each or sample.reason:
                    plain = sample.plain[-1] if sample.plain else None
                    items.append((ticket, News(sample.index, sample.tokens[-1], plain,
                                               sample if sample.reason else None, sample.heard)))
        except Exception as error:  # whatever an engine does, the server lives on and its clients are told
            log.exception("a step of the engine failed")
            for ticket in [ticket for ticket in self._tickets.values() if ticket.engine is engine]:
                items.append((ticket, error))
                self._cancel(ticket)
        return items

    def _submit(self, ticket: Ticket) -> None:
        if ticket.cancelled:
            return
        try:
            ticket.request = ticket.engine.submit(ticket.prompt, ticket.sampling, ticket.seeds, ticket.stop, ticket.top,
                                                  ticket.pictures, ticket.guides, ticket.echo)
        except Exception as error:  # one request must not end the thread
            if not isinstance(error, TriviumError):
                log.exception("a request could not be queued")
            self._tell([(ticket, error)])
            return
        if ticket.engine not in self._engines:
            self._engines.append(ticket.engine)
        self._tickets[id(ticket.engine), ticket.request] = ticket

    def _cancel(self, ticket: Ticket) -> None:
        ticket.cancelled = True
        if self._tickets.pop((id(ticket.engine), ticket.request), None):
            ticket.engine.cancel(ticket.request)

    def _tell(self, items: list[tuple[Ticket, News | Exception]]) -> None:
        if not items or self._loop is None or self._loop.is_closed():
            return

        def tell() -> None:
            for ticket, news in items:
                ticket.news.put_nowait(news)

        self._loop.call_soon_threadsafe(tell)
