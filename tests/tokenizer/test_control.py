"""Nothing that somebody writes becomes a control token, whatever a tokenizer's flags say."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from making import KINDS, make

from trivium.tokenizer.chat import ChatTokenizer

MARKS = ["<|im_start|>", "<|im_end|>", "<|Zug|>", "</s>", "[CALL]", "＜｜Ende｜＞"]
CHATML = ("{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
FLAGS = {
    "plain": {}, "not special": {"special": False}, "normalized": {"normalized": True},
    "neither": {"special": False, "normalized": True},
    "lstrip": {"lstrip": True, "special": False},
    "rstrip": {"rstrip": True}, "both": {"lstrip": True, "rstrip": True, "normalized": True},
    "word": {"single_word": True, "special": False}
}
LOSSLESS = ("byte", "prepend", "metaspace")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    root = tmp_path_factory.mktemp("control")
    return {(kind, name): ChatTokenizer.load(make(root / f"{kind} {name}", kind, MARKS, "</s>", CHATML, flags=flags,
                                                  unk="<unk>" if kind not in ("byte", "byte-nfc", "lower") else None))
            for kind in KINDS for name, flags in FLAGS.items()}


marks = st.sampled_from(MARKS)
pieces = st.one_of(
    marks, marks.flatmap(lambda mark: st.integers(1, len(mark)).map(lambda n: mark[:n])),
    marks.flatmap(lambda mark: st.integers(0, len(mark)).map(lambda n: mark[n:])), marks.map(str.upper),
    st.sampled_from(["<\u200b|im_end|>", "＜|im_end|＞", "▁", " ", "\n", "a", "船", "e\u0301"]), st.text(max_size=3))
contents = st.lists(pieces, min_size=1, max_size=6).map("".join).filter(
    lambda text: text.strip() and not any("\ud800" <= c <= "\udfff" for c in text))


def control(tokenizer, ids):
    """The control tokens among ids, but the one for what is unknown."""
    unknown = tokenizer.sealed.ids.get("<unk>")
    return [id for id in ids if id in set(tokenizer.sealed.ids.values()) and id != unknown]


@settings(max_examples=200, deadline=None)
@example(key=("metaspace", "plain"), text=" <|im_start|>", other="<|im_start|>")
@given(key=st.sampled_from([(kind, name) for kind in KINDS for name in FLAGS]), text=contents, other=contents)
def test_no_content_yields_a_control_token(loaded, key, text, other):
    tokenizer, (kind, name) = loaded[key], key
    assert control(tokenizer, tokenizer.encode(text)) == []
    honest = tokenizer.encode_chat([{"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}])[0]
    ids, mask = tokenizer.encode_chat([{"role": "user", "content": text}, {"role": "assistant", "content": other}])
    # an assistant may say tokens that are not special, and that the template writes around no turn
    sayable = {tokenizer.sealed.ids[token] for token in tokenizer.sayable}
    assert sayable <= {tokenizer.sealed.ids[mark] for mark in ("<|Zug|>", "[CALL]", "＜｜Ende｜＞")}
    assert [id for id in control(tokenizer, ids) if id not in sayable] == control(tokenizer, honest)
    assert not sayable & set(tokenizer.encode_chat([{"role": "user", "content": text}])[0])
    asked, said = tokenizer.encode_answer([{"role": "user", "content": text}], other)
    assert asked + said == ids[:len(asked) + len(said)] and said[-1] == tokenizer.end_id
    if kind in LOSSLESS and "▁" not in text:
        # a first space and the mark that Metaspace puts before a text are one: the library itself gives it back without
        kept = text.removeprefix(" ") if kind == "metaspace" else text
        assert tokenizer.decode(tokenizer.encode(text)) == kept
    if kind == "byte" and "strip" not in name and name != "both":
        words = tokenizer.decode([id for id, loss in zip(ids, mask, strict=True) if loss])
        assert words.lstrip("\n") == other.lstrip("\n") + "<|im_end|>"


def test_old_ways_let_marks_through(loaded):
    """What the flags of the library alone do: without the seal, several of these tokenizers take text for tokens."""
    from tokenizers import Tokenizer
    fooled = set()
    for key, tokenizer in loaded.items():
        raw = Tokenizer.from_str(json.dumps(json.loads(tokenizer.data)))
        raw.encode_special_tokens = True
        ids = raw.encode("a <|im_end|> b", add_special_tokens=False).ids
        fooled |= {key} if tokenizer.end_id in ids else set()
    assert {("byte", "not special"), ("unigram", "plain"), ("lower", "neither")} <= fooled


@pytest.mark.parametrize("kind", KINDS)
def test_a_template_is_written_with_its_tokens_as_transformers_does(loaded, kind, tmp_path):
    from transformers import AutoTokenizer
    for (other, name), tokenizer in loaded.items():
        if other != kind or name == "word" or (kind == "prepend" and name in ("normalized", "neither", "both")):
            continue  # with these transformers takes most marks of the template for text
        tokenizer.save(tmp_path / f"{other} {name}")
        theirs = AutoTokenizer.from_pretrained(tmp_path / f"{other} {name}")
        chat = [{"role": "user", "content": "the river"}, {"role": "assistant", "content": "a day"}]
        wanted = theirs.apply_chat_template(chat, return_dict=False)
        assert tokenizer.encode_chat(chat)[0] == wanted, name
        asked = theirs.apply_chat_template(chat[:1], add_generation_prompt=True, return_dict=False)
        assert tokenizer.encode_chat(chat[:1], True)[0] == asked, name


def test_words_spaces_and_html_that_were_added_stay_what_they_are(tmp_path):
    from tokenizers import Tokenizer
    added = ["\n\n", "   ", "COVID", "<table>", "</table>", "<tool_x>"]
    folder = make(tmp_path / "g", "byte", ["<|im_start|>", "<|im_end|>"], "<|im_end|>", CHATML, plain=added)
    tokenizer = ChatTokenizer.load(folder)
    raw = Tokenizer.from_str(tokenizer.data.decode())
    text = "a\n\nb   <table>COVID</table>"
    assert tokenizer.encode(text) == raw.encode(text, add_special_tokens=False).ids
    assert raw.token_to_id("<tool_x>") not in tokenizer.encode("<tool_x>")
    assert raw.token_to_id("\n\n") not in tokenizer.stop_ids and tokenizer.end_id in tokenizer.stop_ids


def test_truncation_and_padding_of_another_program_are_not_kept(tmp_path):
    from transformers import AutoTokenizer

    from trivium.tokenizer.train import train
    ChatTokenizer(train(iter(["one two three four five"] * 20), 300)).save(tmp_path / "own")
    make(tmp_path / "other", "byte", ["<|im_start|>", "<|im_end|>"], "<|im_end|>", CHATML)
    for name in ("own", "other"):
        before = ChatTokenizer.load(tmp_path / name)
        theirs = AutoTokenizer.from_pretrained(tmp_path / name)
        theirs.pad_token = theirs.pad_token or "<|im_end|>"
        theirs(["one two", "one"], truncation=True, max_length=3, padding="max_length")
        theirs.save_pretrained(tmp_path / f"{name} again")
        left = json.loads((tmp_path / f"{name} again" / "tokenizer.json").read_text())
        assert left["truncation"] and left["padding"]
        again = ChatTokenizer.load(tmp_path / f"{name} again")
        for text in ("one two three four five six", "hi"):
            assert again.encode(text) == before.encode(text)
        again.save(tmp_path / f"{name} saved")
        saved = json.loads((tmp_path / f"{name} saved" / "tokenizer.json").read_text())
        assert saved["truncation"] is None and saved["padding"] is None
        assert ChatTokenizer.load(tmp_path / f"{name} saved").digest == again.digest
