"""Looking into batches, and predicted memory against what a real step takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from trivium.errors import TriviumError
from trivium.planning.inspection import memory_of, step_of, tokens_of
from trivium.recipe.load import load_recipe

ROOT = Path(__file__).resolve().parents[2]

MEASURE = """
import json, sys, torch
from trivium.training.machine import prepare
prepare(2)
from trivium.recipe.load import load_recipe
from trivium.planning.inspection import step_of
from trivium.training.trainer import Trainer
from trivium.training.precision import master_of
step = step_of(load_recipe(sys.argv[1], json.loads(sys.argv[2])), sys.argv[4], 1)
model, beside = step.models()
trainer = Trainer(model, step.optimization, 10, step.precision, step.parallel)
trainer.step(0, step.batches, step.objective)
with torch.profiler.profile(profile_memory=True) as profile:
    trainer.step(1, step.batches, step.objective)
profile.export_chrome_trace(sys.argv[3])
events = json.load(open(sys.argv[3]))["traceEvents"]
peak = max(e["args"]["Total Allocated"] for e in events if e.get("name") == "[memory]")
held = [p for each in (model, *beside) for p in each.parameters()]
held += [master_of(p) for p in held]
held += [v for o in trainer.optimizers for state in o.state.values() for v in state.values() if torch.is_tensor(v)]
# The profile counts from its start, when all these were there.
print(peak + sum({v.data_ptr(): v.nbytes for v in held}.values()))
"""


@pytest.mark.parametrize(("stage", "changes"), [
    ("pretrain", ["pretrain.rows=8", "pretrain.parallel={rows: 4}"]),
    ("ppo", ["ppo.adapter={kind: lora}", "ppo.episodes=16"]),
    pytest.param("pretrain",
                 ["pretrain.rows=8", "pretrain.parallel={checkpoint_activations: true}", "pretrain.model.num_layers=4"],
                 marks=pytest.mark.long),
    pytest.param("pretrain", ["pretrain.rows=2", "pretrain.precision=bf16-weights"], marks=pytest.mark.long),
    pytest.param("sft", ["sft.adapter={kind: lora}"], marks=pytest.mark.long),
    pytest.param("ppo", ["ppo.episodes=16"], marks=pytest.mark.long),
])
def test_predicted_memory_is_what_a_step_takes(tmp_path, stage, changes):
    """Against PyTorch's own record of a real step's allocations."""
    sets = [
        "pretrain.model={hidden_size: 192, intermediate_size: 512, num_layers: 2, num_heads: 3, num_kv_heads: 3, "
        "head_dim: 64}",
        "pretrain.length=512", "tokenizer.vocab_size=4096", *changes
    ]
    recipe = load_recipe(ROOT / "recipes/quickstart.yaml", sets)
    predicted, _ = memory_of(recipe, stage, 1)
    measured = int(
        subprocess.run([
            sys.executable, "-c", MEASURE,
            str(ROOT / "recipes/quickstart.yaml"),
            json.dumps(sets),
            str(tmp_path / "trace.json"), stage
        ], check=True, capture_output=True, text=True).stdout)
    assert measured == pytest.approx(predicted.total, rel=0.1)


def test_a_reward_model_that_is_an_adapter_has_no_trunk_of_its_own():
    sizes = []
    for more in ([], ["reward.adapter={kind: lora}"]):
        recipe = load_recipe(ROOT / "recipes/quickstart.yaml", [
            "pretrain.model={hidden_size: 64, intermediate_size: 96, num_layers: 2, num_heads: 2, head_dim: 32}",
            "ppo.adapter={kind: lora, rank: 2}", *more
        ])
        model, beside = step_of(recipe, "ppo", 1).models()
        sizes.append(
            sum(weight.numel() for weight in {id(w): w
                                              for one in (model, *beside)
                                              for w in one.parameters()}.values()))
        trunk = sum(weight.numel() for name, weight in model.policy.named_parameters() if ".adapters." not in name)
        assert [name for name, weight in model.named_parameters()
                if weight.requires_grad and ".adapters." not in name] == ["value.score.weight"]
    assert 2 * trunk < sizes[0] < 2.3 * trunk and trunk < sizes[1] < 1.4 * trunk


def test_more_processes_need_less_each():
    recipe = load_recipe(ROOT / "recipes/quickstart.yaml", ["pretrain.rows=8"])
    one, four = memory_of(recipe, "pretrain", 1)[0], memory_of(recipe, "pretrain", 4)[0]
    assert one.checkpoint == pytest.approx(one.parameters + one.optimizer, rel=0.02)
    assert four.checkpoint == pytest.approx(one.checkpoint / 4, rel=0.05)
    assert four.optimizer == pytest.approx(one.optimizer / 4, rel=0.05) and four.activations < one.activations / 2


@pytest.mark.parametrize(("stage", "processes", "message"), [
    ("pretrian", 1, "no such stage"),
    ("corpus", 1, "a stage of kind 'corpus' is not predicted"),
    ("pretrain", 64, "cannot share a batch of 3 rows"),
])
def test_what_cannot_be_predicted_is_said(stage, processes, message):
    with pytest.raises(TriviumError, match=message):
        memory_of(load_recipe(ROOT / "recipes/quickstart.yaml"), stage, processes)


def test_inputs_must_be_there(tmp_path):
    recipe = load_recipe(ROOT / "recipes/quickstart.yaml", [f"out={tmp_path}"])
    with pytest.raises(TriviumError, match="is not there yet"):
        list(tokens_of(recipe, "sft", 0))
