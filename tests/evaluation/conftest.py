"""A tiny town's models: untrained ones are enough to see that numbers are computed right."""

from __future__ import annotations

import json

import pytest
import torch

from trivium.model import LanguageModel, ModelConfig, RewardModel
from trivium.stages.models import save_model
from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.train import train
from trivium.world.source import WorldSettings, write

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1,
         "head_dim": 16, "max_positions": 160}


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """``{"world", "base", "chat", "other", "reward"}``, folders."""
    home = tmp_path_factory.mktemp("models")
    world = home / "world"
    write(world, 1, WorldSettings(documents_bytes=40_000, demonstrations=40, preference_prompts=20,
                                  evaluation_prompts=60))
    texts = [json.loads(line).get("text", "") for path in sorted((world / "documents").glob("*.jsonl"))
             for line in path.read_text("utf-8").splitlines()]
    tokenizer = ChatTokenizer(train(texts, 500))
    config = ModelConfig(vocab_size=tokenizer.vocab_size, **SMALL)
    places = {"world": world}
    for seed, (name, chat) in enumerate([("base", False), ("chat", True), ("other", True)]):
        places[name] = home / name
        places[name].mkdir()
        save_model(LanguageModel(config).initialise(seed), tokenizer, places[name], chat)
    places["reward"] = home / "reward"
    places["reward"].mkdir()
    save_model(RewardModel.from_language_model(LanguageModel(config).initialise(7), 3), tokenizer, places["reward"])
    return places


@pytest.fixture
def task_file(tmp_path):
    """Writes a task's YAML file and, where they are given, its rows; returns the YAML file's path."""

    def write_task(text, rows=None):
        (tmp_path / "task.yaml").write_text(text)
        if rows is not None:
            (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path / "task.yaml"

    return write_task


@pytest.fixture
def oracle_log_prob():
    """The log-probability of a continuation by a model of transformers, computed without a cache or a batch."""

    def log_prob(model, context, continuation):
        log_probs = torch.log_softmax(model(torch.tensor([context + continuation])).logits[0].float(), -1)
        return sum(float(log_probs[len(context) - 1 + i, token]) for i, token in enumerate(continuation))

    return log_prob
