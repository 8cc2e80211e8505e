"""Clients that keep a server waiting, go away, or name another one: real sockets on a real server."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from served import running

from trivium.clients import Patience, answers_to, names
from trivium.errors import TriviumError
from trivium.serving.models import Limits

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
BODY = (b'{"model": "one", "messages": [{"role": "user", "content": "be"}], "max_tokens": 1500, "temperature": 0, '
        b'"stream": %s}')
SHORT = Patience(head=0.3, body=0.3, idle=0.6, connections=400)


def whole(stream=b"false"):
    body = BODY % stream
    return HEAD + b"content-length: %d\r\n\r\n" % len(body) + body


def connect(address):
    host, _, port = address.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def told(half):
    """All that comes until the server closes."""
    found = b""
    try:
        while data := half.recv(65536):
            found += data
    except ConnectionResetError:
        pass
    return found


@pytest.fixture(scope="module")
def hasty(folders):
    with running({"one": folders["one"]}, Limits(rows=2, body_seconds=0.3), patience=SHORT) as address:
        yield address


@pytest.mark.parametrize(("begun", "status"), [
    (b"", b""), (b"POST /v1/chat", b"408"), (HEAD, b"408"), (HEAD + b"content-length: 99\r\n\r\n{", b"408"),
    (HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\n{", b"408"),
    (b"GET /health HTTP/1.1\r\nhost: localhost\r\n", b"408"),
    (b"POST /health HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99\r\n\r\n{", b"405"),
])  # fmt: skip
def test_hundreds_of_half_requests_all_end(hasty, begun, status):
    halves = [connect(hasty) for _ in range(100)]
    for half in halves:
        half.sendall(begun)
    assert httpx.get(hasty + "/health").status_code == 200
    answers = {told(half)[:12] for half in halves}  # would time out if one stayed open
    for half in halves:
        half.close()
    assert answers == {b"HTTP/1.1 " + status if status else b""}


def test_a_trickle_makes_no_limit_longer(hasty):
    with connect(hasty) as slow:
        begun = time.monotonic()
        with pytest.raises(OSError):
            for _ in range(100):
                slow.sendall(b"P")
                time.sleep(0.05)
            raise AssertionError("still open")
        assert time.monotonic() - begun < 4


def test_a_connection_is_kept_for_more_requests(hasty):
    with connect(hasty) as one:
        one.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n" * 3)  # three at once, ahead of the answers
        assert told(one).count(b"HTTP/1.1 200") == 3


def test_too_many_connections_are_refused_and_the_others_served(folders):
    with running({"one": folders["one"]}, Limits(rows=2), patience=Patience(connections=5)) as address:
        held = [connect(address) for _ in range(5)]
        time.sleep(0.2)
        with connect(address) as more:
            assert told(more).startswith(b"HTTP/1.1 503")
        held[0].sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        assert told(held[0]).startswith(b"HTTP/1.1 200")
        for one in held:
            one.close()


def opened(pid):
    """The sockets that a process has open."""
    found = 0
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found += os.readlink(file).startswith("socket:")
    return found


def resident(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts in /proc")
@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.long)])
def test_clients_that_hang_up_leave_nothing(folders, count):
    command = [sys.executable, "-m", "trivium.cli.app", "serve", f"one={folders['one']}", "--port", "0",
               "--feedback", "", "--rows", "8"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = [process.stdout.readline() for _ in range(2)][1].split()[2]
            assert httpx.get(address + "/health").status_code == 200
            before, memory = opened(process.pid), []
            for _ in range(2):
                for number in range(count):
                    gone = connect(address)
                    gone.sendall((whole(), whole(b"true"), whole() * 2, whole()[:-5])[number % 4])
                    gone.close()
                metrics = ""
                for _ in range(400):
                    metrics = httpx.get(address + "/metrics", timeout=60).text
                    if opened(process.pid) <= before + 1 and 'waiting_samples{model="one"} 0' in metrics and (
                            'running_samples{model="one"} 0' in metrics):
                        break
                    time.sleep(0.05)
                assert opened(process.pid) <= before + 1 and 'running_samples{model="one"} 0' in metrics
                memory.append(resident(process.pid))
            assert memory[1] - memory[0] < 30  # MiB
        finally:
            process.terminate()


@pytest.mark.parametrize(("host", "status"), [
    ("localhost", 200), ("LOCALHOST:8600", 200), ("127.0.0.1", 200), ("127.9.9.9:1", 200), ("[::1]:8600", 200),
    ("app.localhost", 200), ("localhost.", 200), ("evil.example", 421), ("localhost.evil.example", 421),
    ("127.0.0.1.evil.example", 421), ("10.0.0.1", 421), ("127.0.0.1@evil.example", 421), ("", 421), ("[::1", 421),
    ("evil.example:8600", 421), ("0.0.0.0", 421), ("localhost:x", 421),
])  # fmt: skip
def test_only_requests_that_name_this_machine_are_answered(server, host, status):
    connection = http.client.HTTPConnection(server.removeprefix("http://"))
    for path in ("/", "/v1/models", "/settings.json"):
        connection.request("GET", path, headers={"host": host})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
    connection.close()


def test_with_a_key_any_name_will_do(folders):
    with running({"one": folders["one"]}, Limits(rows=2), keys=["k"]) as address:
        assert httpx.get(address + "/v1/models", headers={"host": "models.example.com", "authorization": "Bearer k"}
                         ).status_code == 200


def test_names_that_are_allowed():
    own = names("10.1.2.3", "models.example.com", "[2001:db8::1]")
    assert all(answers_to(own, host)
               for host in ("10.1.2.3:80", "Models.Example.com", "[2001:DB8:0::1]:9", "localhost"))
    assert not any(answers_to(own, host) for host in ("10.1.2.4", "example.com", "x.models.example.com"))
    everywhere = names("0.0.0.0")
    assert answers_to(everywhere, "192.168.1.9:8600") and not answers_to(everywhere, "evil.example")
    assert names("0.0.0.0", "*") is None
    for wrong in ("", "http://x", "a b", "x/y"):
        with pytest.raises(TriviumError, match="--allow-host"):
            names("127.0.0.1", wrong)
