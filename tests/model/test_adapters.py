"""Adapters: frozen bases, PEFT's logits and folders both ways, merging, digests, and what a prefix means."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from torch import nn
from transformers import AutoModelForCausalLM

from trivium.errors import TriviumError
from trivium.generation.engine import Sampling, generate
from trivium.model import LanguageModel, ModelConfig
from trivium.model import folder as model_folder
from trivium.model.adapters import AdapterSettings, attach, has_adapters
from trivium.model.adapters import folder as adapter_folder
from trivium.model.adapters.lora import leading
from trivium.stages.pretraining.pretrain import LanguageModeling
from trivium.training.batch import Tree, hidden_states, make_batch
from trivium.training.optimizers import Optimization, make_optimizers
from trivium.training.precision import as_trained
from trivium.training.trainer import Trainer

IDS = {"eos": 0, "pad": 1}
KINDS = [
    AdapterSettings(),
    AdapterSettings(rank=4, rslora=True, targets=("q_proj", "down_proj")),
    AdapterSettings(dora=True, rank=3),
    AdapterSettings(kind="bottleneck", width=6),
    AdapterSettings(kind="prefix", tokens=5),
    AdapterSettings(rank=3, initial="pissa"),
    AdapterSettings(rank=3, initial="pissa", rslora=True, ranks={"k_proj": 2}, b_rate=4.0),
    AdapterSettings(ranks={"q_proj": 2, "down_proj": 5}),
]
NAMES = ["lora", "rslora", "dora", "bottleneck", "prefix", "pissa", "pissa-rslora", "ranks"]


def config(**more):
    return ModelConfig(
        **{
            "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_layers": 2, "num_heads": 4,
            "num_kv_heads": 2, "head_dim": 8, "max_positions": 64, **more
        })


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    model_folder.save(LanguageModel(config(qk_norm=False, attention_bias=True)).initialise(0), folder, IDS)
    return folder


def stir(attached, seed=0):
    """Make an adapter do something."""
    generator = torch.Generator().manual_seed(seed)
    for _, parameter in attached.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)


def batch():
    rng = np.random.default_rng(0)
    return make_batch([[
        Tree(rng.integers(0, 60, 5), (rng.integers(0, 60, 6), rng.integers(0, 60, 3))),
        Tree(rng.integers(0, 60, 3), (rng.integers(0, 60, 4),))
    ]], 32)


@pytest.mark.parametrize("settings", KINDS[:4], ids=NAMES[:4])
def test_training_begins_exactly_at_the_frozen_model(base, settings, any_precision):
    model = model_folder.load(base)
    tokens = torch.arange(12)[None] % 60
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.normal_(generator=torch.Generator().manual_seed(0))
        with as_trained(model, any_precision):
            plain = model(tokens)
        attach(model, settings, 0)
        with as_trained(model, any_precision):
            assert torch.equal(model(tokens), plain)


@pytest.mark.parametrize("settings", KINDS, ids=NAMES)
def test_only_the_adapter_is_trained_and_off_is_the_base(base, settings, tmp_path, any_precision):
    model = model_folder.load(base)
    tokens = torch.arange(12)[None] % 60
    plain = model(tokens).detach()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    attached = attach(model, settings, 0)
    trainer = Trainer(model, Optimization(learning_rate=0.01), 8, any_precision)
    losses = [trainer.step(step, [batch()], LanguageModeling())["loss"] for step in range(8)]
    assert losses[-1] < losses[0] and trainer.gathered() is model
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters() if name in before)
    assert (model(tokens) - plain).abs().max() > 1e-3
    with attached.off():
        assert torch.equal(model(tokens), plain)
    adapter_folder.save(model, attached, tmp_path, str(base), adapter_folder.weights_digest(base))
    again = model_folder.load(tmp_path)
    torch.testing.assert_close(again(tokens), model(tokens), atol=1e-5, rtol=1e-4)
    assert has_adapters(again) == (settings.kind != "lora")


@pytest.mark.parametrize("settings", KINDS, ids=NAMES)
def test_packed_and_generated_alike(base, settings):
    """What a packed batch gives a token is what the text alone gives it; and the engine's cache agrees."""
    model = model_folder.load(base)
    stir(attach(model, settings, 0))
    first = batch()
    hidden = hidden_states(model.model, first)
    for tree, ends in ((first.trees[0], first.ends[:2]), (first.trees[1], first.ends[2:])):
        for response, end in zip(tree.responses, ends, strict=True):
            alone = model.model(torch.from_numpy(np.concatenate([tree.prompt, response]))[None])[0, -1]
            torch.testing.assert_close(hidden[end], alone, atol=1e-5, rtol=1e-4)
    prompts = [[3, 4, 5], [7, 8, 9, 10, 11]]
    for prompt, group in zip(prompts, generate(model, prompts, Sampling(temperature=0.0, max_new_tokens=6), [59]),
                             strict=True):
        ids = list(prompt)
        for token in group[0].tokens:
            assert token == int(model(torch.tensor([ids]))[0, -1].argmax())
            ids.append(token)


