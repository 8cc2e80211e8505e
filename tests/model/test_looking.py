"""What is told of a model token by token, against its equations by brute force and against transformers."""

from __future__ import annotations

import pytest
import torch
from tiny_families import tiny_config
from torch.distributions import Categorical, kl_divergence
from transformers import AutoModelForCausalLM

import trivium
from trivium.errors import TriviumError
from trivium.model import LanguageModel, ModelConfig, RewardModel, RopeScaling, folder
from trivium.model.adapters import AdapterSettings, attach
from trivium.model.looking import ROWS, attention_weights, divergences, following, scores_if_ended

SHAPES = {
    "qwen3": {"qk_norm": True},
    "qwen2": {"qk_norm": False, "attention_bias": True},
    "mistral": {"qk_norm": False, "tie_embeddings": False, "sliding_window": 7},
    "llama-yarn": {"qk_norm": False, "rope_theta": 500.0, "rope_scaling": RopeScaling(4.0, 24, kind="yarn")},
}


def model_of(shape="qwen3", seed=3, **more):
    sizes = {"vocab_size": 97, "hidden_size": 48, "intermediate_size": 64, "num_layers": 2, "num_heads": 4,
             "num_kv_heads": 2, "head_dim": 16}
    model = LanguageModel(ModelConfig(**{**sizes, **SHAPES[shape], **more})).initialise(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim < 2:  # norms and biases of their own
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return model.eval()


def text(length, seed=0, vocabulary=97):
    return torch.randint(0, vocabulary, (length,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
@pytest.mark.parametrize("length", [1, 2, ROWS - 1, ROWS, ROWS + 1, 2 * ROWS + 3])
def test_what_follows_is_the_softmax_of_the_logits(kind, length):
    model, tokens = model_of().to(kind), text(length)
    found = following(model, tokens, 10)
    with torch.no_grad():
        logits = model(tokens[None])[0].double()
    assert found.standing.shape == found.ranks.shape == (length - 1,)
    for place in range(length):
        p = logits[place].exp() / logits[place].exp().sum()
        order = sorted(range(97), key=lambda id: -float(p[id]))
        assert found.likeliest[place].tolist() == order[:10]
        torch.testing.assert_close(found.log_probs[place].exp(), p[order[:10]], atol=1e-6, rtol=0)
        assert float(found.entropies[place]) == pytest.approx(-sum(float(q * q.log()) for q in p), abs=1e-6)
        if place + 1 < length:
            assert int(found.ranks[place]) == order.index(int(tokens[place + 1])) + 1
            assert float(found.standing[place].exp()) == pytest.approx(float(p[tokens[place + 1]]), abs=1e-6)


def test_equally_likely_tokens_share_a_rank():
    model = model_of(tie_embeddings=False)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    assert following(model, text(5)).ranks.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
def test_divergences_are_those_of_torch(kind):
    policy, reference, tokens = model_of().to(kind), model_of(seed=5).to(kind), text(ROWS + 9)
    ratios, whole = divergences(policy, reference, tokens)
    with torch.no_grad():
        p, r = (Categorical(logits=model(tokens[None])[0, :-1].double()) for model in (policy, reference))
    torch.testing.assert_close(ratios, p.log_prob(tokens[1:]) - r.log_prob(tokens[1:]), atol=1e-6, rtol=0)
    torch.testing.assert_close(whole, kl_divergence(p, r), atol=1e-6, rtol=0)
    # and the former's mean over what the policy might have said is the latter
    every = torch.arange(97)[:, None]
    mean = (p.probs.T * (p.log_prob(every) - r.log_prob(every))).sum(0)
    torch.testing.assert_close(whole, mean, atol=1e-6, rtol=0)
    assert float(whole.min()) > 0
    same, nought = divergences(policy, policy, tokens)
    assert not same.any() and not nought.any()


def test_broken_weights_are_named():
    model = model_of()
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    with pytest.raises(TriviumError, match="not finite"):
        following(model, text(3))


def eager(place, tokens):
    """The weights ``[layers][heads, T, T]`` that transformers gives out."""
    oracle = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        return [one[0] for one in oracle(tokens[None], output_attentions=True).attentions]


@pytest.mark.parametrize("shape", SHAPES)
def test_attention_is_that_of_transformers(tmp_path, shape, agree):
    model, tokens = model_of(shape), text(40)
    folder.save(model, tmp_path, {"eos": 0, "pad": 1})
    for layer, wanted in enumerate(eager(tmp_path, tokens)):
        weights, before = attention_weights(model, tokens, layer)
        agree(f"attention weights of our own {shape}", "transformers", float((weights - wanted).abs().max()), 1e-5)
        assert not before.any() and weights.shape == (4, 40, 40)
        assert float((weights.sum(-1) - 1).abs().max()) < 1e-6 and not weights.triu(1).any()
    if shape == "mistral":
        assert not weights.tril(-7).any() and weights.tril(-6).any()


def test_attention_in_float64_is_the_equation():
    """softmax(q k^T / sqrt(d)) of layer 0, whose input is the normed embedding, by hand."""
    model, tokens = model_of().double(), text(12)
    weights, _ = attention_weights(model, tokens, 0)
    block = model.model.layers[0]
    with torch.no_grad():
        x = block.input_layernorm(model.model.embed_tokens(tokens))
        angles = torch.arange(12)[:, None] * model.config.rope_theta**(-torch.arange(0, 16, 2) / 16)[None]
        for head in range(4):
            q = block.self_attn.q_norm(x @ block.self_attn.q_proj.weight[16 * head:16 * head + 16].T)
            shared = head // 2
            k = block.self_attn.k_norm(x @ block.self_attn.k_proj.weight[16 * shared:16 * shared + 16].T)
            q, k = (torch.view_as_real(torch.complex(one[:, :8], one[:, 8:]) * torch.polar(
                torch.ones(12, 8).double(), angles.double())).transpose(1, 2).flatten(1) for one in (q, k))
            for i in range(12):
                scores = torch.stack([q[i] @ k[j] / 4 for j in range(i + 1)])
                wanted = scores.exp() / scores.exp().sum()
                torch.testing.assert_close(weights[head, i, :i + 1], wanted, atol=1e-6, rtol=0)


def test_a_prefix_takes_its_share():
    model, tokens = model_of(), text(9)
    plain, _ = attention_weights(model, tokens, 0)
    attach(model, AdapterSettings(kind="prefix", tokens=3), 0)
    weights, before = attention_weights(model, tokens, 0)
    assert float((weights.sum(-1) + before - 1).abs().max()) < 1e-6 and bool((before > 0).all())
    torch.testing.assert_close(weights / weights.sum(-1, keepdim=True), plain)


@pytest.mark.parametrize("kind", ["gpt2", "gemma"])
def test_attention_of_other_families_is_that_of_transformers(tmp_path, kind):
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(tiny_config(kind)).save_pretrained(tmp_path)
    model, tokens = folder.load(tmp_path).eval(), text(20, vocabulary=96)
    for layer, wanted in enumerate(eager(tmp_path, tokens)):
        torch.testing.assert_close(attention_weights(model, tokens, layer)[0], wanted, atol=1e-5, rtol=0)


def test_what_cannot_be_told_is_refused(tmp_path):
    with pytest.raises(TriviumError, match="layers go from 0 to 1"):
        attention_weights(model_of(), text(3), 2)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(tiny_config("mamba2")).save_pretrained(tmp_path)
    with pytest.raises(TriviumError, match="cannot be told"):
        attention_weights(folder.load(tmp_path).eval(), text(5, vocabulary=96), 0)


@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", SHAPES)
def test_scores_are_those_of_the_text_if_it_ended_there(shape, kind):
    reward, tokens = RewardModel.from_language_model(model_of(shape), 7).to(kind).eval(), text(30)
    tokens[tokens == 5] = 6
    tokens[[4, 29]] = 5
    for first in (0, 11, 29):
        found = scores_if_ended(reward, tokens, 5, first)
        for place in range(first, 30):
            ended = tokens[:place + 1] if tokens[place] == 5 else torch.cat([tokens[:place + 1], torch.tensor([5])])
            with torch.no_grad():
                wanted = float(reward(ended[None])[0, -1])
            assert float(found[place - first]) == pytest.approx(wanted, abs=1e-10 if kind == torch.float64 else 2e-5)


def test_scores_of_a_family_that_cannot_be_packed(tmp_path):
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(tiny_config("mamba2")).save_pretrained(tmp_path)
    reward, tokens = folder.load(tmp_path).rewarding(0).eval(), text(8, vocabulary=90) + 3
    found = scores_if_ended(reward, tokens, 2)
    for place in range(8):
        with torch.no_grad():
            wanted = reward(torch.cat([tokens[:place + 1], torch.tensor([2])])[None])[0, -1]
        torch.testing.assert_close(found[place], wanted, atol=1e-5, rtol=0)


def test_an_end_beyond_the_positions_is_refused():
    reward = RewardModel.from_language_model(model_of(max_positions=8), 7).eval()
    with pytest.raises(TriviumError, match="8 positions"):
        scores_if_ended(reward, torch.tensor([1] * 8), 5)
    assert len(scores_if_ended(reward, torch.tensor([1] * 7 + [5]), 5, 7)) == 1


@pytest.mark.real_model
def test_attention_of_a_real_model_is_that_of_transformers(smollm2, agree):
    loaded = trivium.load(smollm2)
    ids = loaded.tokenizer.encode_chat([{"role": "user", "content": "What is the capital of France?"},
                                        {"role": "assistant", "content": "It is Paris."}])[0]
    wanted = eager(smollm2, torch.tensor(ids))
    assert len(wanted) == 30
    for layer, one in enumerate(wanted):
        weights, _ = attention_weights(loaded.model, torch.tensor(ids), layer)
        agree("SmolLM2-135M-Instruct: attention weights", "transformers", float((weights - one).abs().max()), 1e-4)
