"""The OpenAPI document: what the server really answers is what it says."""

from __future__ import annotations

import json

import httpx
import jsonschema
import pytest
from served import running, sampled

from trivium.serving.models import Limits

ASKED = {
    "model": "one",
    "messages": [{"role": "user", "content": "be"}],
    "max_tokens": 3,
    "logprobs": True,
    "top_logprobs": 1,
}
TEXT = {"model": "one", "prompt": "be", "max_tokens": 3, "logprobs": 1, "echo": True}
CALL = {
    **ASKED,
    "max_tokens": 300,
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "f",
                "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
            },
        }
    ],
    "tool_choice": "required",
    "top_k": 2,
}


@pytest.fixture(scope="module")
def document(server):
    return httpx.get(server + "/openapi.json").json()


def validate(value, document, name):
    jsonschema.Draft202012Validator({"$ref": f"#/components/schemas/{name}", **document}).validate(value)


def test_every_route_declares_its_answers_and_errors(document):
    refs = {
        ref.rpartition("/")[2] for ref in json.dumps(document).split('"') if ref.startswith("#/components/schemas/")
    }
    assert refs <= set(document["components"]["schemas"])
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            declared = set(operation["responses"])
            assert {"200", "408", "421", "503"} <= declared and "422" not in declared
            if path.startswith("/v1") or path.startswith("/feedback"):
                assert operation["security"] == [{"key": []}] and "401" in declared
                assert method == "get" or {"400", "408", "413", "415"} <= declared
            for status, said in operation["responses"].items():
                assert said["description"] and said["content"], (path, status)
    assert {"429", "404"} <= set(document["paths"]["/v1/chat/completions"]["post"]["responses"])


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/v1/chat/completions", ASKED, "ChatCompletion"),
        ("/v1/chat/completions", CALL, "ChatCompletion"),
        ("/v1/completions", TEXT, "Completion"),
        ("/v1/models", None, "Models"),
        ("/v1/models/one", None, "Model"),
        ("/health", None, "Health"),
        ("/settings.json", None, "Settings"),
        ("/v1/chat/completions", {**ASKED, "n": 0}, "Error"),
        ("/v1/models/no", None, "Error"),
        (
            "/feedback/thumb",
            {"messages": ASKED["messages"], "completion": "x", "label": None, "model": "one", "signature": "00"},
            "Error",
        ),
    ],
)
def test_answers_are_as_declared(server, document, path, body, name):
    answer = httpx.get(server + path) if body is None else httpx.post(server + path, json=body)
    operation = document["paths"]["/v1/models/{name}" if path.startswith("/v1/models/") else path]
    declared = operation["get" if body is None else "post"]["responses"][str(answer.status_code)]
    assert declared["content"]["application/json"]["schema"]["$ref"].endswith("/" + name)
    validate(answer.json(), document, name)


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/v1/chat/completions", ASKED, "ChatChunk"),
        ("/v1/chat/completions", CALL, "ChatChunk"),
        ("/v1/completions", TEXT, "Completion"),
    ],
)
def test_events_are_as_declared(server, document, path, body, name):
    answer = httpx.post(server + path, json={**body, "stream": True, "stream_options": {"include_usage": True}})
    assert (
        answer.headers["content-type"].partition(";")[0]
        in document["paths"][path]["post"]["responses"]["200"]["content"]
    )
    events = [line[6:] for line in answer.text.split("\n\n") if line]
    assert events[-1] == "[DONE]" and len(events) > 3
    for event in events[:-1]:
        validate(json.loads(event), document, name)


def test_what_is_kept_is_as_declared(server, document):
    answer = httpx.post(server + "/feedback/thumb", json={**sampled(server, "two", 5), "label": True})
    validate(answer.json(), document, "Kept")


def test_a_key_that_is_missing_is_an_error_as_declared(folders, document):
    with running({"one": folders["one"]}, Limits(rows=1), keys=["k"]) as address:
        for path in ("/v1/models", "/metrics"):
            answer = httpx.get(address + path)
            assert answer.status_code == 401
            validate(answer.json(), document, "Error")
