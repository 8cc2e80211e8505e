"""What every server here does before its app has a word: time limits on connections, and how many there may be.

A connection that sends half a head, half a body or nothing, or that reads nothing, is let go after a while, however it
trickles. What a request has begun is cancelled when its client goes away.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from typing import Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from trivium.clients import Patience
from trivium.errors import TriviumError

AHEAD = 1 << 16
"""Bytes that a client may send ahead of the answer to its last request."""
SPARE = 256
"""Files that stay free for everything but connections."""
PATIENCE = 2.0
"""Seconds after a limit for which an app may still refuse a late body in its own words."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises :class:`TriviumError` where it cannot."""
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET,
                                         backlog=512)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "no address"
        raise TriviumError(f"{host}:{port}: cannot be listened on ({why}); choose another --host or --port") from error
    # or the second part of an answer waits 40 ms for the first's receipt
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def server(app: Any, patience: Patience, cancels: bool = False, **options: Any) -> uvicorn.Server:
    """A server of an app, ready to run. ``cancels`` ends the work on a request whose client has gone away, for apps
    whose routes are coroutines. ``options`` are uvicorn's."""
    connections = _room(patience.connections)

    def connection(*given: Any, **named: Any) -> Connection:
        return Connection(patience, connections, cancels, *given, **named)

    # uvicorn calls what it names a class, whatever it is
    protocol = cast(type[asyncio.Protocol], connection)
    return uvicorn.Server(uvicorn.Config(
        app, http=protocol, ws="none", timeout_keep_alive=max(1, round(patience.idle)), server_header=False,
        access_log=False, backlog=512, h11_max_incomplete_event_size=AHEAD, **{"log_level": "warning", **options}))


def _room(connections: int) -> int:
    """As many of so many connections as this process may have files open for; its limit is raised where it may be."""
    try:
        import resource
    except ImportError:  # elsewhere connections are no files
        return connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    endless, wanted = resource.RLIM_INFINITY, connections + SPARE
    if soft != endless and soft < wanted:
        soft = wanted if hard == endless else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return connections if soft == endless else max(1, min(connections, soft - min(SPARE, soft // 2)))


class Connection(H11Protocol):
    """A client's connection. Where it stands is read off h11's states; each place has its time, which no byte that
    comes in it makes longer."""

    def __init__(self, patience: Patience, connections: int, cancels: bool, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._patience, self._most, self._cancels = patience, connections, cancels
        self._place, self._ahead, self._lost = "", b"", False
        self._timer: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._work: asyncio.Task[Any] | None = None
        self._inner, self.app = self.app, self._answer

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._most:
            self._refuse(503, "the server has as many clients as it takes; come again later")
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        for timer in (self._timer, self._stalled):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        if self._cancels and self._work is not None:
            self._work.cancel()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self.conn.their_state is h11.DONE and self._work is not None:  # read on, or nobody sees the client go
            self._ahead += data
            if len(self._ahead) > AHEAD:
                self.flow.pause_reading()
            return
        super().data_received(data)
        if self.conn.their_state is h11.DONE:
            self.flow.resume_reading()
        self._look()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._ahead and not self.transport.is_closing() and self.conn.their_state is not h11.DONE:
            data, self._ahead = self._ahead, b""
            super().data_received(data)
        self._look()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(self._patience.idle, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        """The app, as a task that can be cancelled."""
        self._work = work = asyncio.current_task()
        try:
            await self._inner(scope, receive, send)
        except asyncio.CancelledError:
            if not self._lost:
                raise
        finally:
            if self._work is work:
                self._work = None
            if not self._lost:
                self.loop.call_soon(self._look)

    def _look(self) -> None:
        """See where the connection stands, and set the time for it."""
        if self._lost:
            return
        theirs, place = self.conn.their_state, "answer"
        if self.transport.is_closing():
            place = "closing"
        elif theirs is h11.SEND_BODY:
            place = "body"
        elif theirs is h11.IDLE:
            place = "head" if self.conn.trailing_data[0] else "idle"
        if place == self._place:
            return
        self._place = place
        if self._timer is not None:
            self._timer.cancel()
        seconds = {"idle": self._patience.idle, "head": self._patience.head, "closing": self._patience.idle,
                   "body": self._patience.body + PATIENCE}.get(place)
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        """The time is up."""
        if self._place == "closing":
            self.transport.abort()
        elif self._place == "idle" or self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
        else:
            self._refuse(408, f"the {self._place} of the request took too long to arrive")
        self._look()

    def _refuse(self, status: int, message: str) -> None:
        """Answer for the app, and close."""
        fault = {"message": message, "type": "timeout_error" if status == 408 else "server_error", "param": None,
                 "code": None}
        body = json.dumps({"error": fault}).encode()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # what the app still says goes nowhere
            self.cycle.message_event.set()
        head = (f"HTTP/1.1 {status} {'Request Timeout' if status == 408 else 'Service Unavailable'}\r\n"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n")
        self.transport.write(head.encode() + body)
        self.transport.close()
