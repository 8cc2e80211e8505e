"""A tiny school: models of two layers, and prompts."""

from __future__ import annotations

import pytest

from trivium.files import write_rows
from trivium.model import LanguageModel, ModelConfig, RewardModel
from trivium.stages.models import prompt_ids, response_ids, save_model
from trivium.stages.pretraining.pretrain import LanguageModeling
from trivium.tokenizer import train as tokenizer_training
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.batch import Tree, make_batch
from trivium.training.optimizers import Optimization
from trivium.training.trainer import Trainer

TEXTS = ["what is two and two? it is four.", "please say hello to the cat.", "goodbye, my friend, and thank you."] * 9


@pytest.fixture(scope="session")
def school(tmp_path_factory):
    """A policy, a reward model, prompts and thumbs."""
    folder = tmp_path_factory.mktemp("school")
    tokenizer = ChatTokenizer(tokenizer_training.train(TEXTS, 300))
    config = ModelConfig(vocab_size=tokenizer.vocab_size,
                         hidden_size=32,
                         intermediate_size=48,
                         num_layers=2,
                         num_heads=2,
                         num_kv_heads=1,
                         head_dim=16,
                         max_positions=256)
    policy = LanguageModel(config).initialise(0)
    trees = [Tree(prompt_ids(tokenizer, [{"role": "user", "content": f"say {n} please"}]),
                  (response_ids(tokenizer, ("yes", "no thanks", "hello")[n % 3] * (n % 2 + 1)),)) for n in range(24)]
    trainer = Trainer(policy, Optimization(learning_rate=5e-3), 40, "float32")
    for step in range(40):  # until most answers end
        trainer.step(step, [make_batch([[tree] for tree in trees], 64)], LanguageModeling())
    reward = RewardModel.from_language_model(LanguageModel(config).initialise(1), 1)
    reward.shift = 0.5
    for name, model in (("sft", policy), ("reward", reward)):
        (folder / name).mkdir()
        save_model(model, tokenizer, folder / name)
    (folder / "world").mkdir()
    write_rows(folder / "world/prompts.jsonl",
               [{"id": f"p{n}", "prompt": [{"role": "user", "content": f"say {n} please"}], "answer": str(n)}
                for n in range(24)])
    write_rows(
        folder / "thumbs.jsonl",
        [{"prompt": [{"role": "user", "content": f"say {n}"}], "completion": "yes " * (n % 5 + 1), "label": n % 3 == 0}
         for n in range(20)])
    return folder
