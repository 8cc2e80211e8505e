"""Every family that transformers knows: what is loaded computes what transformers does, packed, as responses under one
prompt and sampled; the rest is refused in words."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from tiny_families import tiny_config
from transformers import AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from trivium.errors import TriviumError
from trivium.generation.engine import Sampling, generate
from trivium.model import folder as model_folder
from trivium.model.adapters import AdapterSettings, attach
from trivium.stages.pretraining.pretrain import LanguageModeling
from trivium.training.batch import Tree, hidden_states, make_batch
from trivium.training.optimizers import Optimization
from trivium.training.trainer import Trainer

RECURRENT = ["qwen3_5_text", "qwen3_next", "granitemoehybrid", "lfm2", "mamba", "falcon_h1"]
ATTENDING = ["deepseek_v3", "qwen2_moe", "gemma3_text", "cohere", "gpt_oss", "gpt2", "bloom"]
LARGE = {"longcat_flash", "deepseek_v4", "inkling_text", "blt", "emu3", "fuyu", "got_ocr2", "llama4", "mllama",
         "phi4_multimodal", "moss_transcribe_diarize", "dots3_note", "gemma3", "gemma4", "gemma4_unified",
         "gemma4_unified_assistant", "qwen3_5", "qwen3_5_moe", "qwen4_exp"}
"""Families whose smallest model takes minutes, or is one of pictures."""


def made(kind, folder):
    """A random model of a family, with weights large enough to tell one way of computing from another."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(kind)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
            else:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def alone(oracle, prompt, response):
    """The log-probabilities that transformers gives a response by itself."""
    logits = oracle(input_ids=torch.tensor(np.concatenate([prompt, response]))[None], use_cache=False).logits[0]
    found = logits.log_softmax(-1)[len(prompt) - 1:-1]
    return found.gather(1, torch.tensor(response)[:, None])[:, 0]


@torch.no_grad()
def agrees(model, oracle, long=24):
    """Whole texts, packed trees and documents, and greedy tokens of several samples in fewer rows. Returns by how much
    the log-probabilities of packed responses differ at most, in nats."""
    ids = torch.randint(3, 90, (1, long), generator=torch.Generator().manual_seed(1))
    wanted = oracle(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(model(ids), wanted, atol=1e-4 * float(wanted.std()), rtol=1e-4)
    text = ids[0].numpy()
    batch = make_batch([[Tree(text[:4], (text[4:12], text[12:17])), Tree(text[17:20], (text[20:],))]], long + 8, 2)
    hidden = hidden_states(model.model, batch)
    found = model.lm_head(hidden[batch.sources]).log_softmax(-1).gather(1, batch.targets[:, None])[:, 0]
    apart = torch.cat([alone(oracle, text[:4], text[4:12]), alone(oracle, text[:4], text[12:17]),
                       alone(oracle, text[17:20], text[20:])])
    torch.testing.assert_close(found, apart, atol=1e-4, rtol=1e-4)
    prompts = [text.tolist(), text[:7].tolist(), text[:1].tolist()]
    groups = generate(model, prompts, Sampling(temperature=0.0, max_new_tokens=5), [], samples=2, batch_rows=2)
    for prompt, group in zip(prompts, groups, strict=True):
        known = list(prompt)
        for _ in range(5):
            known.append(int(oracle(input_ids=torch.tensor([known]), use_cache=False).logits[0, -1].argmax()))
        assert [one.tokens for one in group] == [known[len(prompt):]] * 2
    return float((found - apart).abs().max())


@pytest.mark.parametrize("kind", [*RECURRENT, *ATTENDING])
def test_a_family_computes_what_transformers_does(kind, tmp_path, agree):
    oracle = made(kind, tmp_path)
    model = model_folder.load(tmp_path).eval()
    agree(f"packed responses of {kind}, as alone; greedy tokens equal", "transformers", agrees(model, oracle), 1e-4)
    assert (model.model.reach == 0) == (kind in {*RECURRENT, "gpt_oss", "bloom"})
    bf16 = model_folder.load(tmp_path, torch.bfloat16)
    assert bf16.model.reach == model.model.reach and bf16.lm_head.weight.dtype == torch.bfloat16


@pytest.mark.long
@pytest.mark.parametrize("kind", sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - LARGE))
def test_every_family_is_right_or_refused(kind, tmp_path, agree):
    oracle = None
    with contextlib.suppress(Exception):  # a family that has no tiny model by these settings
        oracle = made(kind, tmp_path)
    if oracle is None:
        pytest.skip("no tiny model of it")
    try:
        model = model_folder.load(tmp_path).eval()
    except TriviumError as refused:
        assert any(word in str(refused) for word in ("not supported", "no causal language model", "see those that",
                                                 "cannot be computed", "cannot be read"))
        return
    agree(f"packed responses of {kind}, as alone; greedy tokens equal", "transformers", agrees(model, oracle), 1e-4)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("kind", ["qwen3_5_text", "gemma3_text"])
