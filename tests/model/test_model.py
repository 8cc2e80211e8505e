"""The model against transformers, and its folders."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from trivium.errors import TriviumError
from trivium.model import LanguageModel, ModelConfig, RewardModel, folder
from trivium.model.transformer import packed_attention

SHAPES = {
    "qwen3": {"qk_norm": True, "tie_embeddings": True},
    "qwen3-untied": {"qk_norm": True, "tie_embeddings": False},
    "llama": {"qk_norm": False, "tie_embeddings": False},
    "llama-tied": {"qk_norm": False, "tie_embeddings": True},
}


def small(**changes):
    sizes = {"vocab_size": 97, "hidden_size": 48, "intermediate_size": 64, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "head_dim": 16}
    return ModelConfig(**{**sizes, **changes})


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_equal_transformers(tmp_path, shape):
    model = LanguageModel(small(**SHAPES[shape])).initialise(3)
    folder.save(model, tmp_path, {"eos": 0, "pad": 1})
    oracle = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    tokens = torch.randint(0, 97, (3, 50), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(tokens), oracle(tokens).logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(folder.load(tmp_path)(tokens), model(tokens), atol=0, rtol=0)


def test_a_folder_written_by_transformers_loads(tmp_path):
    model = LanguageModel(small()).initialise(3)
    folder.save(model, tmp_path / "ours", {"eos": 0, "pad": 1})
    AutoModelForCausalLM.from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    tokens = torch.arange(20)[None]
    torch.testing.assert_close(folder.load(tmp_path / "theirs")(tokens), model(tokens), atol=1e-6, rtol=0)


def test_scores_equal_transformers(tmp_path):
    reward = RewardModel.from_language_model(LanguageModel(small()).initialise(3), seed=5)
    reward.shift = -0.25
    folder.save(reward, tmp_path, {"eos": 0, "pad": 1})
    oracle = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32).eval()
    tokens = torch.randint(2, 97, (4, 31), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(reward(tokens)[:, -1:], oracle(tokens).logits, atol=1e-4, rtol=1e-4)
    again = folder.load(tmp_path)
    assert isinstance(again, RewardModel) and again.shift == -0.25


def test_packed_documents_do_not_see_each_other():
    model = LanguageModel(small()).initialise(1)
    first, second = torch.arange(5, 15), torch.arange(30, 42)
    row = torch.cat([first, second])[None]
    documents = torch.tensor([[0] * 10 + [1] * 12])
    positions = torch.tensor([[*range(10), *range(12)]])
    packed = model(row, positions, packed_attention(documents, torch.full_like(documents, -2)))
    torch.testing.assert_close(packed[0, :10], model(first[None])[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(packed[0, 10:], model(second[None])[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("change", "message"), [
    ({"model_type": "gpt2"}, "model_type is 'gpt2'"),
    ({"hidden_size": 32}, "has shape"),
    ({"num_hidden_layers": 3}, "lack"),
    ({"num_hidden_layers": 1}, "does not describe"),
    ({"attention_bias": True}, "attention_bias"),
    ({"vocab_size": None}, "vocab_size"),
])
def test_a_config_that_contradicts_the_weights_is_refused(tmp_path, change, message):
    folder.save(LanguageModel(small()).initialise(3), tmp_path, {"eos": 0, "pad": 1})
    config = json.loads((tmp_path / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    with pytest.raises(TriviumError, match=message):
        folder.load(tmp_path)


def test_broken_weights_are_refused(tmp_path):
    folder.save(LanguageModel(small()).initialise(3), tmp_path, {"eos": 0, "pad": 1})
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(TriviumError, match="safetensors"):
        folder.load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(TriviumError, match="never read"):
        folder.load(tmp_path)


def test_impossible_shapes_are_refused():
    for change, message in (({"num_heads": 3}, "multiple"), ({"head_dim": 7}, "even"), ({"num_layers": 0}, "at least 1")):
        with pytest.raises(TriviumError, match=message):
            small(**change)
