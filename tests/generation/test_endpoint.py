"""What is asked over HTTP stays with the address that was named."""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from trivium.errors import TriviumError
from trivium.generation.endpoint import Endpoint


@contextmanager
def server(host, answer):
    """A server at ``host`` that answers by ``answer(handler)``; its address, and the headers of all requests."""
    met = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            met.append(dict(self.headers))
            answer(self)

        do_GET = do_POST

        def log_message(self, *_):
            pass

    made = ThreadingHTTPServer((host, 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    try:
        yield f"http://{host}:{made.server_address[1]}", met
    finally:
        made.shutdown()
        made.server_close()


def reply(handler):
    said = b'{"choices": [{"message": {"content": "I am another."}}]}'
    handler.send_response(200)
    handler.send_header("content-length", str(len(said)))
    handler.end_headers()
    handler.wfile.write(said)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirection_is_followed(monkeypatch, status):
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    with ExitStack() as stack:
        elsewhere, met = stack.enter_context(server("127.0.0.2", reply))

        def send_on(handler):
            handler.send_response(status)
            handler.send_header("location", elsewhere)
            handler.send_header("content-length", "0")
            handler.end_headers()

        here, asked = stack.enter_context(server("127.0.0.1", send_on))
        endpoint = Endpoint(here, "judge", "JUDGE_KEY", tries=1)
        with pytest.raises(TriviumError, match=f"status {status}"):
            endpoint.ask("Which is better?")
        endpoint.check()
        assert asked[0]["Authorization"] == "Bearer sk-secret" and met == []
