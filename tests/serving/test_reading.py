"""An answer is taken apart alike, however its text comes: reasoning, words, calls."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.serving.reading import AnswerReader, message_of

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Óslo"}}\n</tool_call>'
ARGUMENTS = {"city": "Óslo"}


def read(text, cuts=(), thinking=False, tools=True):
    reader = AnswerReader(thinking, tools)
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    parts = [text[a:b] for a, b in pairwise(places)]
    deltas = [delta for n, part in enumerate(parts) for delta in reader.push(part, n == len(parts) - 1)]
    return message_of(deltas), deltas


@pytest.mark.parametrize(("text", "thinking", "reasoning", "content", "calls"), [
    ("Hi.", False, None, "Hi.", 0),
    ("<think>\nadd\n</think>\n\n4", False, "add", "4", 0),
    ("add\n</think>\n\n4", True, "add", "4", 0),
    ("<think>\n\n</think>\n\n4", False, None, "4", 0),
    ("<think>\nadd and ad", False, "add and ad", "", 0),
    ("  <thin air", False, None, "  <thin air", 0),
    ("4 </think> <think> x", False, None, "4 </think> <think> x", 0),
    (CALL, False, None, None, 1),
    (f"<think>\nhm\n</think>\n\nLook:\n{CALL}\n{CALL}", False, "hm", "Look:", 2),
    ('[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Óslo"}}]', False, None, None, 1),
    ('{"name": "weather", "parameters": {"city": "Óslo"}}', False, None, None, 1),
    ('{"name": "Ada"}', False, None, '{"name": "Ada"}', 0),
    ("<tool_call>\n{no JSON\n</tool_call> so", False, None, "<tool_call>\n{no JSON\n</tool_call> so", 0),
    ("<tool_call>\n{\"na", False, None, "<tool_call>\n{\"na", 0),
])
@given(cuts=st.lists(st.integers(0, 200), max_size=6))
def test_an_answer_is_taken_apart(text, thinking, reasoning, content, calls, cuts):
    message, _ = read(text, cuts, thinking)
    assert message.get("reasoning_content") == reasoning and message["content"] == content
    found = message.get("tool_calls", [])
    assert len(found) == calls and len({call["id"] for call in found}) == calls
    for call in found:
        assert call["type"] == "function" and call["function"]["name"] == "weather"
        assert json.loads(call["function"]["arguments"]) == ARGUMENTS


TAGS = ["<think>", "</think>", "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<", "<th",
        '{"name": "f", "arguments": {}}', "\n", " ", "a", "船"]


@given(text=st.lists(st.sampled_from(TAGS), max_size=9).map("".join), cuts=st.lists(st.integers(0, 99), max_size=9),
       thinking=st.booleans(), tools=st.booleans())
def test_streamed_or_whole_it_is_the_same(text, cuts, thinking, tools):
    def plain(message):
        return {**message, "tool_calls": [call["function"] for call in message.get("tool_calls", [])]}

    assert plain(read(text, cuts, thinking, tools)[0]) == plain(read(text, (), thinking, tools)[0])


def test_without_tools_calls_are_text_and_nothing_waits():
    assert read(CALL, tools=False)[0]["content"] == CALL
    reader = AnswerReader()
    assert reader.push("It ") == [{"content": "It "}] and reader.push("is ") == [{"content": "is "}]
    words = [delta for delta in read("<think>x</think>y")[1] if "reasoning_content" not in delta]
    assert message_of(words) == {"role": "assistant", "content": "y", "refusal": None}
