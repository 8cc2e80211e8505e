"""GGUF files read as models' folders, against transformers, which reads some by itself, and what was written."""

from __future__ import annotations

import json
import struct

import bases
import gguf
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_gguf import ASKED, FAMILIES, HARD, PROMPT, SMALL, cut_by
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

import trivium
from trivium.errors import TriviumError
from trivium.files import write_rows
from trivium.model.gguf import write_gguf
from trivium.model.gguf.cuts import KNOWN
from trivium.model.gguf.read import opened
from trivium.stages.models import save_model
from trivium.tokenizer import train as tokenizer_training
from trivium.tokenizer.chat import ChatTokenizer


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.mark.parametrize("family", ["llama", "tied", "wide heads", "llama3", "mistral", "qwen2", "qwen3"])
def test_what_was_written_comes_back(tmp_path, family):
    bases.byte_level(tmp_path, plain=("<think>",))
    oracle = bases.model(tmp_path, FAMILIES[family])
    write_gguf(tmp_path, tmp_path / "model.gguf", "f32")
    back = trivium.load(tmp_path / "model.gguf")
    ids = torch.arange(40)
    torch.testing.assert_close(back.logits(ids), oracle(ids[None]).logits[0].detach(), atol=1e-4, rtol=1e-4)
    first = trivium.load(tmp_path)
    assert back.tokenizer.encode_chat(ASKED, True) == first.tokenizer.encode_chat(ASKED, True)
    assert back.tokenizer.opened(HARD) == first.tokenizer.opened(HARD)
    assert back.tokenizer.end_id == first.tokenizer.end_id and back.tokenizer.special == first.tokenizer.special
    again = json.loads((back.folder / "config.json").read_text())["rope_parameters"]
    assert again == {name: FAMILIES[family].rope_parameters[name] for name in again}


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0", "q5_1", "q4_0", "q4_1"])
def test_every_number_format_is_what_transformers_reads(tmp_path, kind):
    bases.byte_level(tmp_path)
    bases.model(tmp_path, FAMILIES["tied"])
    write_gguf(tmp_path, tmp_path / "model.gguf", kind)
    back = trivium.load(tmp_path / "model.gguf")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32).eval()
    ids = torch.arange(40)
    torch.testing.assert_close(back.logits(ids), theirs(ids[None]).logits[0].detach(), atol=1e-4, rtol=1e-4)
    stored = json.loads((back.folder / "config.json").read_text())["dtype"]
    assert stored == "float32"  # the vectors' numbers are no float16's


@pytest.mark.parametrize(("kind", "dtype"), [("f16", torch.float16), ("bf16", torch.bfloat16)])
def test_plain_formats_stay_what_they_are(tmp_path, kind, dtype):
    bases.byte_level(tmp_path)
    oracle = bases.model(tmp_path, FAMILIES["tied"], dtype=dtype)
    write_gguf(tmp_path, tmp_path / "model.gguf", kind)
    back = AutoModelForCausalLM.from_pretrained(opened(tmp_path / "model.gguf"))
    assert back.dtype == dtype
    for name, weight in oracle.state_dict().items():
        assert torch.equal(back.state_dict()[name], weight)


