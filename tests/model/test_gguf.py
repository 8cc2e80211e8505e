"""GGUF files against llama.cpp, which runs them, and transformers, which reads them by itself."""

from __future__ import annotations

import json

import bases
import gguf
import pytest
import torch
from llamacpp import LlamaCpp
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)
from typer.testing import CliRunner

import trivium
from trivium.cli.app import app
from trivium.errors import TriviumError
from trivium.generation.engine import Sampling, generate
from trivium.model import LanguageModel, ModelConfig, RewardModel, RopeScaling
from trivium.model.gguf import write_gguf
from trivium.model.gguf.cuts import KNOWN, pre_tokenizer
from trivium.stages.models import save_model
from trivium.tokenizer import train as tokenizer_training
from trivium.tokenizer.chat import ChatTokenizer

SMALL = {
    "vocab_size": 430, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "bos_token_id": None, "eos_token_id": 0
}
YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0, "original_max_position_embeddings": 16}
FAMILIES = {
    "llama": LlamaConfig(**SMALL), "tied": LlamaConfig(**SMALL, tie_word_embeddings=True),
    "wide heads": LlamaConfig(**SMALL, head_dim=24), "biases": LlamaConfig(**SMALL, attention_bias=True, mlp_bias=True),
    "linear": LlamaConfig(**SMALL, rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}),
    "yarn": LlamaConfig(**SMALL, rope_parameters=YARN | {"attention_factor": 1.4}),
    "llama3": LlamaConfig(
        **SMALL, rope_parameters=YARN | {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                         "high_freq_factor": 4.0}),
    "mistral": MistralConfig(**SMALL, sliding_window=256), "qwen2": Qwen2Config(**SMALL),
    "qwen2 yarn": Qwen2Config(**SMALL, rope_parameters=YARN, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SMALL, head_dim=128),
}
PROMPT = "Mira sold 7 pots and isn't that fine? She'd say 'this', and 陶瓷罐子 more; naïve café."
HARD = ("Hi'll 'this' It'S don't 1234567 x²³ ½ e\u0301\u0301 ,\u0301a हिन्दी ไทย\n\n  \t in\r\n\r\n  end  ;;;\n..?\n "
        "日本語、カタカナ À HelloWorld fooBAR iPhone's /path/to\n/ <|x|> _a_b 12.5% 'LL 😀👍🏽 ")
ASKED = [{"role": "user", "content": PROMPT}]


def likeliest(model, ids, count=10):
    with torch.no_grad():
        found = model.generate(torch.tensor([ids]), max_new_tokens=count, do_sample=False, eos_token_id=None,
                               pad_token_id=0)
    return found[0, len(ids):].tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_llama_cpp_says_the_same(tmp_path, family):
    bases.byte_level(tmp_path)
    oracle = bases.model(tmp_path, FAMILIES[family])
    write_gguf(tmp_path, tmp_path / "model.gguf", "f32")
    ids = AutoTokenizer.from_pretrained(tmp_path)(PROMPT)["input_ids"]
    with LlamaCpp(tmp_path / "model.gguf") as server:
        assert server.tokens(PROMPT) == ids
        assert server.complete(PROMPT, 10) == likeliest(oracle, ids)


def check_alike(folder, path, count=10):
    """Texts and chats get the same tokens, and the likeliest ones after them, here and in llama.cpp; texts in
    transformers too."""
    ours = trivium.load(folder)
    theirs = AutoTokenizer.from_pretrained(folder)
    stop = [ours.tokenizer.end_id, ours.tokenizer.document_id]
    with LlamaCpp(path) as server:
        opened = ours.tokenizer.opened(PROMPT)
        assert server.tokens(PROMPT, special=True) == opened == theirs(PROMPT)["input_ids"]
        said = generate(ours.model, [opened], Sampling(temperature=0, max_new_tokens=count), stop)[0][0].tokens
        assert server.complete(PROMPT, count)[:len(said)] == [token for token in said if token not in stop][:count]
        asked = ours.tokenizer.encode_chat(ASKED, generation_prompt=True)[0]
        answer, length = server.chat(ASKED, count)
        said = generate(ours.model, [asked], Sampling(temperature=0, max_new_tokens=count), stop)[0][0].tokens
        assert length == len(asked) and answer[:len(said)] == said


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "base"])
def test_our_own_tokenizer_begins_alike(tmp_path, chat):
    tokenizer = ChatTokenizer(tokenizer_training.train(iter(bases.TEXTS), 400))
    shape = {"vocab_size": tokenizer.vocab_size, "hidden_size": 64, "num_layers": 2, "max_positions": 256}
    model = LanguageModel(ModelConfig(**shape)).initialise(3)
    save_model(model, tokenizer, tmp_path, chat=chat)
    write_gguf(tmp_path, tmp_path / "model.gguf", "f32")
    if chat:
        check_alike(tmp_path, tmp_path / "model.gguf")
    ours = trivium.load(tmp_path).tokenizer
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    with LlamaCpp(tmp_path / "model.gguf") as server:
        assert server.tokens(PROMPT, special=True) == ours.opened(PROMPT) == theirs(PROMPT)["input_ids"]
        assert (ours.opened("a")[0] == tokenizer.document_id) != chat
        assert server.tokens(HARD) == ours.encode(HARD)