LORA = [(settings, name) for settings, name in zip(KINDS, NAMES, strict=True) if settings.kind == "lora"]


@pytest.mark.parametrize("settings", [one for one, _ in LORA], ids=[name for _, name in LORA])
def test_peft_has_the_same_logits_both_ways(base, settings, tmp_path):
    tokens = torch.arange(12)[None] % 60
    model = model_folder.load(base)
    attached = attach(model, settings, 0)
    stir(attached)
    adapter_folder.save(model, attached, tmp_path / "ours", str(base), adapter_folder.weights_digest(base))
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "ours").eval()
    torch.testing.assert_close(model(tokens), theirs(tokens).logits, atol=1e-4, rtol=1e-4)
    if not settings.dora:  # which transformers cannot open by itself, PEFT's own folders no more than ours
        torch.testing.assert_close(
            AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()(tokens).logits, model(tokens), atol=1e-4,
            rtol=1e-4)
    theirs = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=list(settings.targets),
                   use_rslora=settings.rslora, use_dora=settings.dora, rank_pattern=settings.ranks,
                   task_type="CAUSAL_LM")).eval()
    for name, parameter in theirs.named_parameters():
        if "lora_" in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    theirs.save_pretrained(tmp_path / "theirs")
    logits = theirs(tokens).logits
    torch.testing.assert_close(model_folder.load(tmp_path / "theirs")(tokens), logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(theirs.merge_and_unload()(tokens).logits, logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("shape", "rank"), [((48, 32), 3), ((32, 48), 8), ((16, 32), 16)])
def test_pissa_begins_at_the_best_approximation(shape, rank):
    """By Eckart and Young that of the whole decomposition, in float64."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    a, b = leading(weight, rank, torch.Generator().manual_seed(1))
    left, values, right = torch.linalg.svd(weight.double(), full_matrices=False)
    best = left[:, :rank] * values[:rank] @ right[:rank]
    assert float((b.double() @ a.double() - best).norm() / best.norm()) < 1e-3
    torch.testing.assert_close((a.norm(dim=1) * b.norm(dim=0)).double(), values[:rank], rtol=1e-3, atol=0)
    with pytest.raises(TriviumError, match="has 16 directions"):
        leading(torch.zeros(16, 40), 17, torch.Generator())


def test_pissa_learns_what_pefts_learns(base, any_precision):
    """It begins at the frozen model, and one plain update moves it where PEFT's moves."""
    settings = AdapterSettings(rank=4, alpha=6.0, initial="pissa", targets=("q_proj", "up_proj"))
    model, first = model_folder.load(base), batch()
    plain = model(torch.arange(12)[None] % 60).detach()
    attached = attach(model, settings, 0)
    exact = any_precision == "float32"
    with torch.no_grad(), as_trained(model, any_precision):
        torch.testing.assert_close(model(torch.arange(12)[None] % 60).float(), plain, atol=1e-5 if exact else 5e-2,
                                   rtol=0)
    theirs = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(
        r=4, lora_alpha=6.0, target_modules=list(settings.targets), init_lora_weights="pissa", task_type="CAUSAL_LM"))
    tokens = torch.from_numpy(np.concatenate([first.trees[1].prompt, first.trees[1].responses[0]]))[None]
    for each, parameters in ((model, [parameter for _, parameter in attached.parameters()]),
                             (theirs, [parameter for name, parameter in theirs.named_parameters() if "lora_" in name])):
        with as_trained(model, any_precision if each is model else "float32"):
            found = each(tokens)
            logits = getattr(found, "logits", found)
            torch.nn.functional.cross_entropy(logits[0, :-1].float(), tokens[0, 1:]).backward()
        with torch.no_grad():
            for parameter in parameters:
                parameter -= 0.5 * parameter.grad
    before = AutoModelForCausalLM.from_pretrained(base)(tokens).logits
    ours, other = (model(tokens) - before).flatten(), (theirs(tokens).logits - before).flatten()
    assert float(other.norm()) > 0.1
    assert float((ours - other).norm() / other.norm()) < (1e-3 if exact else 0.1)


