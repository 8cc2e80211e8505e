"""The prediction of a recipe's time: every stage gets one, and the counts behind them are the recipe's."""

from __future__ import annotations

from pathlib import Path

from trivium.planning.this_machine import elapsed, predict
from trivium.recipe.load import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"

RECIPE = """
name: small
stages:
  world: {{size: {{documents_bytes: 300000, demonstrations: 120, preference_prompts: 120, evaluation_prompts: 60}}}}
  corpus: {{documents: [world], settings: {{rules: []}}}}
  tokenizer: {{vocab_size: 400}}
  tokens:
  pretrain:
    model: {{hidden_size: 32, intermediate_size: 32, num_layers: 1, num_heads: 1, num_kv_heads: 1}}
    length: 128
    rows: 8
    steps: {steps}
  sft: {{length: 128, rows: 4}}
  preferences: {{count: 40, max_new_tokens: 8}}
  reward: {{length: 256, rows: 4}}
  ppo: {{iterations: 2, episodes: 16, max_new_tokens: 8}}
  dpo: {{length: 256, rows: 4}}
  kto: {{length: 256, rows: 4}}
  grpo: {{iterations: 2, episodes: 4, samples: 2, max_new_tokens: 8}}
  select: {{count: 10, samples: 2, max_new_tokens: 8}}
  revise: {{count: 10}}
  evaluate: {{models: {{sft: sft, ppo: ppo}}, base: pretrain, max_new_tokens: 8}}
  report: {{stages: [world, pretrain]}}
"""


def test_every_stage_is_predicted_and_more_work_takes_longer(tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE.format(steps=1000))
    found = predict(load_recipe(tmp_path / "r.yaml", [f"out={tmp_path / 'runs'}"]))
    seconds = {row["stage"]: row["seconds"] for row in found["stages"]}
    assert found["not_predicted"] == ["revise"] and seconds.pop("revise") is None and all(value > 0
                                                                                          for value in seconds.values())
    assert found["seconds"] == sum(seconds.values()) and seconds["pretrain"] > seconds["sft"]
    assert "1,000 updates" in next(row["from"] for row in found["stages"] if row["stage"] == "pretrain")
    assert not (tmp_path / "runs").exists()  # nothing of the recipe's own folder is touched


FAMILIES = """
name: families
stages:
  pairs: {{numbers: 200, heldout: 0.2}}
  corpus:
    documents: [pairs]
    settings: {{rules: [], language: {{enabled: false}}, duplicates: {{near: false}}, private: {{enabled: false}}}}
  tokenizer: {{vocab_size: 320}}
  tokens: {{validation: 0.1}}
  spans:
    model: &small
      hidden_size: 32
      intermediate_size: 32
      num_layers: 1
      num_heads: 1
      num_kv_heads: 1
      max_positions: 96
    length: 48
    rows: 4
    sentinels: 12
    steps: 70
  translate: {{length: 48, rows: 4, max_new_tokens: 8}}
  labels: {{tables: [{table}], heldout: 0.3}}
  encode: {{model: *small, length: 48, rows: 4, steps: 900}}
  classify: {{length: 48, rows: 4}}
  pretrain: {{model: *small, length: 48, rows: 4}}
  pictures: {{digits: 600, shapes: 600, heldout: 40}}
  vision:
    model: {{size: 28, patch: 14, hidden_size: 32, intermediate_size: 32, num_layers: 1, num_heads: 1, num_kv_heads: 1}}
    rows: 16
    epochs: 2
  align:
    kind: see
    model: pretrain
    vision: vision
    rows_from: captions
    train: [projector]
    length: 96
    rows: 4
    examine: false
  see: {{model: align, length: 96, rows: 4}}
"""


def test_the_other_families_are_predicted(tmp_path):
    (tmp_path / "t.jsonl").write_text("".join(f'{{"text": "{word} {number}", "label": "{word}"}}\n'
                                              for word in ("one", "two") for number in range(40)))
    (tmp_path / "r.yaml").write_text(FAMILIES.format(table=tmp_path / "t.jsonl"))
    found = predict(load_recipe(tmp_path / "r.yaml", [f"out={tmp_path / 'runs'}"]))
    rows = {row["stage"]: row for row in found["stages"]}
    assert not found["not_predicted"] and all(row["seconds"] > 0 for row in rows.values())
    assert rows["spans"]["from"].startswith("70 updates") and rows["encode"]["from"].startswith("900 updates")
    assert rows["vision"]["from"].startswith("150 updates")  # two passes over 1,200 pictures, of which 320 were drawn
    assert rows["encode"]["seconds"] > rows["classify"]["seconds"] and not (tmp_path / "runs").exists()


def test_stages_that_run_side_by_side_are_counted_once(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)
    recipe = load_recipe(RECIPES / "quickstart.yaml")
    seconds = dict.fromkeys(recipe.stages, 0.0) | {
        "pretrain": 100.0, "sft": 50.0, "untrained-sft": 80.0, "preferences": 20.0, "reward": 30.0, "ppo": 50.0,
        "dpo": 40.0, "evaluate": 20.0
    }
    # The longest way: beside the SFT of the untrained model go preferences, reward model and half of PPO; DPO follows
    # it.
    assert elapsed(recipe, seconds) == 100 + 50 + max(80 + 40, 20 + 30 + 50) + 20
    alone = load_recipe(RECIPES / "quickstart.yaml", [f"{name}.threads=null" for name in seconds])
    assert elapsed(alone, seconds) == sum(seconds.values())


PLUGIN = """
from trivium.stage import Input, Stage
from trivium.stages.cost import Cost


class Counted(Stage):
    kind = "counted"
    world: Input = "world"

    def cost(self, estimate):
        prompts = estimate.outlook(self.world).evaluation_prompts
        return Cost(prompts * 2.0, f"{prompts} prompts, with {estimate.cores(self)} core")


class Silent(Stage):
    kind = "silent"
    world: Input = "world"
"""


def test_a_stage_of_a_plugin_is_predicted_where_it_says_what_it_costs(tmp_path):
    (tmp_path / "plugin.py").write_text(PLUGIN)
    (tmp_path / "r.yaml").write_text(f"""
name: plugged
plugins: [{tmp_path / 'plugin.py'}]
stages:
  world: {{size: {{documents_bytes: 50000, demonstrations: 20, preference_prompts: 20, evaluation_prompts: 60}}}}
  counted: {{threads: 1}}
  silent:
  tokenizer: {{corpus: silent}}
""")
    found = predict(load_recipe(tmp_path / "r.yaml", [f"out={tmp_path / 'runs'}"]))
    rows = {row["stage"]: (row["seconds"], row["from"]) for row in found["stages"]}
    assert rows["counted"] == (120.0, "60 prompts, with 1 core")
    assert rows["silent"] == (None, "a stage of kind 'silent' is not predicted")
    assert found["not_predicted"] == ["silent", "tokenizer"
                                      ] and "could not be run on the sample" in rows["tokenizer"][1]