CHATS = {
    "bos in chats": {"special": ("</s>", "<s>", "<|im_start|>", "<|im_end|>"), "bos_token": "<s>",
                     "begins": "<s>", "template": "{{ bos_token }}" + bases.CHATML},
    "no bos": {}, "no template": {"special": ("<|endoftext|>",), "template": None},
}


@pytest.mark.parametrize("kind", CHATS)
def test_chats_and_texts_begin_and_end_alike(tmp_path, kind):
    bases.byte_level(tmp_path, **CHATS[kind])
    bases.model(tmp_path, FAMILIES["llama"])
    write_gguf(tmp_path, tmp_path / "model.gguf", "f32")
    check_alike(tmp_path, tmp_path / "model.gguf")


def cut_by(folder, name):
    """A tokenizer that cuts as llama.cpp's ``name`` does."""
    pre, whole_words = pre_tokenizer(name)
    described = json.loads(bases.byte_level(folder).to_str())
    described["pre_tokenizer"], described["model"]["ignore_merges"] = pre, whole_words
    tokenizer = Tokenizer.from_str(json.dumps(described))
    tokenizer.train_from_iterator(
        [*bases.TEXTS, HARD, HARD, HARD],
        trainers.BpeTrainer(vocab_size=700, show_progress=False, special_tokens=["<|endoftext|>", "<|im_start|>",
                                                                                 "<|im_end|>"],
                            initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


@pytest.mark.parametrize("name", KNOWN)
def test_texts_are_cut_alike_by_every_name(tmp_path, name):
    tokenizer = cut_by(tmp_path, name)
    bases.model(tmp_path, LlamaConfig(**SMALL | {"vocab_size": 700}))
    write_gguf(tmp_path, tmp_path / "model.gguf")
    with LlamaCpp(tmp_path / "model.gguf") as server:
        for text in (HARD, PROMPT, *bases.TEXTS[:2]):
            assert server.tokens(text) == tokenizer.encode(text).ids


@pytest.mark.parametrize("prefix", ["always", "normalizer", "never"])
def test_sentencepiece_reads_alike(tmp_path, prefix):
    tokenizer = bases.sentencepiece(tmp_path, prefix=prefix, plain=("<think>",))
    bases.model(tmp_path, LlamaConfig(**SMALL | {"vocab_size": tokenizer.get_vocab_size() + 3}))
    write_gguf(tmp_path, tmp_path / "model.gguf", "f32")
    with LlamaCpp(tmp_path / "model.gguf") as server:
        for text in (HARD, PROMPT, "two   spaces", *bases.TEXTS[:2]):
            assert server.tokens(text) == tokenizer.encode(text, add_special_tokens=False).ids
    check_alike(tmp_path, tmp_path / "model.gguf")
    types = gguf.GGUFReader(tmp_path / "model.gguf").fields["tokenizer.ggml.token_type"].contents()
    at = {token: types[tokenizer.token_to_id(token)] for token in ("<unk>", "<s>", "<0x00>", "<think>", "sold")
          if tokenizer.token_to_id(token) is not None}
    wanted = {"<unk>": 2, "<s>": 3, "<0x00>": 6, "<think>": 4}
    assert {token: at[token] for token in wanted} == wanted and types[-1] == 5


def test_the_chats_come_first_where_both_cannot_be(tmp_path):
    said = []
    tokenizer = bases.sentencepiece(tmp_path, prefix="first", begins="<s>")
    bases.model(tmp_path, LlamaConfig(**SMALL | {"vocab_size": tokenizer.get_vocab_size()}))
    write_gguf(tmp_path, tmp_path / "model.gguf", "f32", said.append)
    ours = trivium.load(tmp_path)
    with LlamaCpp(tmp_path / "model.gguf") as server:
        assert server.chat(ASKED, 8)[1] == len(ours.tokenizer.encode_chat(ASKED, generation_prompt=True)[0])
        assert server.tokens(" " + PROMPT) == ours.tokenizer.encode(PROMPT)
    assert "begin plain texts with a space" in said[0] and "do not begin with <s>" in said[1]


def test_what_is_in_the_file(tmp_path):
    bases.byte_level(tmp_path, plain=("<think>", "</think>"))
    bases.model(tmp_path, LlamaConfig(**SMALL))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 0, 7]}))
    write_gguf(tmp_path, tmp_path / "model.gguf")
    fields = gguf.GGUFReader(tmp_path / "model.gguf").fields
    ends = [fields[f"tokenizer.ggml.{name}_token_id"].contents() for name in ("eos", "eot", "eom")]
    assert ends == [0, 2, 7] and fields["tokenizer.ggml.add_bos_token"].contents() is False
    types = fields["tokenizer.ggml.token_type"].contents()
    tokens = fields["tokenizer.ggml.tokens"].contents()
    assert types[:4] == [3, 3, 3, 1] and types[tokens.index("<think>")] == 4 and types[-1] == 5
    assert fields["tokenizer.chat_template"].contents() == bases.CHATML


