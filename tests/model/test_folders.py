"""Folders as other programs leave them, read as transformers reads them."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from trivium.errors import TriviumError
from trivium.model import LanguageModel, ModelConfig, folder
from trivium.model.families import COMPUTED, DEFAULTS, FAMILIES, PLAIN, WITHOUT_EFFECT
from trivium.model.foreign_models import ForeignLanguageModel

TOKENS = torch.randint(0, 97, (2, 40), generator=torch.Generator().manual_seed(0))
SHAPE = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_layers": 2, "num_heads": 4,
         "num_kv_heads": 2, "head_dim": 8, "max_positions": 64, "qk_norm": False, "tie_embeddings": False}


def written(place, config=None, weights=None, **shape):
    """A folder of ours whose files somebody changed; a setting of None is taken out."""
    model = LanguageModel(ModelConfig(**(SHAPE | shape))).initialise(3)
    folder.save(model, place, {"eos": 0, "pad": 1})
    values = json.loads((place / "config.json").read_text()) | (config or {})
    (place / "config.json").write_text(json.dumps({name: one for name, one in values.items() if one is not None}))
    if weights:
        save_file(load_file(place / "model.safetensors") | weights, place / "model.safetensors", {"format": "pt"})
    return place


def oracle(place):
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(input_ids=TOKENS).logits


YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16}


@pytest.mark.parametrize(("config", "own"), [
    ({"rope_scaling": YARN}, True),
    ({"rope_scaling": LLAMA3}, True),
    ({"rope_scaling": {"type": "linear", "factor": 2.0}}, True),
    ({"rope_scaling": YARN, "rope_theta": None}, True),
    ({"rope_scaling": YARN | {"beta_fast": 8, "attention_factor": 1.1}}, True),
    ({"rope_scaling": YARN | {"mscale": 1.0, "mscale_all_dim": 0.5}}, False),
    ({"rope_scaling": YARN | {"truncate": False}}, False),
    ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, False),
    ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4,
                       "original_max_position_embeddings": 16}}, False),
    ({"hidden_act": "gelu"}, False),
    ({"hidden_act": "swish"}, True),
    ({"rms_norm_eps": None}, True),
    ({"max_position_embeddings": None}, True),
])
def test_settings_are_computed_as_transformers_does(config, own, tmp_path, agree):
    written(tmp_path, config)
    model = folder.load(tmp_path).eval()
    assert isinstance(model, ForeignLanguageModel) != own
    agree(f"logits with {json.dumps(config)[:70]}", "transformers",
          float((model(TOKENS[:1]) - oracle(tmp_path)[:1]).abs().max()), 1e-5)


@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Qwen3", "Mistral"])
def test_biases_and_windows_are_computed_as_transformers_does(family, tmp_path):
    more = {"Llama": {"attention_bias": True, "mlp_bias": True}, "Qwen3": {"attention_bias": True, "head_dim": 8},
            "Qwen2": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, "Mistral": {}}[family]
    config = AutoConfig.for_model(family.lower(), vocab_size=97, hidden_size=32, intermediate_size=48,
                                  num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                                  max_position_embeddings=64, bos_token_id=1, eos_token_id=2, **more)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    if family == "Mistral":  # its window is 4096 where the file does not say
        del values["sliding_window"]
        (tmp_path / "config.json").write_text(json.dumps(values))
        assert folder.load(tmp_path).config.sliding_window == 4096
    read = folder.load(tmp_path).eval()
    torch.testing.assert_close(read(TOKENS), oracle(tmp_path), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_setting_of_our_families_is_overlooked(family):
    """Every field of the library's configuration is computed, held to what we compute, or without effect; and what a
    field is where a file does not have it is what it is there."""
    config = AutoConfig.for_model(family)
    known = {*COMPUTED, *PLAIN, *WITHOUT_EFFECT}
    assert {name for name in config.to_dict() if not name.startswith("_")} <= known
    for name, value in DEFAULTS[family].items():
        assert value is None or getattr(config, name) == value, name
    for name in set(PLAIN) & set(config.to_dict()):
        assert getattr(config, name) in PLAIN[name], name


def test_two_different_matrices_are_not_tied(tmp_path):
    written(tmp_path, {"tie_word_embeddings": True}, tie_embeddings=False)
    model = folder.load(tmp_path)
    assert not model.config.tie_embeddings and not folder.read_config(tmp_path)[0].tie_embeddings
    torch.testing.assert_close(model(TOKENS), oracle(tmp_path), atol=1e-5, rtol=1e-4)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(weights | {"lm_head.weight": weights["model.embed_tokens.weight"].clone()},
              tmp_path / "model.safetensors", {"format": "pt"})
    model = folder.load(tmp_path)
    assert model.config.tie_embeddings and model.lm_head.weight is model.model.embed_tokens.weight
    weights["lm_head.weight"] = weights.pop("model.embed_tokens.weight")
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    torch.testing.assert_close(folder.load(tmp_path)(TOKENS), oracle(tmp_path), atol=1e-5, rtol=1e-4)


def test_stored_frequencies_are_passed_over(tmp_path):
    written(tmp_path, weights={"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    torch.testing.assert_close(folder.load(tmp_path)(TOKENS), oracle(tmp_path), atol=1e-5, rtol=1e-4)


def test_weights_that_stood_there_before_are_not_read(tmp_path):
    place = written(tmp_path / "one")
    library = AutoModelForCausalLM.from_pretrained(place)
    library.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    other = AutoModelForCausalLM.from_pretrained(written(tmp_path / "two", hidden_size=16))
    other.save_pretrained(tmp_path / "theirs")  # leaves the index
    assert (tmp_path / "theirs/model.safetensors.index.json").exists()
    torch.testing.assert_close(folder.load(tmp_path / "theirs")(TOKENS), oracle(tmp_path / "two"), atol=1e-5, rtol=1e-4)
    shutil.copy(tmp_path / "one/model.safetensors", tmp_path / "one/kept")
    model = folder.load(tmp_path / "one")
    folder.save(model, tmp_path / "one", {"eos": 0, "pad": 1}, shard_bytes=20_000)
    assert not (tmp_path / "one/model.safetensors").exists()
    folder.save(model, tmp_path / "one", {"eos": 0, "pad": 1})
    assert [path.name for path in (tmp_path / "one").glob("*.safetensors")] == ["model.safetensors"]
    with pytest.raises(TriviumError, match="no such file"):
        (tmp_path / "one/model.safetensors").unlink()
        folder.load(tmp_path / "one")
