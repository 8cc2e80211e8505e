"""bf16 weights with float32 masters: what they are, that small steps add up, and that a run goes on with the same bits."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from trivium.model import LanguageModel, ModelConfig
from trivium.training import loop, precision
from trivium.training.batch import Tree, make_batch
from trivium.training.epochs import PackedEpochs
from trivium.training.loop import Trainer, settle_precision, train
from trivium.training.next_token import LanguageModelling
from trivium.training.optimizers import Optimization
from trivium.training.parallel import World
from trivium.training.precision import faster_bf16, master_of, masters, measure_bf16

CONFIG = ModelConfig(vocab_size=50, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=16)
CPU = torch.device("cpu")


def trees(count=40):
    rng = np.random.default_rng(0)
    return [Tree(np.array([0]), (rng.integers(1, 9, rng.integers(3, 30)),)) for _ in range(count)]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_weights_are_their_masters_rounded(optimizer):
    batch = make_batch([[tree] for tree in trees(4)], 32)
    losses = {}
    for kind in ("float32", "bf16-weights"):
        model = LanguageModel(CONFIG).initialise(0)
        own = dict(model.named_parameters())
        trainer = Trainer(model, Optimization(optimizer=optimizer, learning_rate=3e-3), 10, kind)
        losses[kind] = [trainer.step(number, [batch], LanguageModelling())["loss"] for number in range(10)]
    assert losses["bf16-weights"] == pytest.approx(losses["float32"], abs=0.02) and losses["float32"][-1] < 3.7
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16} and model.lm_head.weight is model.model.embed_tokens.weight
    assert all(torch.equal(weight, master_of(weight).bfloat16()) for weight in model.parameters())
    assert {id(p) for o in trainer.optimizers for g in o.param_groups for p in g["params"]} == {id(p) for p in own.values()}
    found = dict(trainer.gathered().named_parameters())
    assert all(found[name] is weight for name, weight in own.items()) and model.lm_head.weight is model.model.embed_tokens.weight


def test_steps_below_the_spacing_of_bf16_add_up():
    """A matrix's step of 1e-6 is far below 1/256 of its weights: without masters none would ever be made."""
    model = LanguageModel(CONFIG).initialise(0)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    trainer = Trainer(model, Optimization(learning_rate=1e-6, schedule="constant", warmup=0.0), 20, "bf16-weights")
    batch = make_batch([[tree] for tree in trees(4)], 32)
    for number in range(20):
        trainer.step(number, [batch], LanguageModelling())
    name = "model.layers.0.mlp.up_proj.weight"
    moved = (dict(masters(model))[name] - before[name]).abs()
    assert moved.median() > 5e-6


def test_gradients_of_microbatches_are_added_in_float32():
    rows = [[tree] for tree in trees(16)]
    found = []
    for split in ([rows], [rows[i:i + 1] for i in range(16)]):
        model = LanguageModel(CONFIG).initialise(0)
        trainer = Trainer(model, Optimization(optimizer="sgd", learning_rate=1.0, clip=0.0, warmup=0.0), 10, "bf16-weights")
        before = {name: weight.detach().clone() for name, weight in masters(model)}
        trainer.step(0, [make_batch(part, 32) for part in split], LanguageModelling())
        found.append({name: weight.detach() - before[name] for name, weight in masters(model)})
    for name, whole in found[0].items():
        assert (found[1][name] - whole).norm() < 0.02 * whole.norm(), name


def test_a_resumed_run_ends_with_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIVIUM_SAVE_EVERY_STEP", "1")
    batches = PackedEpochs(trees(), 32, 2, 0)
    settings = Optimization(optimizer="muon", schedule="constant", warmup=0.0)

    def go(folder, steps):
        (tmp_path / folder).mkdir(exist_ok=True)
        return train(LanguageModel(CONFIG).initialise(0), LanguageModelling(), batches, steps, settings, scratch=tmp_path / folder,
                     log=tmp_path / folder / "log.jsonl", fingerprint="x", precision="bf16-weights").model

    go("twice", 4)
    saved = load_file(tmp_path / "twice" / "step-00000004.0.safetensors")
    assert {tensor.dtype for name, tensor in saved.items()} == {torch.float32}
    again, straight = go("twice", 9), go("once", 9)
    assert all(a.dtype == torch.float32 and torch.equal(a, b) for a, b in zip(again.parameters(), straight.parameters(), strict=True))


def test_the_faster_way_is_measured_once_and_a_run_keeps_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    times = {"bf16": 2.0, "bf16-weights": 1.0}
    monkeypatch.setattr(precision, "measure_bf16", lambda device: times)
    assert faster_bf16(CPU) == "bf16-weights"
    times["bf16"] = 0.5
    assert faster_bf16(CPU) == "bf16-weights"  # kept
    (tmp_path / "cache/trivium/bf16.json").write_text("{torn")
    assert faster_bf16(CPU) == "bf16"
    monkeypatch.setattr(loop, "choose_precision", lambda wanted, device: "bf16" if wanted == "auto" else wanted)
    assert settle_precision("auto", tmp_path, CPU, World()) == "bf16"
    (tmp_path / "step-00000003.json").write_text(json.dumps({"extra": {"precision": "bf16-weights"}}))
    assert settle_precision("auto", tmp_path, CPU, World()) == "bf16-weights"
    assert settle_precision("bf16", tmp_path, CPU, World()) == "bf16"


@pytest.mark.long
def test_both_ways_can_be_measured():
    assert all(seconds > 0 for seconds in measure_bf16(CPU, 1).values())
