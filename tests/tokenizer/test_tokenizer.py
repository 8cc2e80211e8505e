"""The tokenizer: any text survives, chats are masked turn by turn, and transformers agrees."""

import json
import random
import subprocess
import sys

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium.errors import TriviumError
from trivium.tokenizer.chat import ROLES, TEMPLATE, ChatTokenizer
from trivium.tokenizer.train import SPECIAL_TOKENS, train

SENTENCES = [
    "The ferry crossed the river twice a day, and the people set their clocks by it.",
    "27 + 35 = 62, and 270 + 350 = 620.",
    "def larger(a, b):\n    return a if a > b else b\n",
    '"Have you seen my lamp?" asked Mira. "It\'s blue, and I can\'t find it."',
    "村子里的老渡船每天过河两次。",
    "Die Fähre fuhr über den Fluß.",
]
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " What is 2 + 3?\n"},
    {"role": "assistant", "content": "5"},
    {"role": "user", "content": "Sure?"},
    {"role": "assistant", "content": "Yes,  5.\n"},
]


def texts(count=400):
    rng = random.Random(0)
    return (" ".join(rng.choices(SENTENCES, k=3)) for _ in range(count))


@pytest.fixture(scope="module")
def tokenizer():
    return ChatTokenizer(train(texts(), 400))


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def oracle(folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def test_special_tokens_come_first_and_differ(tokenizer):
    assert (tokenizer.document_id, tokenizer.pad_id, tokenizer.end_id) == (0, 1, 5)
    assert [tokenizer.decode([id]) for id in range(6)] == list(SPECIAL_TOKENS)
    assert tokenizer.vocab_size == 400


def test_training_is_deterministic(tokenizer):
    assert ChatTokenizer(train(texts(), 400)).digest == tokenizer.digest
    assert ChatTokenizer(train(texts(), 390)).digest != tokenizer.digest


def test_merges_stay_within_words_and_digits_stand_alone(tokenizer):
    vocabulary = json.loads(tokenizer.data)["model"]["vocab"]
    learned = [token.replace("Ġ", " ").replace("Ċ", "\n") for token, id in vocabulary.items() if id >= 262]
    assert len(learned) == 138 and " the" in learned
    for token in learned:
        assert not any(digit in token for digit in "0123456789"), token
        assert " " not in token.lstrip(" ") or not token.strip(), token
    assert len(tokenizer.encode("270")) == 3


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("It's 27, don't!", ["It", "'s", " ", "2", "7", ",", " don", "'t", "!"]),
        ("a'street", ["a", "'s", "treet"]),
        ("x =  y\n\n  z", ["x", " =", " ", " y", "\n\n", " ", " z"]),
        ("हिन्दी ไทย é", ["हिन्दी", " ไทย", " é"]),
        ("f(x);\n\treturn", ["f", "(x", ");\n", "\treturn"]),
        ("  ", ["  "]),
        ("\r\n", ["\r\n"]),
    ],
)
def test_split(text, pieces):
    first = train(iter(()), 262).pre_tokenizer[0]
    found = first.pre_tokenize_str(text)
    assert [piece for piece, _ in found] == pieces


