"""Looking into batches, and predicted memory against what a real step takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from trivium.errors import TriviumError
from trivium.recipe import load_recipe
from trivium.stages.look import memory_of, tokens_of

ROOT = Path(__file__).resolve().parents[2]

MEASURE = """
import json, sys, torch
from trivium.training.machine import prepare
prepare(2)
from trivium.model import LanguageModel
from trivium.recipe import load_recipe
from trivium.stages.look import config_of, full_batch
from trivium.stages.pretrain import LanguageModelling
from trivium.training.loop import Trainer
recipe = load_recipe(sys.argv[1], json.loads(sys.argv[2]))
stage = recipe.stages["pretrain"]
model = LanguageModel(config_of(recipe, stage)).initialise(0)
trainer = Trainer(model, stage.optimization, 10, "float32", stage.parallel)
batch = full_batch(stage, stage.rows, stage.length)
trainer.step(0, [batch], LanguageModelling())
with torch.profiler.profile(profile_memory=True) as profile:
    trainer.step(1, [batch], LanguageModelling())
profile.export_chrome_trace(sys.argv[3])
peak = max(e["args"]["Total Allocated"] for e in json.load(open(sys.argv[3]))["traceEvents"] if e.get("name") == "[memory]")
kept = sum(p.nbytes for p in model.parameters())
kept += sum(v.nbytes for o in trainer.optimizers for state in o.state.values() for v in state.values() if torch.is_tensor(v))
print(peak + kept)  # the profile counts from its start, when the weights and the optimizer's state were there
"""


@pytest.mark.parametrize("changes", [
    ["pretrain.rows=8"],
    pytest.param(["pretrain.rows=8", "pretrain.parallel={checkpoint_activations: true}", "pretrain.model.num_layers=4"], marks=pytest.mark.long),
])
def test_predicted_memory_is_what_a_step_takes(tmp_path, changes):
    """Against PyTorch's own record of a real step's allocations."""
    sets = ["pretrain.model={hidden_size: 192, intermediate_size: 512, num_layers: 2, num_heads: 3, num_kv_heads: 3, head_dim: 64}",
            "pretrain.length=512", "tokenizer.vocab_size=4096", *changes]
    recipe = load_recipe(ROOT / "recipes/quickstart.yaml", sets)
    predicted, _ = memory_of(recipe, "pretrain", 1)
    measured = int(subprocess.run([sys.executable, "-c", MEASURE, str(ROOT / "recipes/quickstart.yaml"), json.dumps(sets),
                                   str(tmp_path / "trace.json")], check=True, capture_output=True, text=True).stdout)
    assert measured == pytest.approx(predicted.total, rel=0.05)


def test_more_processes_need_less_each():
    recipe = load_recipe(ROOT / "recipes/quickstart.yaml", ["pretrain.rows=8"])
    one, four = memory_of(recipe, "pretrain", 1)[0], memory_of(recipe, "pretrain", 4)[0]
    assert four.optimizer == pytest.approx(one.optimizer / 4, rel=0.05) and four.activations < one.activations / 2


@pytest.mark.parametrize(("stage", "processes", "message"), [
    ("pretrian", 1, "no such stage"), ("corpus", 1, "not trained by the one loop"), ("pretrain", 64, "cannot be shared"),
])
def test_what_cannot_be_predicted_is_said(stage, processes, message):
    with pytest.raises(TriviumError, match=message):
        memory_of(load_recipe(ROOT / "recipes/quickstart.yaml"), stage, processes)


def test_inputs_must_be_there(tmp_path):
    recipe = load_recipe(ROOT / "recipes/quickstart.yaml", [f"out={tmp_path}"])
    with pytest.raises(TriviumError, match="is not there yet"):
        list(tokens_of(recipe, "sft", 0))
