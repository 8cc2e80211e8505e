"""Asking a model behind an address that speaks OpenAI's protocol."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from trivium.errors import TriviumError
from trivium.files import Journal, digest_json

T = TypeVar("T")
ANSWER_BYTES = 1 << 24
"""Most bytes that are read of a reply."""
LONGEST_PAUSE = 30.0
"""Seconds between two attempts, at most."""


def shown_address(address: str) -> str:
    """An address as it may be shown: without the name and the password before its host."""
    scheme, slashes, rest = address.partition("://")
    authority, slash, path = (rest if slashes else scheme).partition("/")
    return f"{scheme + slashes if slashes else ''}{authority.rpartition('@')[2]}{slash}{path}"


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """Leaves a redirection unfollowed: the key and the question are for the address that was named."""

    def redirect_request(self, *_: Any) -> None:
        """No other request: the status is then an error."""


class Endpoint:
    """A model behind an address. Its key comes from the environment variable ``key_variable`` and is neither kept nor
    logged. Redirections are not followed."""

    def __init__(self, address: str, model: str, key_variable: str = "", tries: int = 4, timeout: float = 60.0,
                 pause: float = 1.0, workers: int = 8) -> None:
        if not address.startswith(("http://", "https://")):
            raise TriviumError(f"endpoint {shown_address(address)}: an address begins with http:// or https://")
        if shown_address(address) != address:
            raise TriviumError(f"endpoint {shown_address(address)}: an address that holds a name and a password would "
                               "stand in errors and manifests; name the variable that holds the key instead")
        self.address, self.model = address.rstrip("/"), model
        self.key = os.environ.get(key_variable, "")
        self.tries, self.timeout, self.pause, self.workers = tries, timeout, pause, workers
        near = urllib.parse.urlsplit(address).hostname in ("localhost", "127.0.0.1", "::1")
        self.opener = urllib.request.build_opener(NoRedirects, *([urllib.request.ProxyHandler({})] if near else []))

    def check(self, seconds: float = 10.0) -> None:
        """Raise :class:`TriviumError` that names the address where nobody answers there, or the key is refused: one
        request for its list of models, before time is spent on what it is to judge. Servers without such a list will
        do."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        try:
            with self.opener.open(urllib.request.Request(f"{self.address}/models", headers=headers), timeout=seconds):
                return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in (401, 403):
                raise TriviumError(f"endpoint {self.address}: status {error.code}: the key is missing or refused"
                                   ) from error
        except OSError as error:
            reason = getattr(error, "reason", error)
            problem = getattr(reason, "strerror", None) or str(reason) or "no answer"
            raise TriviumError(f"endpoint {self.address}: cannot be reached ({problem}); see that it runs") from error

    def ask(self, text: str, temperature: float = 0.0, max_tokens: int = 256, seed: int | None = None) -> str:
        """The reply to one message. Raises :class:`TriviumError` that names the address when none comes."""
        body: dict[str, Any] = {
            "model": self.model, "temperature": temperature, "max_tokens": max_tokens,
            "messages": [{"role": "user", "content": text}]
        } | ({} if seed is None else {"seed": seed})

        def text_of(reply: Any) -> str:
            said = reply["choices"][0]["message"]["content"]
            if not isinstance(said, str):
                raise ValueError("its reply has no text")
            return said

        return self.post("/chat/completions", body, text_of)

    def post(self, path: str, body: dict[str, Any] | None, read: Callable[[Any], T]) -> T:
        """What ``read`` makes of the reply to a request, of JSON or empty. While the endpoint is busy or away, or its
        reply is none that ``read`` understands (it raises ValueError or KeyError), the same is asked again after
        growing pauses; a status that says the request is wrong ends it at once. Raises :class:`TriviumError` that names
        the address when nothing comes of it."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        problem = ""
        for attempt in range(self.tries):
            if attempt:
                time.sleep(min(self.pause * 2 ** (attempt - 1), LONGEST_PAUSE))
            request = urllib.request.Request(f"{self.address}{path}",
                                             b"" if body is None else json.dumps(body).encode(), headers)
            try:
                with self.opener.open(request, timeout=self.timeout) as reply:
                    said = reply.read(ANSWER_BYTES)
                return read(json.loads(said) if said.strip() else None)
            except urllib.error.HTTPError as error:
                problem = f"status {error.code}: {' '.join(error.read(300).decode('utf-8', 'replace').split())}"
                error.close()
                if error.code not in (408, 409, 425, 429) and error.code < 500:
                    break
            except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
                problem = str(error) or type(error).__name__
        raise TriviumError(
            f"endpoint {self.address}: {problem}; see that it runs and its key is set, and run the same command again")

    def ask_all(self, texts: Sequence[str], progress: Callable[[int, int], None] = lambda done, total: None,
                temperature: float = 0.0, max_tokens: int = 256, kept: Path | None = None) -> list[str]:
        """:meth:`ask` for many texts, several at a time, in their order. Replies are ``kept`` in a file as they come,
        where one is named, and what is in it is not asked again."""
        journal = Journal(kept) if kept else None

        def one(text: str) -> str:
            def ask() -> str:
                return self.ask(text, temperature, max_tokens)
            return journal(digest_json([self.model, temperature, max_tokens, text]), ask) if journal else ask()

        return self.at_once(one, [texts], progress)

    def at_once(self, call: Callable[..., Any], columns: Sequence[Sequence[Any]],
                progress: Callable[[int, int], None]) -> list[Any]:
        """``call`` for each row of some columns, several at a time, in their order."""
        found: list[Any] = []
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                for one in pool.map(call, *columns):
                    found.append(one)
                    progress(len(found), len(columns[0]))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return found
