"""Number formats: what `auto` means; bf16 weights with float32 masters, whose small steps add up; a run goes on with
the same bits in each."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from trivium.errors import TriviumError
from trivium.model import LanguageModel, ModelConfig
from trivium.training import machine
from trivium.training.batch import Tree, make_batch
from trivium.training.epochs import PackedEpochs
from trivium.training.loop import train
from trivium.training.machine import AUTO, resolve_precision
from trivium.training.next_token import LanguageModeling
from trivium.training.optimizers import Optimization
from trivium.training.precision import as_trained, master_of, masters, settle
from trivium.training.trainer import Trainer

CONFIG = ModelConfig(vocab_size=50, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=2, num_kv_heads=1,
                     head_dim=16)


def trees(count=40):
    rng = np.random.default_rng(0)
    return [Tree(np.array([0]), (rng.integers(1, 9, rng.integers(3, 30)),)) for _ in range(count)]


@pytest.mark.bf16
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_weights_are_their_masters_rounded(optimizer):
    batch = make_batch([[tree] for tree in trees(4)], 32)
    losses = {}
    for kind in ("float32", "bf16-weights"):
        model = LanguageModel(CONFIG).initialise(0)
        own = dict(model.named_parameters())
        trainer = Trainer(model, Optimization(optimizer=optimizer, learning_rate=3e-3), 10, kind)
        losses[kind] = [trainer.step(number, [batch], LanguageModeling())["loss"] for number in range(10)]
    assert losses["bf16-weights"] == pytest.approx(losses["float32"], abs=0.02) and losses["float32"][-1] < 3.7
    assert {weight.dtype
            for weight in model.parameters()} == {torch.bfloat16
                                                  } and model.lm_head.weight is model.model.embed_tokens.weight
    assert all(torch.equal(weight, master_of(weight).bfloat16()) for weight in model.parameters())
    assert {id(p)
            for o in trainer.optimizers
            for g in o.param_groups
            for p in g["params"]} == {id(p)
                                      for p in own.values()}
    found = dict(trainer.gathered().named_parameters())
    assert all(found[name] is weight
               for name, weight in own.items()) and model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.bf16
def test_steps_below_the_spacing_of_bf16_add_up():
    """A matrix's step of 1e-6 is far below 1/256 of its weights: without masters none would ever be made."""
    model = LanguageModel(CONFIG).initialise(0)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    trainer = Trainer(model, Optimization(learning_rate=1e-6, schedule="constant", warmup=0.0), 20, "bf16-weights")
    batch = make_batch([[tree] for tree in trees(4)], 32)
    for number in range(20):
        trainer.step(number, [batch], LanguageModeling())
    name = "model.layers.0.mlp.up_proj.weight"
    moved = (dict(masters(model))[name] - before[name]).abs()
    assert moved.median() > 5e-6


@pytest.mark.bf16
def test_gradients_of_microbatches_are_added_in_float32():
    rows = [[tree] for tree in trees(16)]
    found = []
    for split in ([rows], [rows[i:i + 1] for i in range(16)]):
        model = LanguageModel(CONFIG).initialise(0)
        trainer = Trainer(model, Optimization(optimizer="sgd", learning_rate=1.0, clip=0.0, warmup=0.0), 10,
                          "bf16-weights")
        before = {name: weight.detach().clone() for name, weight in masters(model)}
        trainer.step(0, [make_batch(part, 32) for part in split], LanguageModeling())
        found.append({name: weight.detach() - before[name] for name, weight in masters(model)})
    for name, whole in found[0].items():
        assert (found[1][name] - whole).norm() < 0.02 * whole.norm(), name


def test_a_resumed_run_ends_with_the_same_bits(tmp_path, monkeypatch, any_precision):
    monkeypatch.setenv("TRIVIUM_SAVE_EVERY_STEP", "1")
    batches = PackedEpochs(trees(), 32, 2, 0)
    settings = Optimization(optimizer="muon", schedule="constant", warmup=0.0)

    def go(folder, steps):
        (tmp_path / folder).mkdir(exist_ok=True)
        return train(
            LanguageModel(CONFIG).initialise(0), LanguageModeling(), batches, steps, settings,
            scratch=tmp_path / folder, log=tmp_path / folder / "log.jsonl", fingerprint="x",
            precision=any_precision).model

    go("twice", 4)
    saved = load_file(tmp_path / "twice" / "step-00000004.0.safetensors")
    assert {tensor.dtype for name, tensor in saved.items()} == {torch.float32}
    again, straight = go("twice", 9), go("once", 9)
    assert all(a.dtype == torch.float32 and torch.equal(a, b)
               for a, b in zip(again.parameters(), straight.parameters(), strict=True))


