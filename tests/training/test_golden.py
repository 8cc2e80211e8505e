"""The loss curves of two small runs against those in golden.json: a change of numbers anywhere on the way is seen,
whatever else still works.

After a change that is meant to alter them: PYTHONPATH=src python tests/training/test_golden.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest

from trivium.model import LanguageModel, ModelConfig
from trivium.training.batch import Tree
from trivium.training.epochs import PackedEpochs
from trivium.training.loop import train
from trivium.training.next_token import LanguageModeling
from trivium.training.optimizers import Optimization

GOLDEN = Path(__file__).with_name("golden.json")
RUNS = {
    "qwen3, muon, wsd": (ModelConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=2,
                                     num_kv_heads=1, head_dim=16),
                         Optimization(optimizer="muon", learning_rate=3e-3, schedule="wsd")),
    "mistral, adamw, cosine": (ModelConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_layers=2,
                                           num_heads=2, num_kv_heads=2, head_dim=16, qk_norm=False,
                                           tie_embeddings=False, sliding_window=12),
                               Optimization(learning_rate=3e-3, weight_decay=0.1, schedule="cosine")),
}


def curve(name: str, folder: Path) -> list[float]:
    """The losses of 40 updates on counting modulo some number, packed, some prompts shared by two responses."""
    rng = np.random.default_rng(0)
    documents = [
        Tree(
            np.array([0]),
            tuple((start + step * np.arange(rng.integers(6, 24))) % 63 + 1
                  for start, step in rng.integers(1, 9, (k, 2)))) for k in rng.integers(1, 3, 120)
    ]
    config, settings = RUNS[name]
    train(
        LanguageModel(config).initialise(0), LanguageModeling(), PackedEpochs(documents, 64, 4, 0), 40, settings,
        scratch=folder, log=folder / "log.jsonl", fingerprint="golden", precision="float32")
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", RUNS)
def test_the_loss_curve_is_the_golden_one(tmp_path, name):
    """Within what other processors and versions of PyTorch may round differently."""
    assert curve(name, tmp_path) == pytest.approx(json.loads(GOLDEN.read_text())[name], abs=2e-3)


if __name__ == "__main__":
    found = {}
    for name in RUNS:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = [round(loss, 5) for loss in curve(name, Path(folder))]
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
