"""Requests and answers as the official client makes them: its own objects go back to the server, whole, streamed and
asynchronously."""

from __future__ import annotations

import asyncio
import typing

import httpx
import openai
import pytest
from openai.types import CompletionCreateParams
from openai.types.chat import ChatCompletionMessage, ParsedChatCompletionMessage
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming

ASKED = [{"role": "user", "content": "To be?"}]
TOOL = {"type": "function", "function": {"name": "go", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=server + "/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.parametrize(
    "kept",
    [
        lambda message: message,
        lambda message: message.model_dump(),
        lambda message: message.model_dump(exclude_none=True),
    ],
    ids=["object", "dump", "without nulls"],
)
def test_a_chat_goes_on_with_the_clients_own_answer(client, kept):
    messages = list(ASKED)
    for turn in range(2):
        said = client.chat.completions.create(model="one", messages=messages, max_tokens=6, seed=turn)
        messages += [kept(said.choices[0].message), {"role": "user", "content": "And?"}]
    plain = [{"role": "user", "content": "To be?"}]
    for message in messages[1:-1]:
        content = message["content"] if isinstance(message, dict) else message.content
        plain.append({"role": "user" if len(plain) % 2 == 0 else "assistant", "content": content})
    again = client.chat.completions.create(model="one", messages=plain, max_tokens=6, seed=9)
    same = client.chat.completions.create(model="one", messages=messages[:-1], max_tokens=6, seed=9)
    assert again.choices[0].message.content == same.choices[0].message.content
    assert again.usage == same.usage  # nothing of the null fields reached the prompt


def test_a_chat_goes_on_with_what_the_streaming_helper_gave(client):
    messages = list(ASKED)
    for turn in range(2):
        with client.chat.completions.stream(
            model="one", messages=messages, seed=turn, stop=["t", "e", "o"]
        ) as stream:
            message = stream.get_final_completion().choices[0].message
        assert isinstance(message, ParsedChatCompletionMessage)
        messages += [message, {"role": "user", "content": "And?"}]
    assert client.chat.completions.create(model="one", messages=messages, max_tokens=2).choices


def test_the_asynchronous_client_holds_a_conversation(server):
    async def talk():
        async with openai.AsyncOpenAI(base_url=server + "/v1", api_key="none", max_retries=0) as client:
            messages, said = list(ASKED), []
            for turn in range(2):
                parts = await client.chat.completions.create(
                    model="one", messages=messages, max_tokens=6, seed=turn, stream=True
                )
                said.append("".join([part.choices[0].delta.content or "" async for part in parts]))
                whole = await client.chat.completions.create(model="one", messages=messages, max_tokens=6, seed=turn)
                assert whole.choices[0].message.content == said[-1]
                messages += [whole.choices[0].message, {"role": "user", "content": "And?"}]

    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(1) as pool:  # this thread may have a browser's loop
        pool.submit(lambda: asyncio.run(talk())).result()


def test_every_field_of_the_clients_types_may_be_null(server):
    message = dict.fromkeys(ChatCompletionMessage.model_fields) | {"role": "assistant", "content": "Be."}
    asked = [*ASKED, message, dict.fromkeys(["name", "content", "tool_call_id"]) | ASKED[0]]
    chat = dict.fromkeys(typing.get_type_hints(CompletionCreateParamsNonStreaming))
    text = dict.fromkeys(
        name for kind in typing.get_args(CompletionCreateParams) for name in typing.get_type_hints(kind)
    )
    assert len(chat) > 30 and len(text) > 15
    for route, body in (("chat/completions", chat | {"messages": asked}), ("completions", text | {"prompt": "be"})):
        answer = httpx.post(f"{server}/v1/{route}", json=body | {"model": "one", "max_tokens": 2})
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    "more",
    [
        {"tools": []},
        {"tool_choice": "none"},
        {"tool_choice": "auto"},
        {"tools": [], "tool_choice": "auto"},
        {"parallel_tool_calls": True},
        {"parallel_tool_calls": False},
        {"functions": []},
        {"function_call": "none"},
        {"service_tier": "auto"},
        {"store": False},
        {"metadata": {"a": "b"}},
        {"reasoning_effort": "low"},
        {"stream_options": {"include_usage": True}},
        {"max_completion_tokens": 3, "max_tokens": None},
        {"response_format": {"type": "text"}},
        {"modalities": ["text"]},
        {"verbosity": "medium"},
        {"logit_bias": {}},
        {"prompt_cache_key": "k"},
        {"safety_identifier": "s"},
        {"user": "u"},
        {"tools": [TOOL], "tool_choice": "none"},
        {"prediction": {"type": "content", "content": "x"}},
        {"stop": []},
        {"top_p": 0},
    ],
    ids=str,
)
def test_what_asks_for_nothing_is_no_fault(server, more):
    answer = httpx.post(
        server + "/v1/chat/completions", json={"model": "one", "messages": ASKED, "max_tokens": 2, **more}
    )
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"store": True}, "store: "),
        ({"service_tier": "priority"}, "service_tier: "),
        ({"verbosity": "low"}, "verbosity: "),
        ({"modalities": ["audio"]}, "modalities.0: "),
        ({"functions": [{"name": "f"}]}, "functions: "),
        ({"tool_choice": "required"}, "'required' needs tools"),
        ({"function_call": {"name": "f"}}, "function_call: "),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "goo"}}},
            "no tool 'goo'; did you mean",
        ),
        ({"temprature": None, "max_tokens": "x"}, "max_tokens: "),
        ({"prediction": "x"}, "prediction: "),
        ({"web_search_options": {}}, "unknown argument: web_search_options"),
        ({"messages": [{"role": "assistant", "content": "x", "audio": {"id": "a"}}]}, "messages.0.audio"),
        (
            {"messages": [{"role": "assistant", "function_call": {"name": "f", "arguments": ""}}]},
            "messages.0.function_call",
        ),
        ({"messages": [{"role": None, "content": "x"}]}, "messages.0.role"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_refused(server, more, words):
    answer = httpx.post(
        server + "/v1/chat/completions", json={"model": "one", "messages": ASKED, "max_tokens": 2, **more}
    )
    assert answer.status_code == 400 and words in answer.json()["error"]["message"], answer.text


def test_a_refusal_is_what_was_said(server):
    def read(message):
        return httpx.post(
            server + "/v1/chat/completions",
            json={"model": "one", "messages": [*ASKED, message, *ASKED], "max_tokens": 2},
        ).json()["usage"]["prompt_tokens"]

    assert read({"role": "assistant", "content": None, "refusal": "Not to be."}) == read(
        {"role": "assistant", "content": "Not to be."}
    )


def test_nothing_below_the_likeliest_is_drawn_at_top_p_0(client):
    likeliest = client.completions.create(model="one", prompt="or not", max_tokens=20, temperature=0).choices[0].text
    for seed in range(3):
        drawn = client.completions.create(
            model="one", prompt="or not", max_tokens=20, temperature=1.5, top_p=0, seed=seed
        )
        assert drawn.choices[0].text == likeliest


@pytest.mark.parametrize("path", ["/v1/chat/completions/", "/v1/chat/completions//"])
def test_a_slash_at_the_end_sends_nobody_elsewhere(server, path):
    answer = httpx.post(server + path, json={"model": "one", "messages": ASKED, "max_tokens": 2})
    assert answer.status_code == 200 and answer.json()["choices"]
    assert (
        httpx.get(server + "/v1/models/").json()["data"]
        and httpx.get(server + "/v1/models/two/").json()["id"] == "two"
    )
