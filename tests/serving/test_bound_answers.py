"""Answers that are bound to a form: whatever a model of random weights draws, it parses and fits."""

from __future__ import annotations

import concurrent.futures
import functools
import json
from typing import Literal

import httpx
import jsonschema
import numpy as np
import openai
import pytest
from pydantic import BaseModel
from served import running

from trivium.generation.engine import Engine, Sampling
from trivium.model import folder
from trivium.serving.constrained import Forms
from trivium.serving.models import Limits
from trivium.serving.protocol import ChatRequest
from trivium.tokenizer.chat import ChatTokenizer

ASKED = [{"role": "user", "content": "Who?"}]


class Person(BaseModel):
    name: Literal["Ada", "王", "Zoë"]
    age: int
    friends: list[Literal["a", "b"]]


PERSON = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "age", "tags"],
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 6},
        "age": {"type": "integer", "minimum": -3, "maximum": 140},
        "tags": {"type": "array", "items": {"enum": ["x", "长", None]}, "minItems": 1, "maxItems": 3},
    },
}
TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "additionalProperties": False,
            "required": ["v"],
            "properties": {"v": {"type": "boolean"}, "left": {"$ref": "#/$defs/leaf"}},
        },
        "leaf": {"anyOf": [{"type": "null"}, {"type": "string", "pattern": "^[ab]{2,4}$"}]},
    },
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"$ref": "#/$defs/city"}},
            "required": ["city"],
            "additionalProperties": False,
            "$defs": {"city": {"enum": ["Oslo", "北京"]}},
        },
    },
}
GO = {
    "type": "function",
    "function": {
        "name": "go",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"steps": {"type": "integer", "minimum": 0, "maximum": 99}},
            "required": ["steps"],
            "additionalProperties": False,
        },
    },
}
TOOLS = {tool["function"]["name"]: tool["function"]["parameters"] for tool in (WEATHER, GO)}


def form(schema):
    return {"type": "json_schema", "json_schema": {"name": "it", "strict": True, "schema": schema}}


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=server + "/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("schema", [PERSON, TREE], ids=["person", "tree"])
def test_every_answer_fits_its_schema_whole_and_streamed(client, schema):
    request = {"model": "one", "messages": ASKED, "response_format": form(schema), "max_tokens": 300}
    for seed, temperature in enumerate([1, 2]):
        found = client.chat.completions.create(**request, n=3, seed=seed, temperature=temperature).choices
        for choice in found:
            jsonschema.validate(json.loads(choice.message.content), schema)
            assert choice.finish_reason == "stop"
        stream = client.chat.completions.create(**request, seed=seed, temperature=temperature, stream=True)
        streamed = "".join(part.choices[0].delta.content or "" for part in stream)
        assert streamed == found[0].message.content


def test_the_clients_own_helper_parses_an_answer(client):
    said = client.chat.completions.parse(
        model="one", messages=ASKED, response_format=Person, max_tokens=400, seed=2, extra_body={"top_k": 5}
    )
    assert isinstance(said.choices[0].message.parsed, Person)
    again = client.chat.completions.parse(
        model="one",
        messages=[*ASKED, said.choices[0].message, *ASKED],
        seed=3,
        response_format=Person,
        max_tokens=400,
        extra_body={"top_k": 5},
    )
    assert isinstance(again.choices[0].message.parsed, Person)


