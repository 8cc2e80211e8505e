"""The command of the studio. Heavy modules are imported inside it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Annotated

import typer

from trivium.cli.limits import AllowHost, BodySeconds, Connections, HeadSeconds, IdleSeconds
from trivium.clients import Patience, names
from trivium.errors import TriviumError, extra

KEY = "TRIVIUM_STUDIO_KEY"
HERE = ("127.0.0.1", "::1", "localhost")


def studio(
    runs: Annotated[Path, typer.Argument(help="The folder of the runs.")] = Path("runs"),
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 listens on all, and asks for a key.")] =
    "127.0.0.1", port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8500,
    at_once: Annotated[int, typer.Option(min=1, help="Runs under way at a time; more wait.")] = 1,
    title: Annotated[str, typer.Option(help="The name at the top of its pages.")] = "Trivium",
    allow_host: AllowHost = None, head_seconds: HeadSeconds = Patience.head, body_seconds: BodySeconds = Patience.body,
    idle_seconds: IdleSeconds = Patience.idle, connections: Connections = Patience.connections
) -> None:
    """Start the studio: a page to start runs, watch them, compare them, and read what models answered. Whoever may use
    it may run code here, as recipes name code: where it can be reached from elsewhere, it asks for the key in the
    environment's TRIVIUM_STUDIO_KEY, or for one that it makes up and prints."""
    with extra("annotate"):
        from trivium.listening import listen, server
        from trivium.studio.app import create_app
    if runs.exists() and not runs.is_dir():
        raise TriviumError(f"{runs}: is a file; name the folder of the runs")
    key, made = os.environ.get(KEY, ""), False
    if host not in HERE and not key:
        key, made = secrets.token_urlsafe(18), True
    with listen(host, port) as listening:
        app = create_app(runs, at_once, key, names(host, *allow_host or []), title, host)
        address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
        print(f"studio of {runs}: {address} (Ctrl+C ends it; runs go on)", flush=True)
        if made:
            print(f"its key: {key}", flush=True)
        server(app, Patience(head_seconds, body_seconds, idle_seconds, connections), cancels=True,
               timeout_graceful_shutdown=2).run(sockets=[listening])
