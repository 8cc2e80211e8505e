"""The over-optimisation watch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import FEW, context, lines

from trivium.errors import TriviumError
from trivium.stages.models import load_reward_model, save_model
from trivium.stages.reinforcement.ppo import Ppo
from trivium.stages.rewards import ModelReward


def test_the_watch_keeps_the_best_policy_and_ends_past_the_peak(school, tmp_path, monkeypatch):
    quality = iter([1.0, 2.0, 0.5, 0.4, 0.3])

    def judged(self, answers):
        if self.model.shift != 0.125:
            return real(self, answers)
        mean = next(quality)
        return [np.array([mean + 0.1 * (i % 2)]) for i in range(len(answers.rows))]
    real = ModelReward.__call__
    monkeypatch.setattr(ModelReward, "__call__", judged)
    gold, tokenizer = load_reward_model(school / "reward")
    gold.shift = 0.125
    (tmp_path / "gold").mkdir()
    save_model(gold, tokenizer, tmp_path / "gold")
    place, said = context(school, tmp_path, gold=tmp_path / "gold")
    summary = Ppo(**FEW | {"iterations": 9}, watch_every=1, watch_prompts=6, gold="gold",
                  unfinished_score=None).run(place)
    assert summary["ended"] == "past the peak" and len(lines(tmp_path)) == 4
    assert [line["watched_gold"] for line in lines(tmp_path)] == pytest.approx([1.05, 2.05, 0.55, 0.45])
    best, final = load_file(tmp_path / "scratch/best.safetensors"), load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(best[name], final[name]) for name in best)
    assert any("fooling" in text for text in said)


def test_without_a_judge_there_is_no_watch(school, tmp_path):
    place, _ = context(school, tmp_path)
    with pytest.raises(TriviumError, match="gold"):
        Ppo(**FEW, watch_every=1, watch_prompts=6).run(place)
