"""Adapters that PEFT wrote: what PEFT makes of them, or a refusal."""

from __future__ import annotations

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tiny_families import tiny_config
from transformers import AutoModelForCausalLM

from trivium.errors import TriviumError
from trivium.model import folder as model_folder
from trivium.model.adapters import AdapterSettings, attach
from trivium.model.adapters import folder as adapter_folder
from trivium.stages.models import check_model

TOKENS = torch.randint(0, 90, (1, 15), generator=torch.Generator().manual_seed(4))

KINDS = {
    "pissa": {"init_lora_weights": "pissa"},
    "pissa-rslora": {"init_lora_weights": "pissa", "use_rslora": True, "rank_pattern": {"v_proj": 2}},
    "olora": {"init_lora_weights": "olora"},
    "eva-like": {"init_lora_weights": "gaussian", "use_dora": True},
    "ranks": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}},
    "regex": {"target_modules": r".*layers\.1\..*\.(k|v)_proj"},
    "one layer": {"target_modules": ["layers.0.mlp.up_proj"]},
    "layers": {"layers_to_transform": [1]},
    "excluded": {"exclude_modules": ["layers.0.self_attn.q_proj"]},
    "output": {"target_modules": ["q_proj", "lm_head"]},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "whole": {"modules_to_save": ["lm_head"]},
    "tokens": {"trainable_token_indices": [3, 5]},
    "biases": {"bias": "lora_only"},
    "grown": {"grown": 104},
}


def written(base, folder, grown=None, **settings):
    """An adapter that does something, in a folder; returns PEFT's own logits with it."""
    def fresh():
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        if grown:
            model.resize_token_embeddings(grown)
        return model
    torch.manual_seed(3)
    model = get_peft_model(fresh(), LoraConfig(**({
        "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"} | settings)))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.save_pretrained(folder)
    with torch.no_grad():
        return PeftModel.from_pretrained(fresh(), folder).eval()(input_ids=TOKENS).logits


@pytest.fixture(scope="module", params=["qwen2", "qwen2-tied", "olmo2"])
def base(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    config = tiny_config(request.param.partition("-")[0])
    config.tie_word_embeddings = "tied" in request.param
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3 if parameter.ndim > 1 else 1)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_what_peft_makes_of_it(base, kind, tmp_path, agree):
    wanted = written(base, tmp_path / "adapter", **KINDS[kind])
    check_model(tmp_path / "adapter")
    model = model_folder.load(tmp_path / "adapter").eval()
    assert model_folder.read_config(tmp_path / "adapter")[0].vocab_size == model.config.vocab_size == wanted.shape[2]
    agree(f"logits with a PEFT adapter, {kind}", "PEFT", float((model(TOKENS) - wanted).abs().max()), 1e-5)
    (tmp_path / "merged").mkdir()
    model_folder.save(model, tmp_path / "merged", {"eos": 2, "pad": 0})
    for again in (model_folder.load(tmp_path / "merged")(TOKENS),
                  AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()(input_ids=TOKENS).logits):
        torch.testing.assert_close(again, wanted, atol=1e-5, rtol=1e-5)


def test_what_cannot_be_read_rightly_is_refused(base, tmp_path):
    written(base, tmp_path, modules_to_save=["lm_head"])
    path = tmp_path / "adapter_config.json"
    config = json.loads(path.read_text())
    for change, message in (({"init_lora_weights": "pissa_niter_4"}, "cannot be repeated exactly"),
                            ({"init_lora_weights": "loftq"}, "cannot be repeated exactly"),
                            ({"init_lora_weights": "corda"}, "cannot be repeated exactly"),
                            ({"layer_replication": [[0, 2]]}, "only adapters without it"),
                            ({"peft_type": "IA3"}, "only LORA is read")):
        path.write_text(json.dumps(config | change))
        for read in (check_model, model_folder.load):
            with pytest.raises(TriviumError, match=message):
                read(tmp_path)
    for change, message in (({"newer": True}, "does not know"),
                            ({"rank_pattern": {"q_proj": 2}}, "size mismatch|shape"),
                            ({"target_modules": ["q_proj"]}, "no place"),
                            ({"target_modules": ["q_proj", "v_proj", "k_proj"]}, "lack"),
                            ({"lora_bias": True}, "PEFT cannot fold|lack")):
        path.write_text(json.dumps(config | change))
        with pytest.raises(TriviumError, match=message):
            model_folder.load(tmp_path)


@pytest.mark.parametrize("dora", [False, True])
def test_lora_goes_on_gpt_2_too(dora, tmp_path):
    """Whose matrices are stored the other way round."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(tiny_config("gpt2")).save_pretrained(tmp_path / "base")
    model = model_folder.load(tmp_path / "base").eval()
    before = model(TOKENS).detach()
    attached = attach(model, AdapterSettings(targets=("c_attn", "c_proj"), rank=3, dora=dora), 0)
    torch.testing.assert_close(model(TOKENS), before, atol=1e-6, rtol=1e-5)
    for _, parameter in attached.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    wanted = model(TOKENS).detach()
    adapter_folder.save(model, attached, tmp_path / "ours", str(tmp_path / "base"),
                        adapter_folder.weights_digest(tmp_path / "base"))
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "ours")
    torch.testing.assert_close(theirs.eval()(input_ids=TOKENS).logits, wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(model_folder.load(tmp_path / "ours").eval()(TOKENS), wanted, atol=1e-5, rtol=1e-4)
    wanted = written(tmp_path / "base", tmp_path / "theirs", target_modules=["c_attn"], use_dora=dora)
    torch.testing.assert_close(model_folder.load(tmp_path / "theirs").eval()(TOKENS), wanted, atol=1e-5, rtol=1e-4)
    with pytest.raises(TriviumError, match="no matrix 'q_proj'; did you mean 'c_proj'"):
        attach(model, AdapterSettings(), 0)
