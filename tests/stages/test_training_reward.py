"""What a policy learns from: a reward, a safety model beside it, and responses that never end."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny import FEW, context, lines

from trivium.files import write_rows
from trivium.model import LanguageModel, RewardModel
from trivium.objectives.policy import whiten
from trivium.stages.models import load_language_model, load_reward_model, save_model
from trivium.stages.reinforcement.grpo import Grpo
from trivium.stages.reinforcement.ppo import Ppo
from trivium.stages.reinforcement.rollout import Rollouts
from trivium.stages.reinforcement.scoring import TrainingReward
from trivium.stages.rewards import ModelReward
from trivium.stages.scores import score_trees
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.batch import make_batch


def test_a_response_that_never_ends_gets_the_fixed_score(school, tmp_path):
    place, _ = context(school, tmp_path)
    policy, tokenizer = load_language_model(school / "sft")
    rollouts = Rollouts(Ppo(**FEW), place, policy, tokenizer, 1)
    answers = rollouts.answer(rollouts.prompts_of(0), 1, "rollout", 0)
    answers.finished[:2] = [[False], [True]]
    reward, _ = load_reward_model(school / "reward")
    scores = TrainingReward(ModelReward(reward, 128, 4, "float32"), -7.0)(answers)
    batch = make_batch([[answers.trees[1]]], 128)
    assert scores[0].tolist() == [-7.0]
    assert scores[1][0] == pytest.approx(score_trees(reward, [answers.trees[1]], 128, 1, "float32")[0][0] + 0.5,
                                         abs=1e-5)
    assert batch.ends.tolist() == [len(answers.trees[1]) - 1]


def test_two_reward_models_judge_a_rollout(school, tmp_path):
    safety = RewardModel.from_language_model(
        LanguageModel(load_reward_model(school / "reward")[0].config).initialise(2), 2)
    safety.shift = -0.25
    (tmp_path / "safety").mkdir()
    save_model(safety, ChatTokenizer.load(school / "sft"), tmp_path / "safety")
    rows = [json.loads(line) for line in (school / "world/prompts.jsonl").read_text().splitlines()]
    write_rows(tmp_path / "prompts.jsonl", [row | ({"safety": True} if n % 2 else {}) for n, row in enumerate(rows)])
    place, _ = context(school, tmp_path / "run", safety=tmp_path / "safety", prompts=tmp_path / "prompts.jsonl")
    settings = Ppo(**FEW, safety="safety", safety_threshold=0.0)
    policy, tokenizer = load_language_model(school / "sft")
    rollouts = Rollouts(settings, place, policy, tokenizer, 1)
    answers = rollouts.answer(rollouts.prompts_of(0), 1, "rollout", 0)
    answers.finished = [[True]] * len(answers.rows)
    reward, _ = load_reward_model(school / "reward")
    both = TrainingReward(ModelReward(reward, 128, 4, "float32"), -1.0, ModelReward(safety, 128, 4, "float32"), 0.0)
    models = {False: reward.eval(), True: safety.eval()}
    alone = [
        score_trees(models[bool(row.get("safety"))], [tree], 128, 1, "float32")[0][0] +
        models[bool(row.get("safety"))].shift for row, tree in zip(answers.rows, answers.trees, strict=True)
    ]
    assert {bool(row.get("safety")) for row in answers.rows} == {False, True}
    np.testing.assert_allclose(np.concatenate(both(answers)), whiten(np.array(alone)), atol=1e-4)
    settings.run(place)
    assert abs(lines(tmp_path / "run")[0]["score"]) < 1.0  # whitened, but for those that never ended


def test_a_safety_model_judges_for_grpo_too(school, tmp_path):
    place, _ = context(school, tmp_path, safety=school / "reward")
    Grpo(**FEW | {"episodes": 4, "samples": 3}, reward="reward", safety="safety").run(place)
    assert abs(lines(tmp_path)[0]["score"]) < 1.0  # whitened, but for those that never ended
    with pytest.raises(ValueError, match="name that as `reward`"):
        Grpo(safety="safety")
