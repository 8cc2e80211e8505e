"""What a token is in bytes, for tokenizers of every kind, and calls that are asked for as each template writes them."""

from __future__ import annotations

import json

import jsonschema
import numpy as np
import pytest
from making import make

from trivium.serving.constrained import Forms, Layout
from trivium.serving.errors import ApiError
from trivium.serving.protocol import ChatRequest
from trivium.serving.reading import AnswerReader
from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.named import BETTER, NEEDED, text_of
from trivium.tokenizer.token_bytes import token_bytes
from trivium.tokenizer.train import train

TOOLS = {
    "weather": {
        "type": "object",
        "properties": {"city": {"enum": ["Oslo", "北京"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "go": {
        "type": "object",
        "properties": {"steps": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["steps"],
        "additionalProperties": False,
    },
}
REQUEST = ChatRequest.model_validate(
    {
        "model": "x",
        "messages": [{"role": "user", "content": "?"}],
        "tool_choice": "required",
        "tools": [
            {"type": "function", "function": {"name": name, "parameters": schema}} for name, schema in TOOLS.items()
        ],
    }
)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """A tokenizer for each template; with "+" it has the tokens without which a template spells its marks as text."""
    root, found = tmp_path_factory.mktemp("templates"), {}
    for name in NEEDED:
        for more in {"", "+"} if name in BETTER else {""}:
            place = root / (name + more)
            make(
                place,
                "byte-nfc",
                ["<s>", "</s>", *NEEDED[name]],
                "</s>",
                text_of(name),
                bos="<s>",
                plain=BETTER[name] if more else (),
            )
            found[name + more] = ChatTokenizer.load(place)
    ChatTokenizer(train(iter(["the rain in Oslo falls mainly"] * 30), 330)).save(root / "trivium")
    return found | {"trivium": ChatTokenizer.load(root / "trivium")}


@pytest.mark.parametrize("kind", ["byte", "byte-nfc", "metaspace", "prepend", "unigram"])
def test_the_bytes_of_tokens_are_those_of_the_text(tmp_path, kind):
    make(tmp_path, kind, ["<s>", "</s>"], "</s>", text_of("plain"), bos="<s>", unk="<unk>")
    tokenizer = ChatTokenizer.load(tmp_path)
    texts = ["The ferry crossed the river", "渡船每天过河两次。", "user  model\n"] + (
        ["é🙂"] if kind != "unigram" else []
    )
    for text in texts:
        ids = tokenizer.encode(text)
        said = b"".join(token_bytes(tokenizer)[token] for token in ids).decode()
        assert said in (text, " " + text) and said.removeprefix(" ") == tokenizer.decode(ids).removeprefix(" ")


@pytest.mark.parametrize(
    ("name", "key", "between"),
    [
        ("trivium", "arguments", "\n</tool_call>\n<tool_call>\n"),
        ("chatml", "arguments", "\n</tool_call>\n<tool_call>\n"),
        ("qwen3", "arguments", "\n</tool_call>\n<tool_call>\n"),
        ("qwen3+", "arguments", "\n</tool_call>\n<tool_call>\n"),
        ("plain", "arguments", "\n</tool_call>\n<tool_call>\n"),
        ("mistral", "arguments", ", "),
        ("mistral+", "arguments", ", "),
        ("llama3", "parameters", None),
    ],
)
def test_calls_are_asked_for_as_each_template_writes_them(loaded, name, key, between):
    tokenizer = loaded[name]
    layout = Layout.of(tokenizer)
    assert (layout.key, layout.between) == (key, between)
    forms = Forms(tokenizer, tokenizer.vocab_size + 3, [tokenizer.end_id, tokenizer.document_id])
    draw = np.random.default_rng(0)
    for _ in range(4):
        bound, tokens, done = forms.guide(REQUEST, False), [], False
        while not done and len(tokens) < 600:
            allowed = np.flatnonzero(bound.allowed())
            tokens.append(int(draw.choice(allowed)))
            done = tokens[-1] in forms.stop or bound.take(tokens[-1])
        reader = AnswerReader(tools=True)
        said = reader.push(tokenizer.decode([token for token in tokens if token not in forms.stop]), last=True)
        calls = [call["function"] for delta in said for call in delta.get("tool_calls", [])]
        assert reader.calls >= 1 and not any(delta.get("content") for delta in said)
        for call in calls:
            jsonschema.validate(json.loads(call["arguments"]), TOOLS[call["name"]])


@pytest.mark.parametrize("name", ["gemma", "phi3", "zephyr"])
def test_a_template_without_calls_cannot_be_made_to_call(loaded, name):
    tokenizer = loaded[name]
    assert Layout.of(tokenizer) is None
    with pytest.raises(ApiError, match="writes no calls"):
        Forms(tokenizer, tokenizer.vocab_size, [tokenizer.end_id]).guide(REQUEST, False)