@pytest.mark.parametrize("format", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL"])
def test_formats_that_others_write_are_read(tmp_path, format):
    wide = SMALL | {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1}
    bases.byte_level(tmp_path)
    bases.model(tmp_path, LlamaConfig(**wide, tie_word_embeddings=True))
    write_gguf(tmp_path, tmp_path / "plain.gguf", "f32")
    reader, kind = gguf.GGUFReader(tmp_path / "plain.gguf"), gguf.GGMLQuantizationType[format]
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], inner)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    generator = torch.Generator().manual_seed(0)
    for tensor in reader.tensors:
        data = tensor.data
        if "ffn_up" in tensor.name:  # any bytes are some weights: scales that are small numbers keep them finite
            data = torch.randint(0, 60, (256, 256 // block * size), generator=generator, dtype=torch.uint8).numpy()
            wanted = gguf.dequantize(data, kind)
            writer.add_tensor(tensor.name, data, raw_dtype=kind)
        else:
            writer.add_tensor(tensor.name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    weights = trivium.load(tmp_path / "model.gguf").model.state_dict()
    torch.testing.assert_close(weights["model.layers.0.mlp.up_proj.weight"], torch.from_numpy(wanted))


@pytest.mark.parametrize("name", KNOWN)
def test_texts_are_cut_as_they_were(tmp_path, name):
    tokenizer = cut_by(tmp_path, name)
    bases.model(tmp_path, LlamaConfig(**SMALL | {"vocab_size": 700}))
    write_gguf(tmp_path, tmp_path / "model.gguf")
    assert trivium.load(tmp_path / "model.gguf").tokenizer.encode(HARD) == tokenizer.encode(HARD).ids


@pytest.mark.parametrize("prefix", ["normalizer", "never"])
def test_sentencepiece_comes_back(tmp_path, prefix):
    tokenizer = bases.sentencepiece(tmp_path, prefix=prefix, plain=("<think>",))
    bases.model(tmp_path, LlamaConfig(**SMALL | {"vocab_size": tokenizer.get_vocab_size()}))
    write_gguf(tmp_path, tmp_path / "model.gguf")
    back, first = trivium.load(tmp_path / "model.gguf").tokenizer, trivium.load(tmp_path).tokenizer
    for text in (HARD, PROMPT, "  two   spaces", *bases.TEXTS[:3]):
        assert back.encode(text) == first.encode(text) and back.decode(back.encode(text)) == text
    assert back.encode_chat(ASKED, True) == first.encode_chat(ASKED, True)


def test_our_own_chat_comes_back(tmp_path):
    tokenizer = ChatTokenizer(tokenizer_training.train(iter(bases.TEXTS), 400))
    from trivium.model import LanguageModel, ModelConfig
    model = LanguageModel(ModelConfig(vocab_size=400, hidden_size=64, num_layers=2, max_positions=256)).initialise(3)
    save_model(model, tokenizer, tmp_path)
    write_gguf(tmp_path, tmp_path / "model.gguf", "f32")
    back = trivium.load(tmp_path / "model.gguf")
    assert type(back.tokenizer) is ChatTokenizer and back.generate(ASKED, 0.0) == trivium.load(tmp_path).generate(
        ASKED, 0.0)
    assert AutoTokenizer.from_pretrained(back.folder)(HARD)["input_ids"] == tokenizer.encode(HARD)


def test_a_recipe_begins_with_one(tmp_path, precision):
    bases.byte_level(tmp_path)
    bases.model(tmp_path, FAMILIES["llama"])
    write_gguf(tmp_path, tmp_path / "base.gguf", "bf16")
    write_rows(tmp_path / "rows.jsonl", [{"messages": [*ASKED, {"role": "assistant", "content": "Yes."}]}] * 8)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({"name": "gguf", "out": str(tmp_path / "out"), "stages": {"sft": {
        "model": str(tmp_path / "base.gguf"), "demonstrations": str(tmp_path / "rows.jsonl"), "precision": precision,
        "length": 128, "rows": 4, "epochs": 1, "optimization": {"learning_rate": 0.0, "weight_decay": 0.0}}}}))
    made = trivium.run(recipe)["sft"]
    assert trivium.run(recipe)["sft"].digest == made.digest
    assert made.manifest["inputs"]["model"]["path"].endswith("base.gguf")
    ids = torch.arange(40)
    assert torch.equal(trivium.load(made.folder).logits(ids), trivium.load(tmp_path / "base.gguf").logits(ids))
    before = made.manifest["key"]
    write_gguf(tmp_path, tmp_path / "base.gguf", "f16")
    assert trivium.run(recipe)["sft"].manifest["key"] != before


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    bases.byte_level(folder)
    bases.model(folder, FAMILIES["llama"])
    write_gguf(folder, folder / "model.gguf", "q8_0")
    return folder / "model.gguf"


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


HEAD = b"GGUF" + struct.pack("<I", 3)
BROKEN = {
    "does not begin with GGUF": b"GGML" + bytes(40), "version": b"GGUF" + struct.pack("<IQQ", 1, 0, 0) + bytes(9),
    "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + bytes(9),
    "claims to have 4,611,686,018,427,387,904 tensors": HEAD + struct.pack("<QQ", 1 << 62, 1) + bytes(90),
    "claims to have 9,000,000 keys": HEAD + struct.pack("<QQ", 0, 9_000_000) + bytes(90),
    "claims to have 1,152,921,504,606,846,976 entries": HEAD + struct.pack("<QQ", 0, 1) + text("a") + struct.pack(
        "<IIQ", 9, 0, 1 << 60) + bytes(90),
    "claims to have a text of": HEAD + struct.pack("<QQ", 0, 1) + struct.pack("<Q", 1 << 50) + bytes(90),
    "unknown type 9": HEAD + struct.pack("<QQ", 0, 1) + text("a") + struct.pack("<IIQ", 9, 9, 1) + bytes(90),
    "the architecture 'mamba'": HEAD + struct.pack("<QQ", 0, 1) + text("general.architecture") + struct.pack(
        "<I", 8) + text("mamba") + bytes(90),
    "the type 77": HEAD + struct.pack("<QQ", 1, 0) + text("a") + struct.pack("<IQIQ", 1, 32, 77, 0) + bytes(90),
    "ends at byte": HEAD + struct.pack("<QQ", 1, 0) + text("a") + struct.pack("<IQIQ", 1, 32, 0, 1 << 40) + bytes(90),
}


@pytest.mark.parametrize("words", BROKEN)
def test_broken_files_are_refused_in_one_line(tmp_path, words):
    (tmp_path / "x.gguf").write_bytes(BROKEN[words])
    with pytest.raises(TriviumError, match=words) as raised:
        trivium.load(tmp_path / "x.gguf")
    assert str(raised.value).startswith(str(tmp_path / "x.gguf")) and "\n" not in str(raised.value)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 0.999), at=st.integers(0, 30_000), byte=st.integers(0, 255))
def test_files_cut_short_or_changed_raise_nothing_else(written, tmp_path, cut, at, byte):
    whole = written.read_bytes()
    place = tmp_path / "x.gguf"
    place.write_bytes(whole[:int(cut * len(whole))])
    with pytest.raises(TriviumError):
        opened(place)
    place.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1:])
    try:
        opened(place)
    except TriviumError as error:
        assert "\n" not in str(error)
