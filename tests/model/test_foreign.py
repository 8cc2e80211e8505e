"""Models of other families: packed and generated as they are alone, and folders that come back whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, GemmaConfig, Olmo2Config

from trivium.errors import TriviumError
from trivium.generation.engine import Sampling, generate
from trivium.model import folder as model_folder
from trivium.model.adapters import AdapterSettings, attach
from trivium.training.batch import Tree, hidden_states, make_batch

SMALL = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64
}


@pytest.fixture(params=[GemmaConfig(**SMALL, head_dim=8, query_pre_attn_scalar=16),
                        Olmo2Config(**SMALL)], ids=["gemma", "olmo2"])
def theirs(request, tmp_path):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(request.param).eval()
    model.save_pretrained(tmp_path / "base")
    return model, tmp_path


def test_it_computes_what_transformers_does_packed_and_cached(theirs):
    oracle, folder = theirs
    model = model_folder.load(folder / "base")
    tokens = torch.arange(12)[None]
    torch.testing.assert_close(model(tokens), oracle(tokens).logits, atol=1e-5, rtol=1e-4)
    rng = np.random.default_rng(0)
    batch = make_batch([[
        Tree(rng.integers(0, 60, 5), (rng.integers(0, 60, 6), rng.integers(0, 60, 3))),
        Tree(rng.integers(0, 60, 3), (rng.integers(0, 60, 4),))
    ]], 32)
    hidden = hidden_states(model.model, batch)
    for end, text in ((1, [*batch.trees[0].prompt,
                           *batch.trees[0].responses[1]]), (2, [*batch.trees[1].prompt, *batch.trees[1].responses[0]])):
        logits = oracle(torch.tensor([text])).logits[0, -1]
        torch.testing.assert_close(model.lm_head(hidden[batch.ends[end]]), logits, atol=1e-5, rtol=1e-4)
    for prompt, group in zip([[3, 4, 5], [7, 8, 9, 10]],
                             generate(model, [[3, 4, 5], [7, 8, 9, 10]], Sampling(temperature=0.0, max_new_tokens=5),
                                      [59]), strict=True):
        ids = list(prompt)
        for token in group[0].tokens:
            assert token == int(oracle(torch.tensor([ids])).logits[0, -1].argmax())
            ids.append(token)


def test_folders_come_back_whole(theirs):
    oracle, folder = theirs
    model = model_folder.load(folder / "base")
    model_folder.save(model, folder / "again", {"eos": 3, "pad": 4})
    again = AutoModelForCausalLM.from_pretrained(folder / "again").eval()
    tokens = torch.arange(12)[None]
    assert again.config.model_type == oracle.config.model_type and again.config.eos_token_id == 3 and type(
        again) is type(oracle)
    torch.testing.assert_close(again(tokens).logits, oracle(tokens).logits)
    reward = model.rewarding(0)
    reward.shift = 0.5
    model_folder.save(reward, folder / "reward", {"eos": 3, "pad": 4})
    read = model_folder.load(folder / "reward")
    torch.testing.assert_close(read(tokens), reward(tokens))
    assert read.shift == 0.5


def test_a_prefix_serves_it_too(theirs):
    model = model_folder.load(theirs[1] / "base")
    before = model(torch.arange(9)[None]).detach()
    attached = attach(model, AdapterSettings(kind="prefix", tokens=3), 0)
    assert (model(torch.arange(9)[None]) - before).abs().max() > 1e-5
    with attached.off():
        assert torch.equal(model(torch.arange(9)[None]), before)


def test_what_would_be_wrong_is_refused(theirs, tmp_path):
    AutoModelForCausalLM.from_config(Gemma2Config(**SMALL, head_dim=8)).save_pretrained(tmp_path / "capped")
    with pytest.raises(TriviumError, match="logit_softcapping"):
        model_folder.load(tmp_path / "capped")
    path = theirs[1] / "base/config.json"
    path.write_text(path.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    with pytest.raises(TriviumError, match="do not fit config.json: missing keys"):
        model_folder.load(theirs[1] / "base")