def test_bound_and_free_answers_share_a_batch(client):
    free = {"model": "two", "messages": ASKED, "max_tokens": 30}
    alone = [client.chat.completions.create(**free, seed=seed).choices[0].message.content for seed in range(3)]

    def ask(place):
        more = {"response_format": form(PERSON), "max_tokens": 300} if place % 2 else {}
        return client.chat.completions.create(**free | more, seed=place // 2).choices[0].message.content

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        found = list(pool.map(ask, range(6)))
    assert found[::2] == alone
    for text in found[1::2]:
        jsonschema.validate(json.loads(text), PERSON)


def test_an_object_of_any_kind(client):
    for seed in range(2):
        said = client.chat.completions.create(
            model="one",
            messages=ASKED,
            response_format={"type": "json_object"},
            max_tokens=200,
            seed=seed,
            extra_body={"top_k": 3},
        )
        if said.choices[0].finish_reason == "stop":
            assert isinstance(json.loads(said.choices[0].message.content), dict)
        else:
            assert said.choices[0].message.content.startswith("{")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"not": {"type": "string"}}, 'response_format: the schema cannot be kept: Unimplemented keys: ["not"]'),
        ({"type": "strin"}, "Invalid type: strin"),
        ({"type": "string", "format": "nothing"}, "Unknown format: nothing"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"$ref": "http://localhost:1/x"}, "http://localhost:1/x"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "minLength (3) is greater"),
        ({"type": "array", "uniqueItems": True, "x-guidance": {"lenient": True}}, "uniqueItems"),
        ({"type": "integer", "minimum": 10**30}, "beyond 9007199254740992"),
        ({"type": "integer", "multipleOf": 9999991}, "common multiple above 10000"),
        ({"allOf": [{"type": "integer", "multipleOf": 991}, {"multipleOf": 0.997}]}, "common multiple above 10000"),
        (
            functools.reduce(lambda inner, _: {"type": "object", "properties": {"a": inner}}, range(150), {}),
            "100 levels",
        ),
        ({"oneOf": [{"type": "number"}, {"type": "integer"}]}, "oneOf"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_schema_that_cannot_be_kept_is_refused_with_the_reason(server, schema, words):
    for body in (
        {"response_format": form(schema)},
        {"tool_choice": "required", "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]},
    ):
        answer = httpx.post(server + "/v1/chat/completions", json={"model": "one", "messages": ASKED, **body})
        error = answer.json()["error"]
        assert answer.status_code == 400 and words.partition("kept: ")[2] in error["message"], error
        assert error["param"] in ("response_format", "tools.0") and len(error["message"]) < 400


def test_a_schema_that_nothing_fits_is_refused(server):
    answer = httpx.post(
        server + "/v1/chat/completions",
        json={
            "model": "one",
            "messages": ASKED,
            "response_format": form(
                {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}
            ),
        },
    )
    said = answer.json()["error"]["message"]
    assert answer.status_code == 400 and "schema contradicts itself or never ends" in said and len(said) < 150
    body = {
        "model": "one",
        "messages": ASKED,
        "tool_choice": "required",
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}],
    }
    assert (
        "arguments are an object" in httpx.post(server + "/v1/chat/completions", json=body).json()["error"]["message"]
    )


@pytest.mark.parametrize(
    ("choice", "one", "most"),
    [("required", None, 99), ("required", False, 1), ({"type": "function", "function": {"name": "go"}}, None, 1)],
)
def test_tools_that_must_be_called_are_called_with_arguments_that_fit(client, choice, one, most):
    request = {
        "model": "one",
        "messages": ASKED,
        "tools": [WEATHER, GO],
        "tool_choice": choice,
        "max_tokens": 600,
        "parallel_tool_calls": openai.omit if one is None else one,
    }
    for seed in range(2 if one is None else 1):
        said = client.chat.completions.create(**request, seed=seed, extra_body={"top_k": 4}).choices[0]
        calls = said.message.tool_calls
        assert said.finish_reason == "tool_calls" and 1 <= len(calls) <= most and said.message.content is None
        for call in calls:
            jsonschema.validate(json.loads(call.function.arguments), TOOLS[call.function.name])
            assert isinstance(choice, str) or call.function.name == "go"
        with client.chat.completions.stream(**request, seed=seed, extra_body={"top_k": 4}) as stream:
            message = stream.get_final_completion().choices[0].message
        assert [call.function.model_dump(include={"name", "arguments"}) for call in message.tool_calls] == [
            call.function.model_dump(include={"name", "arguments"}) for call in calls
        ]
        results = [{"role": "tool", "tool_call_id": call.id, "content": "done"} for call in message.tool_calls]
        later = client.chat.completions.create(model="one", messages=[*ASKED, message, *results], max_tokens=3)
        assert later.choices


