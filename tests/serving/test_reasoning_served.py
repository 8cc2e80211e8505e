"""Reasoning and tool calls over HTTP, of a small model that has learned two answers by heart."""

from __future__ import annotations

import contextlib
import json

import httpx
import pytest
import torch
from served import running

from trivium.model import LanguageModel, ModelConfig, folder
from trivium.objectives.language_modeling import token_log_probs
from trivium.serving.models import Limits
from trivium.tokenizer import train
from trivium.tokenizer.chat import ChatTokenizer

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
SUM = [{"role": "user", "content": "2+2"}]
OSLO = [{"role": "user", "content": "Oslo?"}]
LEARNED = [
    (SUM, {"role": "assistant", "content": "4", "reasoning_content": "add them"}, None),
    (OSLO, {"role": "assistant", "content": "Wait.", "reasoning_content": "ask", "tool_calls": [CALL]}, TOOLS),
    ([*OSLO, {"role": "assistant", "content": "Wait.", "tool_calls": [CALL]}, {"role": "tool", "content": "rain"}],
     {"role": "assistant", "content": "It rains."}, TOOLS),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    place = tmp_path_factory.mktemp("by heart") / "model"
    text = '<tool_call> </tool_call> <think> </think> {"name": "weather", "arguments": {"city": "Oslo"}} Tools, a line'
    tokenizer = ChatTokenizer(train.train(iter([text] * 20), 330))
    model = LanguageModel(ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=64, intermediate_size=96,
                                      num_layers=1, num_heads=4, num_kv_heads=2, head_dim=16, max_positions=512,
                                      tie_embeddings=False)).initialise(0)
    rows = [[torch.tensor(ids) for ids in tokenizer.encode_answer(*row)] for row in LEARNED]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = torch.zeros(())
        for prompt, answer in rows:
            hidden = model.model(torch.cat([prompt, answer])[None])[0, len(prompt) - 1:-1]
            loss = loss - token_log_probs(hidden, model.lm_head.weight, answer).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    place.mkdir()
    folder.save(model, place, tokenizer.ids)
    tokenizer.save(place)
    return place


@pytest.fixture(scope="module")
def address(model):
    with running({"model": model}, Limits(rows=4)) as served:
        yield served


def ask(address, messages, **more):
    answer = httpx.post(f"{address}/v1/chat/completions", timeout=60,
                        json={"model": "model", "messages": messages, "temperature": 0, "max_tokens": 120, **more})
    if not more.get("stream"):
        return answer.json()
    events = [json.loads(line[6:]) for line in answer.text.split("\n\n") if line.startswith("data: {")]
    return [event["choices"][0] for event in events if event["choices"]]


def test_reasoning_is_told_apart_or_hidden(address):
    message = ask(address, SUM)["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "4", "refusal": None, "reasoning_content": "add them"}
    assert "reasoning_content" not in ask(address, SUM, include_reasoning=False)["choices"][0]["message"]
    for told in (True, False):
        deltas = [choice["delta"] for choice in ask(address, SUM, stream=True, include_reasoning=told)]
        assert "".join(delta.get("reasoning_content", "") for delta in deltas) == ("add them" if told else "")
        assert "".join(delta.get("content") or "" for delta in deltas) == "4"


@pytest.mark.parametrize("everywhere", [True, False])
def test_hidden_reasoning_is_in_no_part_of_an_answer(model, address, everywhere):
    with running({"model": model}, Limits(rows=4), hide_reasoning=True) if everywhere else contextlib.nullcontext(
            address) as served:
        more = {"logprobs": True, "include_reasoning": everywhere}  # what the server hides, nobody can ask for
        whole = ask(served, SUM, **more)["choices"][0]
        assert whole["message"] == {"role": "assistant", "content": "4", "refusal": None}
        assert "".join(one["token"] for one in whole["logprobs"]["content"]) == "4"
        parts = ask(served, SUM, stream=True, **more)
        assert not any("reasoning_content" in part["delta"] for part in parts)
        told = [one["token"] for part in parts if part["logprobs"] for one in part["logprobs"]["content"]]
        assert "".join(told) == "4" == "".join(part["delta"].get("content") or "" for part in parts)
    shown = ask(address, SUM, logprobs=True)["choices"][0]["logprobs"]["content"]
    assert "add them" in "".join(one["token"] for one in shown)


def test_calls_come_back_as_calls_and_their_results_are_answered(address):
    choice = ask(address, OSLO, tools=TOOLS, tool_choice="auto")["choices"][0]
    called, = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] == "Wait."
    assert called["function"]["name"] == "weather" and json.loads(called["function"]["arguments"]) == {"city": "Oslo"}
    deltas = ask(address, OSLO, tools=TOOLS, stream=True)
    streamed, = [call for one in deltas for call in one["delta"].get("tool_calls", [])]
    assert streamed["function"] == called["function"] and streamed["index"] == 0
    assert deltas[-1]["finish_reason"] == "tool_calls"
    later = [*OSLO, {"role": "assistant", "content": "Wait.", "tool_calls": [called]},
             {"role": "tool", "content": "rain", "tool_call_id": called["id"]}]
    answer = ask(address, later, tools=TOOLS)["choices"][0]
    assert answer["message"]["content"] == "It rains." and answer["finish_reason"] == "stop"
    none = ask(address, SUM, tools=TOOLS, tool_choice="none")["choices"][0]["message"]
    assert none["content"] == "4"  # the prompt is as without tools


@pytest.mark.parametrize(("more", "words"), [
    ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools.0.function.name"),
    ({"tools": [{"type": "search"}]}, "tools.0.type"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"chat_template_kwargs": {"enable_thinkin": False}}, "no variable 'enable_thinkin'; known: none"),
    ({"messages": [*OSLO, {"role": "assistant"}]}, "has no content"),
    ({"messages": [*OSLO, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "no"}}]}]},
     "the arguments of a call of 'f' are not the JSON of an object"),
    ({"messages": [{"role": "tool", "content": "x", "tool_calls": [CALL]}]}, "tool_calls is the assistant's alone"),
])
def test_what_cannot_be_is_refused(address, more, words):
    body = ask(address, more.pop("messages", OSLO), **more)
    assert words in body["error"]["message"] and body["error"]["type"] == "invalid_request_error"
