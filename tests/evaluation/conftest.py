"""A tiny town's models: untrained ones are enough to see that numbers are computed right."""

from __future__ import annotations

import json

import pytest

from trivium.model import LanguageModel, ModelConfig, RewardModel
from trivium.stages.models import save_model
from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.train import train
from trivium.world.source import WorldSettings, write

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "head_dim": 16, "max_positions": 160}


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """``{"world", "base", "chat", "other", "reward"}``, folders."""
    home = tmp_path_factory.mktemp("models")
    world = home / "world"
    write(world, 1, WorldSettings(documents_bytes=40_000, demonstrations=40, preference_prompts=20, evaluation_prompts=60))
    texts = [json.loads(line).get("text", "") for path in sorted((world / "documents").glob("*.jsonl")) for line in path.read_text("utf-8").splitlines()]
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
