"""The server as its clients meet it: the official client, broken ones, impatient ones, and those that go away."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import running, sampled, voted

from trivium.feedback.exports import export
from trivium.feedback.store import Store
from trivium.generation.engine import Sampling, generate
from trivium.model import folder
from trivium.serving.models import Limits
from trivium.serving.waiting import HeldStream
from trivium.tokenizer.chat import ChatTokenizer

ASKED = [{"role": "user", "content": "To be?"}]


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=server + "/v1", api_key="none", max_retries=0) as client:
        yield client


def test_the_official_client_lists_models(client):
    assert [model.id for model in client.models.list()] == ["one", "two"]
    assert client.models.retrieve("two").id == "two"
    with pytest.raises(openai.NotFoundError, match="did you mean 'two'"):
        client.models.retrieve("twoo")


def test_an_answer_is_what_the_engine_samples(client, folders):
    model, tokenizer = folder.load(folders["one"]), ChatTokenizer.load(folders["one"])
    answer = client.chat.completions.create(model="one", messages=ASKED, max_tokens=30, seed=7, n=3, logprobs=True,
                                            top_logprobs=2)
    ids = tokenizer.encode_chat(ASKED, generation_prompt=True)[0]
    expected = generate(model, [ids], Sampling(max_new_tokens=30, seed=7), [tokenizer.end_id, tokenizer.document_id],
                        3)[0]
    for choice, sample in zip(answer.choices, expected, strict=True):
        assert choice.message.content == tokenizer.decode(
            [t for t in sample.tokens if t not in (tokenizer.end_id, tokenizer.document_id)])
        assert choice.finish_reason == ("stop" if sample.finished else "length")
        assert [entry.logprob for entry in choice.logprobs.content
                ] == pytest.approx(sample.log_probs[:len(choice.logprobs.content)].tolist(), abs=1e-4)
        assert all(len(entry.top_logprobs) == 2 for entry in choice.logprobs.content)
        whole = b"".join(bytes(entry.bytes) for entry in choice.logprobs.content)
        assert whole.decode("utf-8", "replace") == choice.message.content
    assert answer.usage.prompt_tokens == len(ids) and answer.usage.completion_tokens == sum(
        len(sample.tokens) for sample in expected)
    assert len({choice.message.content for choice in answer.choices}) == 3


def test_a_stream_says_the_same(client):
    request = {"model": "one", "messages": ASKED, "max_tokens": 40, "seed": 3, "n": 2}
    whole = client.chat.completions.create(**request)
    texts, reasons, usage = ["", ""], [None, None], None
    for chunk in client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [choice.message.content for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert usage == whole.usage


def test_stop_texts_end_an_answer_before_them(client):
    free = client.completions.create(model="one", prompt="that is", max_tokens=60, temperature=0).choices[0].text
    stop = free[20:23]
    for stream in (False, True):
        got = client.completions.create(model="one", prompt="that is", max_tokens=60, temperature=0,
                                        stop=[stop, "never said"], stream=stream)
        choices = [chunk.choices[0] for chunk in got] if stream else got.choices
        text, reason = "".join(choice.text for choice in choices), choices[-1].finish_reason
        assert text == free[:free.index(stop)] and reason == "stop"


def test_text_completions_of_several_prompts(client, folders):
    tokenizer = ChatTokenizer.load(folders["one"])
    texts = client.completions.create(model="one", prompt=["to be", "or not"], max_tokens=12, seed=1, n=2, logprobs=1)
    assert [choice.index for choice in texts.choices] == [0, 1, 2, 3]
    assert all(len(choice.logprobs.tokens) == len(choice.logprobs.token_logprobs) for choice in texts.choices)
    ids = tokenizer.opened("to be")
    as_tokens = client.completions.create(model="one", prompt=ids, max_tokens=12, seed=1, n=2)
    assert [choice.text for choice in as_tokens.choices] == [choice.text for choice in texts.choices[:2]]


GOOD = {"model": "one", "messages": ASKED, "max_tokens": 2}


@pytest.mark.parametrize(("body", "status", "says"), [
    (b"{", 400, "not valid JSON"),
    (b'{"model": "one", "messages": "\xff\xfe"}', 400, "not valid UTF-8: byte 30"),
    (b"[]", 400, "a JSON object"),
    (b"[" * 100_000, 400, "not valid JSON"),
    (b'{"seed": ' + b"9" * 5000 + b"}", 400, "not valid JSON"),
    (b"x" * 10_000_000, 413, "larger than 200,000"),
    ({**GOOD, "model": "nobody"}, 404, "does not exist"),
    ({**GOOD, "temperature": -1}, 400, "temperature"),
    ({**GOOD, "temperature": float("nan")}, 400, "temperature"),
    ({**GOOD, "stop": ["x"] * 1000}, 400, "stop: List should have at most 4 items"),
    ({**GOOD, "stop": [""]}, 400, "stop.0: "),
    ({**GOOD, "messages": []}, 400, "messages"),
    ({"model": "one"}, 400, "messages"),
    ({**GOOD, "messages": [{"role": "wizard", "content": "x"}]}, 400, "messages.0.role"),
    ({**GOOD, "messages": [{"role": "user", "content": "\ud800"}]}, 400, "half of a surrogate pair"),
    ({**GOOD, "\ud800": 1}, 400, "half of a surrogate pair"),
    ({**GOOD, "stop": "\udfff"}, 400, "half of a surrogate pair"),
    ({**GOOD, "messages": [{"role": "user", "content": "be " * 9000}]}, 400, "context is 2048 tokens"),
    ({**GOOD, "max_tokens": 3000}, 400, "3000 new ones"),
    ({**GOOD, "n": 0}, 400, "n:"),
    ({**GOOD, "n": 10**6}, 400, "n:"),
    ({**GOOD, "seed": 2**64}, 400, "seed"),
    ({**GOOD, "temprature": 1}, 400, "did you mean 'temperature'"),
    ({**GOOD, "logit_bias": {"1": 5}}, 400, "not supported"),
    ({**GOOD, "max_tokens": True}, 400, "max_tokens"),
    ({**GOOD, "stream": "yes"}, 400, "stream"),
    ({**GOOD, "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]
      }, 400, "messages.0.content"),
    ({**GOOD, "model": "x" * 100_000}, 404, "does not exist"),
], ids=lambda value: str(value)[:30])
def test_bad_requests_get_clear_errors(server, body, status, says):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = httpx.post(server + "/v1/chat/completions", content=data, headers={"content-type": "application/json"})
    assert answer.status_code == status
    error = answer.json()["error"]
    assert says in error["message"] and set(error) == {"message", "type", "param", "code"} and len(
        error["message"]) < 400


def test_other_bad_requests(server):
    assert httpx.post(server + "/v1/chat/completions", json=GOOD,
                      headers={"content-type": "text/plain"}).status_code == 415
    assert httpx.get(server + "/v1/chat/completions").status_code == 405
    assert httpx.get(server + "/../../etc/passwd").status_code == 404
    assert httpx.get(server + "/v1/nothing").json()["error"]["type"] == "invalid_request_error"
    for prompt in ([], [10**6], [[]], ["a", 1], {"a": 1}):
        assert httpx.post(server + "/v1/completions", json={"model": "one", "prompt": prompt}).status_code == 400


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3), max_leaves=5)
fields = st.sampled_from([
    "messages", "prompt", "temperature", "top_p", "top_k", "min_p", "n", "seed", "stop", "stream", "logprobs",
    "top_logprobs", "max_tokens", "stream_options", "response_format", "user", "repetition_penalty"
])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(route=st.sampled_from(["chat/completions", "completions"]), changed=st.dictionaries(fields, values, max_size=3))
def test_no_request_makes_the_server_fail(server, route, changed):
    body = ({"model": "one", "messages": ASKED}
            if route.startswith("chat") else {"model": "one", "prompt": "to"}) | {"max_tokens": 2} | changed
    answer = httpx.post(f"{server}/v1/{route}", content=json.dumps(body).encode(),
                        headers={"content-type": "application/json"})
    assert answer.status_code in (200, 400), answer.text
    assert answer.status_code == 200 or answer.json()["error"]["message"]


def test_keys(folders):
    with running(folders, Limits(rows=2), keys=["secret-1", "secret-2"]) as address:
        for key in ("secret-1", "secret-2"):
            assert openai.OpenAI(base_url=address + "/v1", api_key=key).chat.completions.create(**GOOD).choices
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=address + "/v1", api_key="secret-3", max_retries=0).models.list()
        assert httpx.post(address + "/v1/chat/completions", json=GOOD).json()["error"]["code"] == "invalid_api_key"
        assert httpx.get(address + "/metrics").status_code == 401
        assert httpx.get(address + "/health").json()["status"] == "ok"
        assert "secret" not in httpx.get(address + "/settings.json").text


def test_a_full_queue_refuses_and_who_goes_away_frees_the_place(folders):
    endless = {"model": "one", "messages": ASKED, "max_tokens": 1900, "temperature": 0, "stream": True}
    with running(folders, Limits(rows=2, queue=1)) as address, httpx.Client(base_url=address) as http:
        def running_now():
            return next(
                int(line.split()[-1])
                for line in http.get("/metrics").text.splitlines()
                if line.startswith('trivium_running_samples{model="one"}'))

        streams = [http.stream("POST", "/v1/chat/completions", json=endless) for _ in range(3)]
        opened = [stream.__enter__() for stream in streams]
        assert [answer.status_code for answer in opened] == [200] * 3
        refused = http.post("/v1/chat/completions", json={**GOOD})
        assert refused.status_code == 429 and refused.headers["retry-after"] and refused.json(
        )["error"]["code"] == "rate_limit_exceeded"
        with pytest.raises(openai.RateLimitError):
            openai.OpenAI(base_url=address + "/v1", api_key="x", max_retries=0).chat.completions.create(**GOOD)
        assert http.post("/v1/chat/completions", json={**GOOD, "model": "two"
                                                       }).status_code == 200  # each model has its own
        assert running_now() == 2
        for stream in streams:
            stream.__exit__(None, None, None)
        deadline = time.time() + 5
        while running_now() and time.time() < deadline:
            time.sleep(0.02)
        assert running_now() == 0
        assert http.post("/v1/chat/completions", json=GOOD).status_code == 200
        with pytest.raises(httpx.ReadTimeout):  # one that waits for the whole answer and gives up
            http.post("/v1/chat/completions", json={**endless, "stream": False}, timeout=0.1)
        deadline = time.time() + 5
        while running_now() and time.time() < deadline:
            time.sleep(0.02)
        assert running_now() == 0


def test_an_answer_that_takes_too_long_is_cut_off(folders):
    with running(folders, Limits(rows=2, seconds=0.15)) as address:
        endless = {"model": "one", "messages": ASKED, "max_tokens": 1900, "temperature": 0}
        late = httpx.post(address + "/v1/chat/completions", json=endless)
        assert late.status_code == 408 and late.json()["error"]["code"] == "timeout"
        streamed = httpx.post(address + "/v1/chat/completions", json={**endless, "stream": True})
        assert streamed.status_code == 200 and json.loads(
            streamed.text.strip().split("\n\n")[-1][6:])["error"]["code"] == "timeout"
        assert httpx.post(address + "/v1/chat/completions", json=GOOD).status_code == 200


def test_who_reads_nothing_or_sends_half_is_let_go(folders):
    left = []

    @contextlib.asynccontextmanager
    async def place():
        try:
            yield
        finally:
            left.append(True)

    async def answers():
        yield b"data: x"

    async def reads_nothing(_):
        await asyncio.Event().wait()

    async def main():
        context = place()
        await context.__aenter__()
        await HeldStream(context, 0.05, answers())({"type": "http", "asgi": {"spec_version": "2.4"}}, reads_nothing,
                                                   reads_nothing)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:  # this thread may have a browser's loop
        pool.submit(lambda: asyncio.run(asyncio.wait_for(main(), 5))).result()
    assert left == [True]
    with running(folders, Limits(rows=2, seconds=0.2)) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=5) as half:
            half.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                b"content-length: 999\r\n\r\n{"
            )
            assert half.recv(4096).startswith(b"HTTP/1.1 408 ")


def test_many_clients_get_the_same_as_one(client):
    def ask(seed):
        return client.chat.completions.create(model="two", messages=ASKED, max_tokens=25,
                                              seed=seed).choices[0].message.content

    alone = [ask(seed) for seed in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == alone


def test_feedback_becomes_rows_for_kto_and_dpo(server, feedback):
    thumb = sampled(server, "one", 1)
    assert httpx.post(server + "/feedback/thumb", json={**thumb, "label": False}).json() == {"kept": True}
    assert httpx.post(server + "/feedback/thumb", json={**thumb, "label": True}).json() == {"kept": True}  # newest
    pairs = [voted(*(sampled(server, model, seed) for model in ("one", "two"))) for seed in (2, 3, 4)]
    for choice, better in zip(pairs, (1, "tie", "bad"), strict=True):
        assert httpx.post(server + "/feedback/choice", json={**choice, "better": better}).status_code == 200
    with Store(feedback) as store:
        (row,) = (row for row in export(store, "thumbs")
                  if row["annotator"] == "tester" and row["completion"] == thumb["completion"])
        assert row["prompt"] == thumb["messages"] and row["label"] is True and row["model"] == "one"
        (pair,) = (row for row in export(store, "pairs") if row["annotator"] == "tester")
        assert pair["prompt"] == thumb["messages"] and [pair["rejected"], pair["chosen"]] == pairs[0]["responses"]
    for bad in ({**thumb, "label": "yes"}, {**pairs[0], "better": 2}, {**pairs[0], "better": 0, "responses": ["a"]}):
        assert httpx.post(server + ("/feedback/thumb" if "label" in bad else "/feedback/choice"),
                          json=bad).status_code == 400


def test_the_command_serves_and_ends_gracefully(folders, tmp_path):
    environment = os.environ | {"TRIVIUM_API_KEYS": "key-of-mine"}
    command = [sys.executable, "-m", "trivium.cli.app", "serve", f"mine={folders['one']}", "--port", "0", "--feedback",
               str(tmp_path / "f")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    try:
        lines = [process.stdout.readline(), process.stdout.readline()]
        address = lines[1].split()[2]
        headers = {"authorization": "Bearer key-of-mine"}
        with httpx.stream(
                "POST", address + "/v1/chat/completions", headers=headers,
                json={"model": "mine", "messages": ASKED, "max_tokens": 150, "temperature": 0,
                      "stream": True}) as answer:
            pieces = answer.iter_lines()
            next(pieces)
            process.send_signal(signal.SIGTERM)
            assert [line for line in pieces if line][-1] == "data: [DONE]"
        rest = process.communicate(timeout=20)[0]
        assert process.returncode in (0, -signal.SIGTERM)
        assert "key-of-mine" not in "".join(lines) + rest and "Traceback" not in rest
    finally:
        process.kill()
