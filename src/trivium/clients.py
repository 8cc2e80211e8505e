"""What a server expects of its clients: that they name it, and keep it waiting for no longer than so long.

Where there is no key, only requests that name this machine are answered: a page of another site, whose owner lets that
site's name point here (DNS rebinding), names the site.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from trivium.errors import TriviumError


@dataclass(frozen=True)
class Patience:
    """How long a server waits for its clients, in seconds, and for how many of them."""

    head: float = 10.0
    """For the whole head of a request, from its first byte; then it is refused (408)."""
    body: float = 30.0
    """For the whole body, from the end of the head; then it is refused (408)."""
    idle: float = 30.0
    """For the first byte of a request, and for a client that reads nothing of its answer; then the connection is
    closed."""
    connections: int = 1000
    """Connections at a time; more are closed at once (503)."""


def names(host: str, *more: str) -> frozenset[str] | None:
    """The names by which a server may be asked: those of this machine itself, the one it listens on, and ``more``; None
    for any, where ``more`` has ``*``. One that listens on all addresses may be asked by any address, though by no other
    name. Raises :class:`TriviumError` for what is no name."""
    found = {"localhost"}
    for given in (host, *more):
        name = _bare(given)
        if name is None:
            raise TriviumError(f"--allow-host {given}: write a name or an address, such as models.example.com")
        found.add(name)
    return None if "*" in found else frozenset(found)


def answers_to(known: frozenset[str], host: str) -> bool:
    """Whether a request with this ``Host`` is meant for a server of these names."""
    name = _bare(host)
    if name is None:
        return False
    if name in known or name.endswith(".localhost"):
        return True
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(name)
        return address.is_loopback or bool({"0.0.0.0", "::"} & known)
    return False


def _bare(host: str) -> str | None:
    """A host's name as it is compared: without its port, in small letters; None for what is none."""
    host = host.strip().lower()
    if host.count(":") > 1 and not host.startswith("["):
        host = f"[{host}]"
    name, closed, port = host[1:].partition("]") if host.startswith("[") else host.partition(":")
    port = port.removeprefix(":") if host.startswith("[") else port
    if (host.startswith("[") and not closed) or not ((port.isascii() and port.isdecimal()) or not port):
        return None
    name = name.rstrip(".")
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(name))
    return name if name and not set(name) & set(" /@:[]\\,?#") else None


class Hosts:
    """ASGI middleware: answers only requests that name this server (421). ``refusal`` makes the answer of a message. A
    request without a ``Host`` comes from no browser."""

    def __init__(self, app: Any, known: frozenset[str], refusal: Callable[[str], Any]) -> None:
        self.app, self.known, self.refusal = app, known, refusal

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        hosts: Sequence[str] = [value.decode("latin-1") for name, value in scope.get("headers", ()) if name == b"host"]
        app = self.app
        if scope["type"] in ("http", "websocket") and not all(answers_to(self.known, host) for host in hosts):
            app = self.refusal(f"this server does not answer to the name {hosts[0][:80]!r}; whoever runs it can allow "
                               "it with --allow-host NAME")
        await app(scope, receive, send)