@settings(deadline=None, max_examples=300)
@given(st.text())
def test_any_text_survives(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not ids or min(ids) >= len(SPECIAL_TOKENS)


@settings(deadline=None)
@given(st.lists(st.sampled_from([*SPECIAL_TOKENS, "<|", "|>", "end", " ", "\n", "a", "é", "<", "|"])).map("".join))
def test_text_cannot_inject_special_tokens(tokenizer, text):
    ids = tokenizer.encode(text)
    assert all(id >= len(SPECIAL_TOKENS) for id in ids) and tokenizer.decode(ids) == text
    chat, learned = tokenizer.encode_chat([{"role": "user", "content": text}, {"role": "assistant", "content": text}])
    assert [id for id in chat if id < len(SPECIAL_TOKENS)] == [2, 5, 3, 5]
    assert sum(learned) == len(ids) + 1


def test_chat_mask_is_every_answer_with_its_end(tokenizer):
    ids, learned = tokenizer.encode_chat(CHAT)
    assert len(ids) == len(learned)
    assert tokenizer.decode([id for id, loss in zip(ids, learned, strict=True) if loss]) == "5<|end|>Yes,  5.\n<|end|>"
    assert tokenizer.decode(ids) == tokenizer.render(CHAT)
    prompt, unlearned = tokenizer.encode_chat(CHAT[:2], generation_prompt=True)
    assert ids[: len(prompt)] == prompt and not any(unlearned)


def test_transformers_loads_the_folder_and_agrees(tokenizer, oracle):
    assert (oracle.eos_token_id, oracle.pad_token_id, len(oracle)) == (
        tokenizer.end_id,
        tokenizer.pad_id,
        tokenizer.vocab_size,
    )
    for text in [*SENTENCES, "", " ", "a\u0300 \U0001f642 ﷽\n\n\t x", "Don't  'S"]:
        assert oracle(text)["input_ids"] == tokenizer.encode(text)
        assert oracle.decode(tokenizer.encode(text)) == text
    for messages in (CHAT, CHAT[1:2], CHAT[1:4]):
        for prompt in (False, True):
            assert oracle.apply_chat_template(
                messages, add_generation_prompt=prompt, tokenize=False
            ) == tokenizer.render(messages, prompt)
            ids = oracle.apply_chat_template(messages, add_generation_prompt=prompt, return_dict=True)["input_ids"]
            assert ids == tokenizer.encode_chat(messages, prompt)[0]
    with pytest.raises(Exception, match="unknown role: robot"):
        oracle.apply_chat_template([{"role": "robot", "content": "x"}])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(sorted(ROLES)), st.text()), min_size=1, max_size=5))
def test_transformers_encodes_any_chat_alike(tokenizer, oracle, turns):
    messages = [{"role": role, "content": content} for role, content in turns if "<|" not in content]
    if messages:
        assert oracle.apply_chat_template(messages, return_dict=True)["input_ids"] == tokenizer.encode_chat(messages)[0]
        assert oracle.apply_chat_template(messages, tokenize=False) == tokenizer.render(messages)


def test_folders_round_trip(tokenizer, folder, tmp_path):
    again = ChatTokenizer.load(folder)
    assert again.digest == tokenizer.digest and again.encode_chat(CHAT) == tokenizer.encode_chat(CHAT)
    again.save(tmp_path / "chat")
    assert (tmp_path / "chat/tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    again.save(tmp_path, chat=False)
    base = ChatTokenizer.load(tmp_path)
    assert base.digest == tokenizer.digest and base.opened("a") == [base.document_id, *base.encode("a")]
    assert again.opened("a") == again.encode("a") and again.opened("") == [again.document_id]
    assert (tmp_path / "chat_template.jinja").read_text() == TEMPLATE
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["eos_token"] == "<|endoftext|>"


def test_wrong_folders(folder, tmp_path):
    with pytest.raises(TriviumError, match=r"tokenizer\.json: no such file"):
        ChatTokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes()[:-100])
    with pytest.raises(TriviumError, match="not a tokenizer"):
        ChatTokenizer.load(tmp_path)
    foreign = tokenizers.Tokenizer(tokenizers.models.BPE())
    (tmp_path / "tokenizer.json").write_text(foreign.to_str())
    with pytest.raises(TriviumError, match="names no eos_token"):
        ChatTokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("messages", "match"),
    [
        ([], "at least one message"),
        ("hi", "at least one message"),
        ([{"role": "asistant", "content": "x"}], "did you mean 'assistant'"),
        ([{"content": "x"}], "message 1: unknown role None"),
        ([CHAT[0], {"role": "user", "content": None}], "message 2: the content"),
        ([["user", "x"]], "message 1: not an object"),
        ([{"role": "user", "content": "\ud800"}], "cannot be encoded"),
    ],
)
def test_wrong_chats(tokenizer, messages, match):
    with pytest.raises(TriviumError, match=match):
        tokenizer.encode_chat(messages)


def test_too_small_a_vocabulary():
    with pytest.raises(TriviumError, match="vocab_size is 261; it must be at least 262"):
        train(texts(1), 261)
    assert train(iter(["ab"]), 5000).get_vocab_size() == 262  # nothing to merge


@pytest.mark.parametrize(
    "modules", ["trivium.tokenizer, trivium.tokenizer.train", "trivium.corpus.steps, trivium.corpus.build"]
)
def test_light_imports(modules):
    """A bare GPU box has no pydantic, and workers of the corpus need no PyTorch."""
    absent = ("pydantic", "torch", "trafilatura", "transformers", "jinja2")
    code = f"import sys, {modules}; sys.exit(', '.join({{*{absent}}} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
