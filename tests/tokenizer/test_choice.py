"""Templates by name: what each writes, what a vocabulary must have, a default system message, and a fixed day."""

from __future__ import annotations

from datetime import date

import pytest
from making import make

from trivium.errors import TriviumError
from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.choice import choose
from trivium.tokenizer.train import train

MARKS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
         "<start_of_turn>", "<end_of_turn>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Hi "},
        {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "So?"}]
PUBLISHED = {
    "chatml": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi <|im_end|>\n<|im_start|>assistant\n"
              "Yes.<|im_end|>\n<|im_start|>user\nSo?<|im_end|>\n<|im_start|>assistant\n",
    "llama3": "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user"
              "<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nYes.<|eot_id|>"
              "<|start_header_id|>user<|end_header_id|>\n\nSo?<|eot_id|>"
              "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": "<s>[INST] Be brief.\n\n Hi [/INST] Yes.</s>[INST] So?[/INST]",
    "gemma": "<s><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nYes.<end_of_turn>\n"
             "<start_of_turn>user\nSo?<end_of_turn>\n<start_of_turn>model\n",
    "phi3": "<|system|>\nBe brief.<|end|>\n<|user|>\n Hi <|end|>\n<|assistant|>\nYes.<|end|>\n<|user|>\nSo?<|end|>\n"
            "<|assistant|>\n",
    "zephyr": "<|system|>\nBe brief.</s>\n<|user|>\n Hi </s>\n<|assistant|>\nYes.</s>\n<|user|>\nSo?</s>\n"
              "<|assistant|>\n",
    "plain": "<s><|system|>\nBe brief.\n<|user|>\n Hi \n<|assistant|>\nYes.</s>\n<|user|>\nSo?\n<|assistant|>\n",
}
PUBLISHED["qwen3"] = PUBLISHED["chatml"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return ChatTokenizer.load(make(tmp_path_factory.mktemp("base"), "byte", MARKS, "</s>", bos="<s>"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_template_writes_what_its_family_does(base, name, tmp_path):
    from transformers import AutoTokenizer
    chosen, _ = choose(base, name)
    assert chosen.render(CHAT, True) == PUBLISHED[name]
    chosen.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.apply_chat_template(CHAT, add_generation_prompt=True, tokenize=False) == PUBLISHED[name]
    assert theirs.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False) == chosen.encode_chat(
        CHAT, True)[0]
    assert ChatTokenizer.load(tmp_path).encode_chat(CHAT[:3]) == chosen.encode_chat(CHAT[:3])


def test_what_a_vocabulary_lacks_is_refused_or_spelt_as_text(tmp_path):
    bare = ChatTokenizer.load(make(tmp_path / "bare", "byte", ["</s>"], "</s>"))
    with pytest.raises(TriviumError, match=r"chatml: the vocabulary has no <\|im_start\|>, <\|im_end\|>.*one of plain"):
        choose(bare, "chatml")
    some = ChatTokenizer.load(make(tmp_path / "some", "byte", ["</s>", "<|im_start|>", "<|im_end|>"], "</s>"))
    assert choose(some, "qwen3")[1][:2] == ["<think>", "</think>"] and choose(some, "chatml")[1] == []


SYSTEM = 'Du hilfst "gern".\n{% raw %} 船 \\ {{ 1 }}'


@pytest.mark.parametrize("name", ["chatml", "plain", "own"])
def test_a_default_for_what_the_system_says_is_seen_by_every_program(base, name, tmp_path):
    from transformers import AutoTokenizer
    own = ChatTokenizer(train(iter(["so it is"] * 20), 300))
    chosen, _ = choose(own, None, SYSTEM) if name == "own" else choose(base, name, SYSTEM)
    chosen.save(tmp_path)
    theirs, again = AutoTokenizer.from_pretrained(tmp_path), ChatTokenizer.load(tmp_path)
    said = [{"role": "system", "content": SYSTEM}, *CHAT[1:]]
    for chat in (CHAT[1:], CHAT, said, CHAT[1:3]):
        asked = chat[-1]["role"] == "user"
        ids, mask = chosen.encode_chat(chat, asked)
        assert again.encode_chat(chat, asked) == (ids, mask)
        assert theirs.apply_chat_template(chat, add_generation_prompt=asked, return_dict=False) == ids
    assert chosen.encode_chat(CHAT[1:]) == chosen.encode_chat(said)
    assert type(again) is type(chosen) and again.header == chosen.header
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    assert theirs.apply_chat_template(CHAT[1:], tools=tools, return_dict=False) == again.encode_chat(
        CHAT[1:], tools=tools)[0]


def test_the_day_is_the_settings_and_stays_so(base, tmp_path):
    (tmp_path / "dated.jinja").write_text("{{- '<|im_start|>system\\n' + strftime_now('%d %B %Y') + '<|im_end|>\\n' -}}"
                                          + choose(base, "chatml")[0].template)
    first, _ = choose(base, tmp_path / "dated.jinja")
    assert "01 January 2025" in first.render(CHAT)
    later, _ = choose(base, tmp_path / "dated.jinja", day=date(2024, 7, 26))
    later.save(tmp_path / "saved")
    again = ChatTokenizer.load(tmp_path / "saved")
    assert "26 July 2024" in again.render(CHAT) and again.digest == base.digest
    assert "26 July 2024" in choose(again, None, "New.")[0].render(CHAT)


def test_a_file_that_is_no_template_is_refused(base, tmp_path):
    (tmp_path / "x.jinja").write_text("{% for m in messages %}{{ m.content }")
    with pytest.raises(TriviumError, match="not valid Jinja: line 1"):
        choose(base, tmp_path / "x.jinja")
    with pytest.raises(TriviumError, match="no such file"):
        choose(base, tmp_path / "y.jinja")


def test_folders_of_earlier_versions_are_still_ours(tmp_path):
    ChatTokenizer(train(iter(["so it is"] * 20), 300)).save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(
        "{%- for message in messages -%}{%- if message['role'] not in ['system', 'user', 'assistant'] -%}"
        "{{- raise_exception('unknown role: ' + message['role']) -}}{%- endif -%}"
        "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}")
    assert type(ChatTokenizer.load(tmp_path)) is ChatTokenizer


@pytest.mark.parametrize("bias", [True, False])
def test_transformers_takes_our_tokenizer_as_it_is_beside_every_family(tmp_path, bias):
    from transformers import AutoTokenizer

    from trivium.model import LanguageModel, ModelConfig
    from trivium.stages.models import save_model
    tokenizer = ChatTokenizer(train(iter(["so it is café cafe\u0301 हिन्दी"] * 20), 300))
    config = ModelConfig(vocab_size=300, hidden_size=16, intermediate_size=16, num_layers=1, num_heads=2,
                         num_kv_heads=1, head_dim=8, attention_bias=bias, qk_norm=not bias)
    save_model(LanguageModel(config), tokenizer, tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("cafe\u0301 café", "हिन्दी", "a'street"):
        assert theirs(text)["input_ids"] == tokenizer.encode(text)
