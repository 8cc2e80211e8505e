"""The prediction of a recipe's time: every stage gets one, and the counts behind them are the recipe's."""

from __future__ import annotations

from trivium.planning.here import predict
from trivium.recipe import load_recipe

RECIPE = """
name: small
stages:
  world: {{size: {{documents_bytes: 300000, demonstrations: 120, preference_prompts: 120, evaluation_prompts: 60}}}}
  corpus: {{documents: [world], settings: {{rules: []}}}}
  tokenizer: {{vocab_size: 400}}
  tokens:
  pretrain: {{model: {{hidden_size: 32, intermediate_size: 32, num_layers: 1, num_heads: 1, num_kv_heads: 1}}, length: 128, rows: 8, steps: {steps}}}
  sft: {{length: 128, rows: 4}}
  preferences: {{count: 40, max_new_tokens: 8}}
  reward: {{length: 256, rows: 4}}
  ppo: {{iterations: 2, episodes: 16, max_new_tokens: 8}}
  dpo: {{length: 256, rows: 4}}
  evaluate: {{models: {{sft: sft, ppo: ppo}}, base: pretrain, max_new_tokens: 8}}
  report: {{stages: [world, pretrain]}}
"""


def test_every_stage_is_predicted_and_more_work_takes_longer(tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE.format(steps=1000))
    found = predict(load_recipe(tmp_path / "r.yaml", [f"out={tmp_path / 'runs'}"]))
    seconds = {row["stage"]: row["seconds"] for row in found["stages"]}
    assert not found["not_predicted"] and all(value > 0 for value in seconds.values())
    assert found["seconds"] == sum(seconds.values()) and seconds["pretrain"] > seconds["sft"]
    assert "1,000 updates" in next(row["from"] for row in found["stages"] if row["stage"] == "pretrain")
    assert not (tmp_path / "runs").exists()  # nothing of the recipe's own folder is touched
