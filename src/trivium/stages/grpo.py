"""Reinforcement learning from rewards that can be checked: GRPO (Shao et al. 2024) and RLOO (Ahmadian et al. 2024).

Each iteration: sample K responses to each of some prompts; check them; a response is worth as much as it is better than
the others to the same prompt. So no value model is needed. The K responses share one computation of their prompt.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch

from trivium.errors import TriviumError
from trivium.evaluation.checkers import Checker
from trivium.model import RewardModel
from trivium.objectives.language_modeling import entropies, token_log_probs
from trivium.objectives.policy import group_advantages, kl_penalties, leave_one_out_advantages, policy_losses
from trivium.pipeline import Context
from trivium.stages.common import adapt, as_without, load_language_model, load_reward_model, weights_digest
from trivium.stages.rollout import Answered, Practising, Rollout, load_gold, measures, practise
from trivium.stages.settings import Grpo
from trivium.training.batch import Batch, hidden_states
from trivium.training.loop import Total
from trivium.training.machine import prepare

VERSION = 3
PARALLEL = True


class GroupSurrogate:
    """The clipped surrogate plus a KL penalty, over the tokens of a minibatch (Shao et al. 2024, eq. 3, as a mean over all
    tokens: Yu et al. 2025, eq. 8, so that no response's tokens count less for its length)."""

    def __init__(self, settings: Grpo) -> None:
        self.settings = settings
        self.weights = {"policy_loss": 1.0, "kl_loss": settings.kl_coefficient}

    def __call__(self, model: Any, batch: Batch) -> dict[str, Total]:
        """All sums are over tokens."""
        s, extra = self.settings, batch.extra
        hidden = hidden_states(model.model, batch)[batch.sources]
        log_probs = token_log_probs(hidden, model.lm_head.weight, batch.targets, s.temperature)
        losses, ratios = policy_losses(log_probs, extra["log_probs"], extra["advantages"], s.clip, s.clip_high)
        penalties = kl_penalties(log_probs, extra["reference"])
        with torch.no_grad():
            changes = (ratios - 1).abs()
            entropy = entropies(hidden, model.lm_head.weight, s.temperature).sum()
        return {"policy_loss": Total(losses.sum(), "tokens"), "kl_loss": Total(penalties.sum(), "tokens"),
                "clip_fraction": Total((changes > s.clip).float().sum(), "tokens"), "entropy": Total(entropy, "tokens"),
                "ratio_error": Total(changes.sum(), "tokens")}


def run(settings: Grpo, context: Context) -> dict[str, object]:
    """All of GRPO, top to bottom."""
    device = prepare(context.threads)
    policy, tokenizer = load_language_model(context.inputs["model"])
    attached = adapt(policy.to(device), settings.adapter, context)
    reference = policy if attached else copy.deepcopy(policy).eval()
    reward: RewardModel | None = None
    if settings.reward:
        reward, reward_tokenizer = load_reward_model(context.inputs["reward"])
        if reward_tokenizer.digest != tokenizer.digest:
            raise TriviumError(f"{context.inputs['reward']}: the reward model has another tokenizer than the policy")
        reward.to(device).eval()
    practising = Practising(settings, context, policy, tokenizer, settings.samples)
    checker = Checker(settings.checker, settings.checker_seconds)
    if not reward:
        checker.suits(practising.prompts)

    def scores_of(answered: Answered) -> list[np.ndarray]:
        if reward:
            return practising.scores(reward, answered)
        return [np.array(checker(row, texts)) for row, texts in zip(answered.rows, answered.texts(tokenizer), strict=True)]

    def roll_out(practising: Practising, acting: Any, iteration: int, state: dict[str, float]) -> Rollout:
        answered = practising.answer(practising.chosen(iteration), settings.samples, "rollout", iteration)
        new = practising.log_probs(acting, answered.trees)
        with as_without(attached):
            old = practising.log_probs(reference, answered.trees)
        scores = scores_of(answered)
        advantages = [spread(settings, given, [len(r) for r in tree.responses]) for tree, given in zip(answered.trees, scores, strict=True)]
        sums = measures(answered, new, old)
        sums["score"] = (float(sum(given.sum() for given in scores)), float(sum(map(len, scores))))
        sums["groups_that_teach"] = (float(sum(given.std() > 0 for given in scores)), float(len(scores)))
        if practising.known:
            sums["gold"] = (float(np.concatenate(practising.true_points(answered)).sum()), float(sum(map(len, scores))))
        return Rollout(answered.trees, {"log_probs": list(new), "reference": list(old), "advantages": advantages}, sums)

    with checker:
        return practise(policy, lambda model: model, practising, GroupSurrogate(settings), roll_out, state={}, learned_from=scores_of,
                        gold=load_gold(context), attached=attached,
                        made_from=[weights_digest(context.inputs[name]) for name in ("model", "reward", "gold") if context.inputs.get(name)])


def spread(settings: Grpo, scores: np.ndarray, lengths: list[int]) -> np.ndarray:
    """The advantage of every token of K responses: that of its response."""
    given = leave_one_out_advantages(scores) if settings.estimator == "rloo" else group_advantages(scores, settings.scaled)
    return np.repeat(given, lengths)