def test_the_second_matrix_learns_faster_as_pefts_does(base):
    model = model_folder.load(base)
    attach(model, AdapterSettings(rank=2, b_rate=16.0), 0)
    (ours, ) = make_optimizers(model, Optimization(learning_rate=2e-4))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {names[id(parameter)]: group["highest"] for group in ours.param_groups for parameter in group["params"]}
    theirs = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(
        r=2, target_modules=list(AdapterSettings().targets), task_type="CAUSAL_LM"))
    optimizer = create_loraplus_optimizer(theirs, torch.optim.AdamW, lr=2e-4, loraplus_lr_ratio=16.0)
    known = {id(parameter): name for name, parameter in theirs.named_parameters()}
    wanted = {known[id(parameter)].replace("base_model.model.", "").replace("lora_A.default.weight", "adapters.0.A")
              .replace("lora_B.default.weight", "adapters.0.B"): group["lr"]
              for group in optimizer.param_groups for parameter in group["params"]}
    assert rates == pytest.approx(wanted) and len(set(rates.values())) == 2


@pytest.mark.parametrize(("settings", "message"), [
    ({"b_rate": 0.0}, "b_rate is 0.0"), ({"initial": "pissa", "dora": True}, "leave one out"),
    ({"ranks": {"k_pro": 3}}, "ranks names 'k_pro'.*k_proj"), ({"ranks": {"k_proj": 0}}, "must be at least 1"),
])
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(TriviumError, match=message):
        AdapterSettings(**settings)


def test_a_prefix_is_keys_and_values_before_the_text(base):
    """Against attention written out by hand in one layer."""
    model = LanguageModel(config(num_layers=1, qk_norm=False)).initialise(1)
    attached = attach(model, AdapterSettings(kind="prefix", tokens=3), 0)
    prefix, found = attached.modules[""], {}

    def look(layer, q, k, v):
        found.update(q=q, k=k, v=v)
        return q
    model.model(torch.tensor([[4, 5, 6]]), None, look)
    assert found["k"].shape[2] == 6 and torch.equal(found["k"][0, :, :3], prefix.keys[0])
    scores = (found["q"] @ found["k"].repeat_interleave(2, 1).transpose(2, 3)) / 8**0.5
    scores = scores + torch.full((3, 6), -torch.inf).triu(4)
    by_hand = scores.softmax(-1) @ found["v"].repeat_interleave(2, 1)
    from trivium.model.attention import causal_attention
    torch.testing.assert_close(causal_attention()(0, found["q"], found["k"], found["v"]), by_hand, atol=1e-6, rtol=1e-5)


def test_another_base_is_refused(base, tmp_path):
    model = model_folder.load(base)
    attached = attach(model, AdapterSettings(), 0)
    adapter_folder.save(model, attached, tmp_path / "adapter", str(base), adapter_folder.weights_digest(base))
    model_folder.save(LanguageModel(config(qk_norm=False, attention_bias=True)).initialise(1), tmp_path / "other", IDS)
    with pytest.raises(TriviumError, match="another base .digest mismatch"):
        model_folder.load_adapter(tmp_path / "adapter", tmp_path / "other")
    (tmp_path / "adapter/trivium.json").unlink()
    model_folder.save(
        LanguageModel(config(qk_norm=False, attention_bias=True, hidden_size=16)).initialise(1), tmp_path / "small",
        IDS)
    with pytest.raises(TriviumError, match="has shape"):
        model_folder.load_adapter(tmp_path / "adapter", tmp_path / "small")
    values = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(values | {"peft_type": "IA3"}))
    with pytest.raises(TriviumError, match="only LORA is read"):
        model_folder.load(tmp_path / "adapter")


def test_targets_that_are_not_there(base):
    with pytest.raises(TriviumError, match="did you mean 'q_proj'"):
        attach(model_folder.load(base), AdapterSettings(targets=("q_prj",)), 0)


def test_adapters_stack(base):
    model = model_folder.load(base)
    tokens = torch.arange(9)[None]
    stir(attach(model, AdapterSettings(kind="bottleneck"), 0))
    before = model(tokens).detach()
    second = attach(model, AdapterSettings(), 1)
    stir(second)
    assert not torch.equal(model(tokens), before)
    with second.off():
        assert torch.equal(model(tokens), before)
    assert [name for name, p in model.named_parameters() if p.requires_grad] and all(
        ".adapters.1" in n or ".adapters.0.A" in n or ".adapters.0.B" in n
        for n, p in model.named_parameters() if p.requires_grad)
    assert isinstance(model.lm_head, nn.Linear)
