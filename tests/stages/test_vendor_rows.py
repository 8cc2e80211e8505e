"""Rows as vendors write them: calls, results and reasoning in parts, in lines, in tags, in the JSON of a cell."""

from __future__ import annotations

import json

import pytest

from trivium.data.row_kinds.comparisons import comparison
from trivium.data.row_kinds.demonstrations import lesson
from trivium.data.row_kinds.fields import Fields
from trivium.data.row_kinds.messages import Reading, calls_of, messages_of
from trivium.errors import TriviumError

ASKED = {"role": "user", "content": "When is high water?"}
CALL = {"name": "tide", "arguments": {"port": "Bergen"}}


def read(row):
    """What a row gives, and what is to be said of it."""
    reading = Reading()
    return lesson(Fields(row), reading), dict(reading.notes.rows)


def test_anthropics_parts_are_openais_messages():
    said = [ASKED,
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "A tool knows.", "signature": "-"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "t1", "name": "tide", "input": {"port": "Bergen"}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "6:00"}]},
                {"type": "text", "text": "And then?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "At six."}]}]
    schema = {"type": "object", "properties": {"port": {"type": "string"}}}
    made, notes = read({"system": [{"type": "text", "text": "Be short."}], "messages": said,
                        "tools": [{"name": "tide", "description": "High water.", "input_schema": schema}]})
    call = {"type": "function", "id": "t1", "function": CALL}
    assert made == {"messages": [
        {"role": "system", "content": "Be short."}, ASKED,
        {"role": "assistant", "content": "I look.", "reasoning_content": "A tool knows.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "t1", "content": "6:00"}, {"role": "user", "content": "And then?"},
        {"role": "assistant", "content": "At six."}],
        "tools": [{"type": "function", "function": {"name": "tide", "description": "High water.",
                                                    "parameters": schema}}]}
    assert not notes


@pytest.mark.parametrize("text", [
    json.dumps(CALL) + "\n" + json.dumps(CALL), json.dumps([CALL, CALL], indent=1),
    "<tool_call>\n" + json.dumps(CALL, indent=1) + "\n</tool_call>\n<tool_call>" + json.dumps(CALL) + "</tool_call>"])
def test_several_calls_in_one_text(text):
    assert calls_of(text, "message 2") == [{"type": "function", "function": CALL}] * 2


def test_a_call_that_is_no_json_is_told():
    with pytest.raises(TriviumError, match="message 2: the call is neither an object nor the JSON of one"):
        calls_of('{"name": "tide"}\n{"name": ', "message 2")


def test_results_and_systems_without_a_content_and_names_in_capitals():
    reading = Reading()
    turns = [{"Role": "System", "Content": None}, {"Role": "User", "Content": "When?"},
             {"role": "function_call", "content": json.dumps(CALL)}, {"role": "observation", "content": None}]
    made = messages_of(turns, "messages", reading)
    assert [(turn["role"], turn["content"]) for turn in made] == [("user", "When?"), ("assistant", ""), ("tool", "")]
    assert dict(reading.notes.rows) == {"an empty system message was left out": 1}


@pytest.mark.parametrize("row", [
    {"messages": [ASKED, {"role": "assistant", "content": "<think>\nIt ebbs.\n</think>\n\nAt six.",
                          "reasoning_content": "It ebbs."}]},
    {"question": ASKED["content"], "cot": "It ebbs.", "answer": "<think>It ebbs.</think>At six."}])
def test_reasoning_that_is_given_twice_is_kept_once(row):
    assert read(row)[0]["messages"][1] == {"role": "assistant", "content": "At six.", "reasoning_content": "It ebbs."}
    row = json.loads(json.dumps(row).replace("It ebbs", "It floods", 1))
    with pytest.raises(TriviumError, match="its reasoning is given twice, and differs"):
        read(row)


def test_messages_in_a_cell_are_messages_and_other_json_is_text():
    chosen, rejected = ([{"role": "assistant", "content": text}] for text in ("At six.", "Never."))
    reading = Reading()
    made = comparison(Fields({"prompt": json.dumps([ASKED]), "chosen": json.dumps(chosen),
                              "rejected": json.dumps(rejected)}), reading)
    assert made["prompt"] == [ASKED] and made["responses"] == ["At six.", "Never."]
    assert sum(reading.notes.rows.values()) == 3
    for text in ('[{"port": "Bergen"}]', "[{]", '[{"role": "captain", "content": "x"}]', "[]"):
        assert read({"prompt": "Give me JSON.", "completion": text})[0]["messages"][1]["content"] == text


def test_an_input_belongs_to_its_question_unless_the_question_has_it():
    asked = [read(row)[0]["messages"][0]["content"] for row in (
        {"prompt": "Put into French.", "input": "the tide", "output": "la marée"},
        {"prompt": "Put into French: the tide", "input": "the tide", "output": "la marée"})]
    assert asked == ["Put into French.\n\nthe tide", "Put into French: the tide"]


@pytest.mark.parametrize(("row", "reason"), [
    ({"instruction": "When?", "output": None}, r"has the fields instruction \(empty: output\)"),
    ({"question": "Which?", "choices": ["a", "b"], "answer": 1}, "the field 'answer' is no text, but a number"),
    ({"messages": [ASKED, {"role": "assistant", "content": None, "refusal": "No."}]}, "message 2: there is no content"),
    ({"messages": [{"role": "user", "content": {"parts": ["x"]}}, ASKED]}, "the content is no text, but an object")])
def test_what_is_missing_is_named(row, reason):
    with pytest.raises(TriviumError, match=reason):
        read(row)


def test_what_is_changed_in_gsm8ks_answers_is_counted():
    assert list(read({"question": "2 + 3?", "answer": "It is <<2+3=5>>5.\n#### 5"})[1].values()) == [1]
    assert not read({"question": "2 + 3?", "answer": "It is <<2+3=5>>5."})[1]