def test_auto_is_what_the_hardware_multiplies_or_what_the_variable_says(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.delenv(AUTO, raising=False)
    for native, expected in ((True, "bf16"), (False, "float32")):
        monkeypatch.setattr(machine, "multiplies_bf16", lambda device, native=native: native)
        assert resolve_precision("auto", cpu) == expected
    for forced in ("float32", "bf16", "bf16-weights"):
        monkeypatch.setenv(AUTO, forced)
        assert resolve_precision("auto", cpu) == forced
        assert {kind: resolve_precision(kind, cpu) for kind in ("float32", "bf16", "bf16-weights")} == {
            kind: kind for kind in ("float32", "bf16", "bf16-weights")}
    for wrong in ("fp8", "auto", ""):
        monkeypatch.setenv(AUTO, wrong)
        with pytest.raises(TriviumError,
                           match=f"TRIVIUM_AUTO_PRECISION is '{wrong}'; it may be float32, bf16, bf16-weights"):
            resolve_precision("auto", cpu)


def test_what_is_measured_as_trained_is_what_the_first_step_computes(any_precision):
    model = LanguageModel(CONFIG).initialise(0)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    batch = make_batch([[tree] for tree in trees(4)], 32)
    with torch.no_grad(), as_trained(model, any_precision):
        measured = LanguageModeling()(model, batch)["loss"].value.item() / batch.counts["tokens"]
    assert all(weight.dtype == torch.float32 and torch.equal(weight, before[name])
               for name, weight in model.state_dict().items())
    trained = Trainer(copy.deepcopy(model), Optimization(), 10, any_precision).step(0, [batch],
                                                                                    LanguageModeling())["loss"]
    assert measured == trained
    with torch.no_grad():
        exactly = LanguageModeling()(model, batch)["loss"].value.item() / batch.counts["tokens"]
    assert (measured == exactly) == (any_precision == "float32") and measured == pytest.approx(exactly, abs=0.01)


@pytest.fixture
def every_warning():
    """PyTorch's warnings, which it otherwise gives once in a process."""
    torch.set_warn_always(True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught
    torch.set_warn_always(False)


@pytest.mark.bf16
def test_norms_have_a_kernel_under_autocast(every_warning):
    """Those of queries and keys get bf16 inputs there, but keep float32 weights; PyTorch warns of a mixture, for which
    it has no kernel."""
    model = LanguageModel(CONFIG).initialise(0)
    with as_trained(model, "bf16"):
        model(torch.arange(9)[None]).sum().backward()
    assert not [warning for warning in every_warning if "Mismatch dtype" in str(warning.message)]
    assert all(weight.grad.dtype == torch.float32 for weight in model.parameters())


@pytest.mark.bf16
@pytest.mark.parametrize("kind", ["bf16", "bf16-weights"])
def test_an_update_of_a_float16_model_moves_it_as_far_as_in_float32(kind):
    batch = make_batch([[tree] for tree in trees(8)], 32)
    told = []
    changes = {}
    for precision in ("float32", kind):
        model = LanguageModel(CONFIG).initialise(0)
        with torch.no_grad():
            for weight in model.parameters():
                weight.copy_(weight.half().float())
        before = copy.deepcopy(model.state_dict())
        settle(model, precision, told.append)
        assert all(torch.equal(weight.half(), before[name].half()) and
                   torch.equal(weight.bfloat16(), before[name].bfloat16())
                   for name, weight in model.state_dict().items())
        trainer = Trainer(model, Optimization(learning_rate=1e-6, schedule="constant", warmup=0.0), 1, precision)
        trainer.step(0, [batch], LanguageModeling())
        changes[precision] = sum(
            float((weight.detach().to(read).float() - before[name].to(read).float()).abs().sum())
            for read in [torch.bfloat16 if precision == kind else torch.float32]
            for name, weight in masters(model) if weight.dim() > 1)
    assert len(told) == 1 and "halfway" in told[0]
    assert changes[kind] == pytest.approx(changes["float32"], rel=0.2)  # without it some twenty times as far


def test_weights_drawn_at_random_stay_where_they_are():
    model = LanguageModel(CONFIG).initialise(0)
    before = copy.deepcopy(model.state_dict())
    settle(model, "bf16", pytest.fail)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