def test_texts_in_rows_of_their_own_have_the_gradients_of_each_alone(kind, precision, tmp_path):
    made(kind, tmp_path)
    model = model_folder.load(tmp_path)
    rng = np.random.default_rng(0)
    first, second = (Tree(rng.integers(3, 90, 5), (rng.integers(3, 90, 6), rng.integers(3, 90, 4))),
                     Tree(rng.integers(3, 90, 3), (rng.integers(3, 90, 8),)))

    def gradient(rows):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            for row in rows:
                batch = make_batch([row], 32)
                LanguageModeling()(model, batch)["loss"].value.backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    together = gradient([[first, second]])
    apart = gradient([[Tree(first.prompt, (one,))] for one in first.responses] + [[second]])
    assert float((together - apart).norm() / apart.norm()) < (1e-4 if precision == "float32" else 0.05)
    trainer = Trainer(model, Optimization(learning_rate=0.005), 6, precision)
    batch = make_batch([[first, second]], 32)
    losses = [trainer.step(step, [batch], LanguageModeling())["loss"] for step in range(6)]
    assert losses[-1] < losses[0]


def test_beyond_a_window_texts_are_computed_apart(tmp_path):
    config = tiny_config("gemma3_text")
    config.sliding_window = 12
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model = model_folder.load(tmp_path).eval()
    assert model.model.reach == 12 and model.config.max_positions == 96
    agrees(model, AutoModelForCausalLM.from_pretrained(tmp_path).eval(), 40)


@pytest.mark.parametrize("rope", [
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
     "original_max_position_embeddings": 16}
], ids=["dynamic", "longrope"])
def test_positions_that_stretch_with_a_text_are_those_of_each_alone(rope, tmp_path):
    """Past the original length a text's positions depend on its own length, and on no text beside it."""
    config = tiny_config("phi3" if rope["rope_type"] == "longrope" else "olmo2")
    config.max_position_embeddings = 16 if rope["rope_type"] == "dynamic" else 96
    config.original_max_position_embeddings, config.sliding_window = 16, None
    config.rope_parameters = {"rope_theta": 10000.0, "partial_rotary_factor": 1.0, **rope}
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    oracle = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    model = model_folder.load(tmp_path).eval()
    ids = torch.randint(3, 90, (1, 26), generator=torch.Generator().manual_seed(1))

    def fresh(text):  # the library's dynamic positions remember the longest text so far
        return AutoModelForCausalLM.from_pretrained(tmp_path).eval()(torch.as_tensor(text)[None]).logits[0]
    with torch.no_grad():
        torch.testing.assert_close(model(ids)[0], fresh(ids[0]), atol=1e-5, rtol=1e-4)
        batch = make_batch([[Tree(ids[0, :2].numpy(), (ids[0, 2:8].numpy(), ids[0, 4:24].numpy()))]], 32)
        hidden = model.lm_head(hidden_states(model.model, batch)[batch.ends])
        torch.testing.assert_close(hidden[0], fresh(ids[0, :8])[-1], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(hidden[1], fresh(torch.cat([ids[0, :2], ids[0, 4:24]]))[-1], atol=1e-5, rtol=1e-4)
        drawn = generate(model, [ids[0, :13].tolist()], Sampling(temperature=0.0, max_new_tokens=8), [])[0][0].tokens
        known = ids[0, :13].tolist()
        for token in drawn:
            assert token == int(fresh(known)[-1].argmax())
            known.append(token)
    assert oracle.config.rope_parameters["rope_type"] == rope["rope_type"]


def test_what_sees_the_future_or_takes_no_prefix_is_refused(tmp_path):
    config = tiny_config("llama")
    config.is_causal = False
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "both-ways")
    with pytest.raises(TriviumError, match="see those that come after them"):
        model_folder.load(tmp_path / "both-ways")
    made("qwen3_next", tmp_path / "recurrent")
    model = model_folder.load(tmp_path / "recurrent")
    with pytest.raises(TriviumError, match="takes no prefix .packed into one row, texts change"):
        attach(model, AdapterSettings(kind="prefix"), 0)