@pytest.mark.parametrize(("kind", "most"), [("f16", 1e-3), ("bf16", 4e-3), ("q8_0", 0.01), ("q5_1", 0.05),
                                            ("q4_0", 0.12), ("q4_1", 0.11)])
def test_number_formats(tmp_path, kind, most):
    bases.byte_level(tmp_path)
    oracle = bases.model(tmp_path, LlamaConfig(**SMALL))
    written = write_gguf(tmp_path, tmp_path / "model.gguf", kind)
    assert 0 < written.error < most and written.bytes == (tmp_path / "model.gguf").stat().st_size
    lost = total = 0.0
    weights = {name.removeprefix("model.layers.1."): weight for name, weight in oracle.state_dict().items()}
    for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors:
        if tensor.name == "blk.1.ffn_up.weight":
            weight = weights["mlp.up_proj.weight"].numpy()
            back = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(weight.shape)
            lost, total = float(((back - weight)**2).sum()), float((weight**2).sum())
            assert tensor.tensor_type.name == kind.upper()
    assert 0 < (lost / total)**0.5 < most
    with LlamaCpp(tmp_path / "model.gguf") as server:
        assert len(server.complete(PROMPT, 4)) == 4


def test_rows_that_fill_no_blocks_stay_in_f16(tmp_path):
    bases.byte_level(tmp_path)
    bases.model(tmp_path, LlamaConfig(**SMALL | {"intermediate_size": 80}))
    assert write_gguf(tmp_path, tmp_path / "model.gguf", "q8_0").plain == 2


REFUSED = {
    "sliding window": MistralConfig(**SMALL, sliding_window=8), "'dynamic'": LlamaConfig(
        **SMALL, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}),
    "the family 'gemma'": GemmaConfig(**SMALL, head_dim=8), "hidden_act is 'gelu'": LlamaConfig(**SMALL,
                                                                                               hidden_act="gelu"),
    "attention_bias": Qwen3Config(**SMALL, head_dim=16, attention_bias=True),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_written_is_said(tmp_path, words):
    bases.byte_level(tmp_path)
    bases.model(tmp_path, REFUSED[words])
    with pytest.raises(TriviumError, match=words):
        write_gguf(tmp_path, tmp_path / "model.gguf")
    assert not list(tmp_path.glob("*gguf*"))


def test_tokenizers_that_llama_cpp_would_read_otherwise_are_refused(tmp_path):
    place = tmp_path / "model.gguf"
    bases.byte_level(tmp_path, cut=bases.split(r"\p{L}+|\P{L}+"))
    bases.model(tmp_path, LlamaConfig(**SMALL | {"vocab_size": 900}))
    with pytest.raises(TriviumError, match="no name for how this tokenizer cuts"):
        write_gguf(tmp_path, place)
    bases.sentencepiece(tmp_path, complete=False)
    with pytest.raises(TriviumError, match="not those of a SentencePiece model"):
        write_gguf(tmp_path, place)
    bases.byte_level(tmp_path)
    described = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(described | {"normalizer": {"type": "Lowercase"}}))
    with pytest.raises(TriviumError, match="normalizer 'Lowercase'"):
        write_gguf(tmp_path, place)
    with pytest.raises(TriviumError, match="there is no such type"):
        write_gguf(tmp_path, place, "q4")
    model = LanguageModel(ModelConfig(vocab_size=900, qk_norm=False, rope_scaling=RopeScaling(8.0, 24)))
    tokenizer = ChatTokenizer(tokenizer_training.train(iter(bases.TEXTS), 400))
    save_model(RewardModel.from_language_model(model.initialise(0), 0), tokenizer, tmp_path / "reward")
    with pytest.raises(TriviumError, match="reward models"):
        write_gguf(tmp_path / "reward", place)


def test_transformers_reads_the_same_model(tmp_path):
    bases.byte_level(tmp_path)
    for family in ("tied", "qwen2", "qwen3"):  # transformers takes every Qwen3 in GGUF to have heads of 128
        oracle = bases.model(tmp_path, FAMILIES[family])
        write_gguf(tmp_path, tmp_path / "model.gguf", "f32")
        again = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf").eval()
        tokens = torch.arange(20)[None]
        torch.testing.assert_close(again(tokens).logits, oracle(tokens).logits, atol=1e-4, rtol=1e-4)


def test_an_adapter_is_folded_in_on_the_way(tmp_path):
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    bases.byte_level(base)
    model = get_peft_model(bases.model(base, FAMILIES["llama"]),
                           LoraConfig(r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False))
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(adapter)
    result = CliRunner().invoke(app, ["export", str(adapter), "--gguf", str(tmp_path / "model.gguf"), "--type", "f32"])
    assert result.exit_code == 0, result.output
    ids = AutoTokenizer.from_pretrained(base)(PROMPT)["input_ids"]
    with LlamaCpp(tmp_path / "model.gguf") as server:
        assert server.complete(PROMPT, 10) == likeliest(model.merge_and_unload(), ids)
    assert sorted(place.name for place in tmp_path.iterdir()) == ["adapter", "base", "model.gguf"]
