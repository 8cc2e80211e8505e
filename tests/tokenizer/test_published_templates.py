"""The chat templates of other makers that TRL brings along: our tokens against those of transformers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from making import make

from trivium.tokenizer.chat import ChatTokenizer

CALL = {"type": "function", "id": "a1b2c3d4e", "function": {"name": "tide", "arguments": {"port": "Bergen"}}}
TOOL = {"type": "function", "function": {"name": "tide", "description": "High water.", "parameters": {
    "type": "object", "properties": {"port": {"type": "string", "description": "Where."}}, "required": ["port"]}}}
ASKED, ASKED_AGAIN = {"role": "user", "content": "When?"}, {"role": "user", "content": "And then?"}
ONCE, TWICE = {"role": "assistant", "content": "At six."}, {"role": "assistant", "content": "At noon."}
CHATS = {"one": [ASKED, ONCE], "system": [{"role": "system", "content": "Be short."}, ASKED, ONCE],
         "turns": [ASKED, ONCE, ASKED_AGAIN, TWICE]}
CALLS = [ASKED, {"role": "assistant", "content": "", "tool_calls": [CALL]},
         {"role": "tool", "name": "tide", "tool_call_id": "a1b2c3d4e", "content": "6:00"}, ONCE]
FOLDER = Path(pytest.importorskip("trl").__file__).parent / "chat_templates"
MARKS = r"<[|｜][^'\"{}<>\n]{1,40}?[|｜]>|<(?:start_of_turn|end_of_turn)>|\[/?(?:INST|TOOL_CALLS|TOOL_RESULTS)\]"


def both(name, path):
    """A tiny tokenizer with a published template, by us and by transformers."""
    from transformers import AutoTokenizer
    template = (FOLDER / f"{name}.jinja").read_text()
    marks = sorted(set(re.findall(MARKS, template)))
    end = next(mark for mark in (*marks, "</s>") if mark in (
        "<|im_end|>", "<|eot_id|>", "<｜end▁of▁sentence｜>", "<|end|>", "<|END_OF_TURN_TOKEN|>", "<|user|>", "</s>"))
    plain = [mark for mark in ("<think>", "</think>", "<tool_call>", "</tool_call>") if mark in template]
    folder = make(path / name, "byte", ["<s>", "</s>", *(m for m in marks if m not in ("<s>", "</s>"))], end, template,
                  bos="<s>", plain=plain)
    return ChatTokenizer.load(folder), AutoTokenizer.from_pretrained(folder)


def theirs_of(theirs, chat, tools=None):
    return theirs.apply_chat_template(chat, tools=tools, return_dict=False)


@pytest.mark.parametrize("name", ["cohere", "gemma3", "lfm2", "llama3", "llama3_1", "phi3", "qwen2_5", "qwen3",
                                  "qwen3_6", "qwen3_8", "qwen3_instruct_2507", "deepseek_r1_distill", "deepseekv3"])
def test_chats_are_encoded_alike(tmp_path, name):
    if not (FOLDER / f"{name}.jinja").exists():
        pytest.skip("this TRL has no such template")
    ours, theirs = both(name, tmp_path)
    for chat in CHATS.values():
        ids, mask = ours.encode_chat(chat)
        assert ids == theirs_of(theirs, chat)
        learned = ours.decode([id for id, flag in zip(ids, mask, strict=True) if flag])
        assert all(message["content"] in learned for message in chat if message["role"] == "assistant")
        assert "When" not in learned and "short" not in learned


@pytest.mark.parametrize("name", ["qwen3", "qwen3_6", "qwen3_8", "glm4moe_training", "nemotron_3_nano"])
def test_a_block_of_reasoning_is_written_once_however_the_row_has_it(tmp_path, name):
    if not (FOLDER / f"{name}.jinja").exists():
        pytest.skip("this TRL has no such template")
    ours, theirs = both(name, tmp_path)
    apart = [ASKED, {**ONCE, "reasoning_content": "The moon."}]
    within = [ASKED, {**ONCE, "content": "<think>\nThe moon.\n</think>\n\nAt six."}]
    assert ours.encode_chat(within) == ours.encode_chat(apart)
    assert ours.encode_chat(apart)[0] == theirs_of(theirs, apart)


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3", "qwen3_6", "llama3_1"])
def test_calls_are_encoded_alike(tmp_path, name):
    ours, theirs = both(name, tmp_path)
    assert ours.encode_chat(CALLS, tools=[TOOL])[0] == theirs_of(theirs, CALLS, [TOOL])


def test_a_template_that_wants_the_arguments_as_text_gets_them_so(tmp_path):
    ours, theirs = both("deepseekv3", tmp_path)
    said = json.dumps(CALL["function"]["arguments"])
    texts = [CALLS[0], {**CALLS[1], "tool_calls": [{**CALL, "function": {"name": "tide", "arguments": said}}]},
             *CALLS[2:]]
    ids, mask = ours.encode_chat(CALLS)
    assert ids == theirs_of(theirs, texts)
    assert said in ours.decode([id for id, flag in zip(ids, mask, strict=True) if flag])
