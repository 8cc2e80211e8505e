"""A run of tiny models that were never trained, to be looked through."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from trivium.artifacts import seal
from trivium.model import LanguageModel, ModelConfig, RewardModel
from trivium.stages.models import save_model
from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.train import train

CHAT = [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "It is 4, 你好."}]


def seen_run(run: Path) -> Path:
    """Writes ``sft``, ``reward``, ``ppo`` (made from both), ``other`` (with another tokenizer) and an examination."""
    tokenizer = ChatTokenizer(train(iter(["what is 2 + 2? it is 4.\n"] * 20), 300))
    config = ModelConfig(vocab_size=tokenizer.vocab_size + 2, hidden_size=32, intermediate_size=48, num_layers=2,
                         num_heads=4, num_kv_heads=2, head_dim=8, max_positions=600)
    models = {name: LanguageModel(config).initialise(seed) for seed, name in enumerate(("sft", "ppo", "other"))}
    with torch.no_grad():
        for model in models.values():
            model.lm_head.weight.mul_(20)  # sure of something
    reward = RewardModel.from_language_model(models["sft"], 7)
    reward.shift = 0.25
    other = ChatTokenizer(train(iter(["another one"] * 20), 290))
    for name, kind, model, its, inputs in (
            ("sft", "sft", models["sft"], tokenizer, {}), ("reward", "reward", reward, tokenizer, {"model": "sft"}),
            ("other", "sft", models["other"], other, {}),
            ("ppo", "ppo", models["ppo"], tokenizer, {"model": "sft", "reward": "reward"})):
        (run / name).mkdir(parents=True)
        save_model(model, its, run / name)
        sealed(run, name, kind, {where: {"path": f"../{name}", "digest": "d" * 64} for where, name in inputs.items()})
    (run / "exam").mkdir()
    (run / "exam" / "answers.jsonl").write_text(json.dumps({
        "id": "q0", "task": "sums", "prompt": CHAT[:1], "answer": "4", "answers": {
            "sft": "no", "ppo": CHAT[1]["content"]}, "checked": {}}) + "\n")
    sealed(run, "exam", "evaluate", {})
    return run


def sealed(run: Path, name: str, kind: str, inputs: dict) -> None:
    seal(run / name, kind=kind, name=name, key="k" * 64, seed=0, settings={}, inputs=inputs, summary={}, seconds=1.0,
         peak_memory_mb=1.0)
