"""The options of every command that starts a server: what it expects of its clients."""

from __future__ import annotations

from typing import Annotated

import typer

AllowHost = Annotated[
    list[str] | None,
    typer.Option(help="A further name by which the server may be asked, such as models.example.com, or '*' for any; "
                 "names of this machine and that of --host always may. Repeatable.")]
HeadSeconds = Annotated[float, typer.Option(min=0.1, help="Longest time for a request's head to arrive (408).")]
BodySeconds = Annotated[float, typer.Option(min=0.1, help="Longest time for a request's body to arrive (408).")]
IdleSeconds = Annotated[
    float, typer.Option(min=1, help="A connection that says nothing, or reads nothing, for so long is closed.")]
Connections = Annotated[int, typer.Option(min=1, help="Connections at a time; more are closed at once (503).")]
