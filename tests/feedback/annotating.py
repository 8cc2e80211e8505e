"""A project, the real server over it, and a real browser before it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from argon2 import PasswordHasher

from trivium.feedback import accounts
from trivium.feedback.accounts import Accounts
from trivium.feedback.store import Store
from trivium.feedback.web import COOKIE, create_app


def items(count: int, responses: int = 3) -> list[dict[str, Any]]:
    """Comparisons ``item-0`` and so on, whose response 0 is the best."""
    return [{
        "id": f"item-{i}", "prompt": f"Question number {i}?",
        "responses": [f"Answer {j} to question {i}" for j in range(responses)]
    } for i in range(count)]


@pytest.fixture(autouse=True, scope="session")
def quick_passwords() -> None:
    """The same hash at a thousandth of its cost."""
    accounts._hasher = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    accounts._NOBODY = accounts._hasher.hash("nobody")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return tmp_path / "project"


@pytest.fixture
def store(project: Path) -> Iterator[Store]:
    with Store(project, create=True) as made:
        yield made


@dataclass
class Served:
    """A running server and its store."""

    store: Store
    url: str

    def token(self, name: str, role: str = "annotator") -> str:
        """A session of somebody, who is added when new."""
        person = self.store.person(name)
        return Accounts(self.store).open_session(person.id if person else self.store.add_person(name, role))

    @contextlib.contextmanager
    def client(self, name: str, role: str = "annotator") -> Iterator[httpx.Client]:
        """Somebody with a session, whose requests carry its token against forgery."""
        token = self.token(name, role)
        with httpx.Client(base_url=self.url, cookies={COOKIE: token},
                          headers={"x-csrf-token": Accounts(self.store).csrf(token)}) as client:
            yield client


@contextlib.contextmanager
def serving(store: Store, address: str | None = None, hosts: frozenset[str] | None = None) -> Iterator[Served]:
    """The app on a free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(
            uvicorn.Config(create_app(store, address, hosts), log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            deadline = time.monotonic() + 20
            while not server.started and time.monotonic() < deadline:
                time.sleep(0.01)
            assert server.started
            yield Served(store, f"http://127.0.0.1:{listening.getsockname()[1]}")
        finally:
            server.should_exit = True
            thread.join(10)


@pytest.fixture
def served(store: Store) -> Iterator[Served]:
    with serving(store) as running:
        yield running


@pytest.fixture
def visit(chromium: Any, served: Served) -> Iterator[Callable[..., Any]]:
    """``visit(name, role)`` gives somebody's page in a browser of their own. Whatever the page or its scripts complain
    about fails the test."""
    complaints: list[str] = []
    contexts = []

    def open_page(name: str, role: str = "annotator", **options: Any) -> Any:
        context = chromium.new_context(base_url=served.url, **options)
        context.set_default_timeout(10_000)
        context.add_cookies([{"name": COOKIE, "value": served.token(name, role), "url": served.url}])
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        return page
    yield open_page
    for context in contexts:
        context.close()
    assert not complaints
