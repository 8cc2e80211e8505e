"""GGUF files against transformers, which reads them by itself."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from trivium.errors import TriviumError
from trivium.model import LanguageModel, ModelConfig, RewardModel, RopeScaling, folder
from trivium.model.gguf import write_gguf
from trivium.tokenizer import train as tokenizer_training
from trivium.tokenizer.chat import ChatTokenizer

SHAPES = {
    "qwen3": {"qk_norm": True, "head_dim": 128},  # transformers takes every Qwen3 in GGUF to have heads of 128
    "qwen2": {"qk_norm": False, "attention_bias": True},
    "llama": {"qk_norm": False, "tie_embeddings": False}, "llama-tied": {"qk_norm": False},
}


@pytest.fixture
def model_folder(tmp_path):
    def make(**changes):
        texts = [f"The velorin eats {n} berries, and {n + 1} more." for n in range(200)]
        tokenizer = ChatTokenizer(tokenizer_training.train(iter(texts), 320))
        sizes = {
            "vocab_size": tokenizer.vocab_size, "hidden_size": 64, "intermediate_size": 96, "num_layers": 2,
            "num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "max_positions": 64
        }
        model = LanguageModel(ModelConfig(**{**sizes, **changes})).initialise(3)
        tokenizer.save(tmp_path / "model")
        folder.save(model, tmp_path / "model", {"eos": tokenizer.end_id, "pad": tokenizer.pad_id})
        return model, tokenizer, tmp_path / "model"
    return make


@pytest.mark.parametrize("shape", SHAPES)
def test_transformers_reads_the_same_model(model_folder, shape):
    model, tokenizer, place = model_folder(**SHAPES[shape])
    write_gguf(place, place / "model.gguf", "f32")
    oracle = AutoModelForCausalLM.from_pretrained(place, gguf_file="model.gguf").eval()
    tokens = torch.tensor([tokenizer.encode("The velorin eats 12 berries.")])
    torch.testing.assert_close(oracle(tokens).logits, model(tokens), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_what_is_in_the_file(model_folder, kind):
    import gguf
    model, tokenizer, place = model_folder(qk_norm=False, rope_scaling=RopeScaling(8.0, 24), tie_embeddings=False)
    write_gguf(place, place / "model.gguf", kind)
    reader = gguf.GGUFReader(place / "model.gguf")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    values = torch.tensor(
        gguf.dequantize(tensors["blk.1.ffn_up.weight"].data, tensors["blk.1.ffn_up.weight"].tensor_type))
    torch.testing.assert_close(values, model.model.layers[1].mlp.up_proj.weight.detach(), atol=1e-2, rtol=1e-2)
    assert tensors["rope_freqs.weight"].data.max() == pytest.approx(8.0)
    assert len(reader.fields["tokenizer.ggml.tokens"].data) == tokenizer.vocab_size
    assert reader.fields["tokenizer.chat_template"].contents() == (place / "chat_template.jinja").read_text()
    assert reader.fields["tokenizer.ggml.eos_token_id"].contents() == tokenizer.end_id


def test_what_cannot_be_written_is_said(model_folder, tmp_path):
    model, _, place = model_folder(qk_norm=False, sliding_window=8)
    with pytest.raises(TriviumError, match="sliding window"):
        write_gguf(place, place / "model.gguf")
    with pytest.raises(TriviumError, match="known are f32"):
        write_gguf(place, place / "model.gguf", "q4")
    folder.save(RewardModel.from_language_model(model, 0), place, {"eos": 0, "pad": 1})
    with pytest.raises(TriviumError, match="reward model"):
        write_gguf(place, place / "model.gguf")
    assert not (place / "model.gguf").exists() and not list(place.glob(".*tmp"))