def test_a_strict_tool_among_words(client, folders):
    """Whatever begins as a call is one that fits; by a model whose words are drawn from very few."""
    request = {"model": "one", "messages": ASKED, "tools": [WEATHER, GO], "max_tokens": 60}
    said = client.chat.completions.create(**request, seed=1).choices[0]
    assert said.message.content and not said.message.tool_calls
    tokenizer = ChatTokenizer.load(folders["one"])
    for one in (None, False):
        bound = Forms(tokenizer, tokenizer.vocab_size, [tokenizer.end_id, tokenizer.document_id]).guide(
            ChatRequest.model_validate(
                {"model": "x", "messages": ASKED, "tools": [WEATHER, GO], "parallel_tool_calls": one}
            ),
            thinking=False,
        )
        for text, fits in (
            ('So.<tool_call>\n{"name": "go", "arguments": {"steps": 7}}\n</tool_call>', True),
            ('<tool_call>\n{"name": "go", "arguments": {"steps": -7}}\n</tool_call>', False),
            ('<tool_call>\n{"name": "weather", "arguments": {"city": 3}}\n</tool_call>', True),
            ("Only words < tool", True),
            ('<tool_call>\n{"name": "come"', False),
        ):
            trial = bound.copy()
            assert writes(trial, tokenizer.encode(text)) == fits, text


def writes(bound, tokens):
    for token in tokens:
        if not bound.allowed()[token]:
            return False
        bound.take(token)
    return True


def test_reasoning_comes_before_the_form(folders):
    tokenizer = ChatTokenizer.load(folders["one"])
    forms = Forms(tokenizer, tokenizer.vocab_size, [tokenizer.end_id, tokenizer.document_id])
    request = ChatRequest.model_validate({"model": "x", "messages": ASKED, "response_format": form(PERSON)})
    said = '{"name": "a", "age": 3, "tags": ["x"]}'
    assert writes(forms.guide(request, True), tokenizer.encode('Well, {"a".\n</think>\n\n' + said))
    assert not writes(forms.guide(request, True), tokenizer.encode("Well.</think>No"))
    assert writes(forms.guide(request, False), tokenizer.encode(said))
    assert not writes(forms.guide(request, False), tokenizer.encode("<think>"))


def test_a_form_that_takes_too_long_to_read_is_refused_and_others_are_answered(folders):
    wide = {"type": "object", "required": [f"k{n}" for n in range(400)], "additionalProperties": False,
            "properties": {f"k{n}": {"enum": [f"v{n}-{m}" for m in range(40)]} for n in range(400)}}
    with running({"one": folders["one"]}, Limits(rows=2, form_seconds=0.001)) as address:
        asked = {"model": "one", "messages": ASKED, "max_tokens": 5}
        slow = httpx.post(address + "/v1/chat/completions", json=asked | {"response_format": form(wide)}, timeout=60)
        assert slow.status_code == 400 and "more than 0.001 seconds to read" in slow.json()["error"]["message"]
        assert slow.json()["error"]["param"] == "response_format"
        assert httpx.post(address + "/v1/chat/completions", json=asked, timeout=60).status_code == 200


def test_a_form_that_becomes_too_intricate_ends_its_own_request_alone(folders):
    class Broken:
        left = 3

        def allowed(self):
            from trivium.errors import TriviumError

            self.left -= 1
            if self.left < 0:
                raise TriviumError("the asked form is too intricate")
            return np.ones(size, bool)

        def take(self, token):
            return False

    model = folder.load(folders["one"])
    size, engine = model.config.vocab_size, Engine(model, 4, 100)
    engine.submit([5, 6], Sampling(max_new_tokens=9, seed=1), [1], guides=[Broken()])
    engine.submit([5, 6], Sampling(max_new_tokens=9, seed=1), [1])
    ended = {}
    while engine.busy:
        ended |= {sample.request: sample for sample in engine.step() if sample.reason}
    assert ended[1].reason == "fault" and "intricate" in str(ended[1].fault) and len(ended[1].tokens) == 4
    assert ended[2].reason == "length" and len(ended[2].tokens) == 9
