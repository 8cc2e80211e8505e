"""The scores that reinforcement learning learns from: a reward, a safety model beside it, and what never ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trivium.files import Row
from trivium.model import LanguageModel, RewardModel
from trivium.objectives.policy import combined_scores, whiten
from trivium.stage import Context
from trivium.stages.models import load_judge
from trivium.stages.reinforcement.settings import ReinforcementSettings
from trivium.stages.reward_settings import RewardTerm
from trivium.stages.rewards import Answers, ModelReward, Reward, load_reward
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.machine import resolve_precision
from trivium.training.parallel import World


class JudgeLoader:
    """Loads the models that judge a policy. One that is an adapter on the policy's own weights shares them, where the
    policy too is trained as an adapter: so load judges before the policy is given its own."""

    def __init__(self, settings: ReinforcementSettings, context: Context, policy: LanguageModel,
                 tokenizer: ChatTokenizer) -> None:
        self.settings, self.context, self.policy, self.tokenizer = settings, context, policy, tokenizer

    def reward(self, setting: str | dict[str, RewardTerm], where: str = "reward") -> Reward:
        """What the setting ``where`` names."""
        return load_reward(setting, self.context.inputs.get(where), self._load, where)

    def gold(self) -> Reward | None:
        """What judges a policy that does not learn from it; None where nothing is named."""
        return self.reward(self.settings.gold, "gold") if self.settings.gold else None

    def judge(self, name: str) -> ModelReward | None:
        """The reward model that the input ``name`` names; None where it names none."""
        folder = self.context.inputs.get(name)
        return self._load(folder, name) if folder else None

    def _load(self, folder: Path, name: str) -> ModelReward:
        model: RewardModel = load_judge(self.context, name, folder, self.policy, self.tokenizer,
                                        share=self.settings.adapter is not None)
        s, device = self.settings, self.policy.lm_head.weight.device
        return ModelReward(model, s.length, s.rows, resolve_precision(s.precision, device))


class TrainingReward(Reward):
    """A reward as a policy learns from it. With a ``safety`` model the two are combined, and whitened over the rollout
    of all processes, as Llama 2's were. A response that never ends then gets ``unfinished_score``, unless that is
    None."""

    def __init__(self, reward: Reward, unfinished_score: float | None, safety: Reward | None = None,
                 threshold: float = 0.15, world: World | None = None) -> None:
        self.reward, self.unfinished_score = reward, unfinished_score
        self.safety, self.threshold, self.world = safety, threshold, world or World()

    def __call__(self, answers: Answers) -> list[np.ndarray]:
        """The scores, in the form of the reward's."""
        scores = self.reward(answers)
        if self.safety:
            scores = whiten_together([
                combined_scores(helpful, safe, np.array(about_safety(row)), self.threshold)
                for row, helpful, safe in zip(answers.rows, scores, self.safety(answers), strict=True)], self.world)
        if self.unfinished_score is None:
            return scores
        return [np.where(finished, given, self.unfinished_score)
                for finished, given in zip(answers.finished, scores, strict=True)]

    def check_rows(self, rows: Sequence[Row]) -> None:
        """The reward's rows."""
        self.reward.check_rows(rows)

    def close(self) -> None:
        """Close the reward."""
        self.reward.close()


def about_safety(row: Row) -> bool:
    """Whether a prompt is one of those on which safety comes first: its row says so (``"safety": true``), or the
    world's truth that it is harmful."""
    truth: dict[str, Any] = row.get("truth") or {}
    return bool(row.get("safety", truth.get("harmful", False)))


def whiten_together(arrays: Sequence[np.ndarray], world: World, shift_mean: bool = True) -> list[np.ndarray]:
    """Whiten arrays as one, over those of all processes."""
    flat = np.concatenate(arrays)
    if world.mesh is None:
        flat = whiten(flat, shift_mean)
    else:
        mean, variance = moments(flat, world)
        scaled = (flat - mean) / (np.sqrt(variance) + 1e-8)
        flat = scaled if shift_mean else scaled + mean
    return np.split(flat, np.cumsum([len(a) for a in arrays])[:-1])


def moments(flat: np.ndarray, world: World) -> tuple[float, float]:
    """The mean and the variance of the values of all processes."""
    if world.mesh is None:
        return float(flat.mean()), float(flat.var())
    count, total, squares = world.add(
        [float(len(flat)), float(flat.sum()), float((flat**2).sum())], torch.device(world.mesh.device_type))
    return total / count, max(squares / count - (total / count)**2, 0.0)
