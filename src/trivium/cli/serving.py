"""The command that serves models. Heavy modules are imported inside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from trivium.cli.limits import AllowHost, BodySeconds, Connections, HeadSeconds, IdleSeconds
from trivium.cli.places import check_model
from trivium.clients import Patience, names
from trivium.errors import TriviumError, extra

KEYS = "TRIVIUM_API_KEYS"


def serve(
    models: Annotated[list[str], typer.Argument(help="Models' folders, or NAME=FOLDER.")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 listens on all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8600,
    api_keys: Annotated[
        Path | None,
        typer.Option(
            help=f"File with an API key a line; without one, the keys in the environment's {KEYS}, separated by commas."
        )] = None,
    feedback: Annotated[
        str, typer.Option(
            help="Feedback project that thumbs and votes go to, made at the first; empty for none.")] = "chat-feedback",
    rows: Annotated[int, typer.Option(min=1, help="Samples computed at a time, for each model.")] = 32,
    queue: Annotated[int,
                     typer.Option(min=0, help="Samples that may wait for each model; more are refused (429).")] = 64,
    context: Annotated[int, typer.Option(min=2, help="Longest prompt with its answer, in tokens.")] = 4096,
    max_body: Annotated[int, typer.Option(min=1000, help="Largest request, in bytes (413).")] = 1_000_000,
    max_seconds: Annotated[float, typer.Option(min=0.1, help="Longest time for one answer (408).")] = 120.0,
    threads: Annotated[int, typer.Option(min=0, help="Threads of the engines; 0 for as many as there are cores.")] = 0,
    title: Annotated[str, typer.Option(help="The chat page's name.")] = "Trivium",
    greeting: Annotated[str, typer.Option(help="What the chat page says before the first message.")] = "",
    idea: Annotated[list[str] | None,
                    typer.Option(help="A message that the chat page offers for a start. Repeatable.")] = None,
    origin: Annotated[
        list[str] | None,
        typer.Option(help="A site whose pages may call the API from a browser, such as https://chat.example.com; "
                     "none unless given. Repeatable.")] = None,
    hide_reasoning: Annotated[
        bool, typer.Option("--hide-reasoning",
                           help="Leave what models think before they answer out of every answer.")] = False,
    allow_host: AllowHost = None,
    head_seconds: HeadSeconds = Patience.head,
    body_seconds: BodySeconds = Patience.body,
    idle_seconds: IdleSeconds = Patience.idle,
    connections: Connections = Patience.connections,
    form_seconds: Annotated[
        float, typer.Option(min=0.1, help="Longest time to read a JSON schema that an answer is to fit (400).")] = 5.0
) -> None:
    """Serve models: the OpenAI API under /v1, and a chat page. SIGTERM lets running answers end."""
    import torch
    with extra("serve"):
        from trivium.feedback.store import Store
        from trivium.listening import listen, server
        from trivium.serving.app import create_app
        from trivium.serving.chat_page import Page
        from trivium.serving.models import Limits, load
    from trivium.training.machine import keep_freed_memory
    keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    limits = Limits(rows, queue, max_body, max_seconds, context, body_seconds, form_seconds)
    hosts = names(host, *allow_host or [])
    origins = [site(one) for one in origin or []]
    for folder in named(models).values():
        check_model(folder)
    served = [load(name, folder, limits) for name, folder in named(models).items()]
    keys = read_keys(api_keys)
    if "*" in origins and not keys:
        raise TriviumError("--origin '*': every site that somebody here opens could use the models; set API keys too, "
                           "or name the sites")
    with listen(host, port) as listening:
        app = create_app(served, limits, keys, (lambda: Store(feedback, create=True)) if feedback else None,
                         Page.of(list(named(models).values()), title, greeting, idea or []), origins, hide_reasoning,
                         hosts)
        address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
        for model in served:
            print(f"{model.name}: {model.stage or 'a model'} with {model.context} positions")
        print(f"chat at {address}  OpenAI API at {address}/v1 (Ctrl+C ends it)", flush=True)
        if host not in ("127.0.0.1", "::1", "localhost") and not keys:
            print("no API keys are set: everybody who reaches this address can use the models", flush=True)
        server(app, Patience(head_seconds, body_seconds, idle_seconds, connections), cancels=True,
               timeout_graceful_shutdown=max(1, int(max_seconds))).run(sockets=[listening])


def named(models: list[str]) -> dict[str, Path]:
    """Folders by name: the given one, or the folder's."""
    folders: dict[str, Path] = {}
    for given in models:
        name, sign, folder = given.partition("=")
        path = Path(folder if sign else given)
        name = name if sign else path.resolve().name
        if not name or not name.isprintable() or len(name) > 100:
            raise TriviumError(f"{given!r}: the name must have 1 to 100 printable characters; write NAME=FOLDER")
        if name in folders:
            raise TriviumError(f"two models are named {name!r}; write NAME=FOLDER")
        folders[name] = path
    return folders


def site(origin: str) -> str:
    """An origin as browsers send it. Raises :class:`TriviumError` for what is none; ``*`` stands for all sites."""
    found = urlsplit(origin.strip().rstrip("/"))
    if origin.strip() == "*":
        return "*"
    if found.scheme not in ("http", "https") or not found.netloc or found.path or found.query or found.fragment:
        raise TriviumError(f"--origin {origin}: write it as https://HOST or http://HOST:PORT, without a path")
    return f"{found.scheme}://{found.netloc}".lower()


def read_keys(file: Path | None) -> list[str]:
    """The API keys of a file (one a line, # begins a comment), or of the environment. Never printed."""
    if file is not None:
        from trivium.files import read_text
        keys = [line.strip() for line in read_text(file).splitlines() if line.strip() and not line.startswith("#")]
        if not keys:
            raise TriviumError(f"{file}: holds no key; write one a line")
        return keys
    return [key.strip() for key in os.environ.get(KEYS, "").split(",") if key.strip()]
