"""Reinforcement learning from rewards that can be checked: GRPO (Shao et al. 2024) and RLOO (Ahmadian et al. 2024).

Each iteration: sample K responses to each of some prompts; check them; a response is worth as much as it is better than
the others to the same prompt. So no value model is needed. The K responses share one computation of their prompt.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from trivium.evaluation.checkers import Checker
from trivium.model.adapters.folder import weights_digest
from trivium.objectives.language_modeling import entropies, token_log_probs
from trivium.objectives.policy import group_advantages, kl_penalties, leave_one_out_advantages, policy_losses
from trivium.stage import Context, Input, Panel, Title
from trivium.stages.cost import Estimate
from trivium.stages.models import adapt, as_without, load_judge, load_language_model
from trivium.stages.outlook import Cost
from trivium.stages.reinforcement.practice import Practice
from trivium.stages.reinforcement.rollout import (
    Answered,
    Practising,
    Rollout,
    check_scores,
    example_of,
    measures,
    practise,
)
from trivium.training.batch import Batch, hidden_states
from trivium.training.machine import prepare
from trivium.training.objective import Total


class Grpo(Practice):
    """Reinforcement learning from rewards that can be checked, without a value model: GRPO, or RLOO."""

    kind: ClassVar[str] = "grpo"
    version: ClassVar[int] = 3
    title: ClassVar[Title] = Title("group-relative RL (GRPO)", "组相对强化学习（GRPO）", "judge")
    panel: ClassVar[Panel] = Panel(curves=("score", "gold", "watched_gold", "kl", "entropy", "length", "finished",
                                   "clip_fraction"))
    every_process: ClassVar[bool] = True
    reward: Input | None = None
    """A reward model to learn from, instead of a checker."""
    checker: str = "world"
    """What says how good a response is: `world` (is it right, by the world's truth), `rubric` (the rubric's points),
    `number` (does its last number equal that of the row's `answer`), `exact` (is it the row's `answer`), or
    FILE.py:FUNCTION of your own."""
    checker_seconds: float = Field(10.0, gt=0)
    """The time that a function of your own may take for a rollout's responses to one prompt."""
    samples: int = Field(8, ge=2)
    """Responses to each prompt, which are compared with one another."""
    episodes: int = Field(32, ge=1)
    """Prompts in a rollout."""
    epochs: int = Field(1, ge=1)
    """Passes over each rollout."""
    estimator: Literal["grpo", "rloo"] = "grpo"
    """grpo: rewards minus the group's mean, over its deviation; rloo: minus the mean of the others."""
    scaled: bool = True
    """grpo: divide by the group's deviation; false keeps hard and easy prompts at their own weight (Liu et al.
    2025)."""
    clip_high: float | None = Field(None, gt=0)
    """How far a ratio may rise, where it differs from `clip` (Yu et al. 2025: 0.28)."""
    kl_coefficient: float = Field(0.04, ge=0)
    """Weight of the KL penalty in the loss."""
    length: int = Field(512, ge=2)
    """Tokens in one packed row: a prompt and all its responses must fit."""

    @model_validator(mode="after")
    def _safety_stands_beside_a_reward_model(self) -> Grpo:
        if self.safety and not self.reward:
            raise ValueError("a safety model is combined with a reward model, not with a checker; name it as `reward`")
        return self

    def run(self, context: Context) -> dict[str, object]:
        """All of GRPO, top to bottom."""
        device = prepare(context.threads)
        policy, tokenizer = load_language_model(context.inputs["model"])
        policy.to(device)
        reward, safety, gold = (load_judge(context, name, policy, tokenizer, share=self.adapter is not None)
                                for name in ("reward", "safety", "gold"))
        attached = adapt(policy, self.adapter, context)
        reference = policy if attached else copy.deepcopy(policy).eval()
        practising = Practising(self, context, policy, tokenizer, self.samples)
        checker = Checker(self.checker, self.checker_seconds)
        if not reward:
            checker.suits(practising.prompts)

        def scores_of(answered: Answered) -> list[np.ndarray]:
            if reward:
                return practising.scores(reward, answered, safety, self.safety_threshold)
            return [
                np.array(checker(row, texts))
                for row, texts in zip(answered.rows, answered.texts(tokenizer), strict=True)
            ]

        def roll_out(practising: Practising, acting: Any, iteration: int, state: dict[str, float]) -> Rollout:
            answered = practising.answer(practising.chosen(iteration), self.samples, "rollout", iteration)
            new = practising.log_probs(acting, answered.trees)
            with as_without(attached):
                old = practising.log_probs(reference, answered.trees)
            scores = scores_of(answered)
            check_scores(answered, scores)
            advantages = [
                spread(self, given, [len(r) for r in tree.responses])
                for tree, given in zip(answered.trees, scores, strict=True)
            ]
            sums = measures(answered, new, old)
            sums["score"] = (float(sum(given.sum() for given in scores)), float(sum(map(len, scores))))
            sums["groups_that_teach"] = (float(sum(given.std() > 0 for given in scores)), float(len(scores)))
            if practising.known:
                sums["gold"] = (float(np.concatenate(practising.true_points(answered)).sum()),
                                float(sum(map(len, scores))))
            return Rollout(answered.trees, {"log_probs": list(new), "reference": list(old), "advantages": advantages},
                           sums, example_of(answered, scores, tokenizer))

        with checker:
            return practise(
                policy, lambda model: model, practising, GroupSurrogate(self), roll_out, state={},
                learned_from=scores_of, gold=gold, attached=attached, made_from=[
                    weights_digest(context.inputs[name]) for name in ("model", "reward", "safety", "gold")
                    if context.inputs.get(name)
                ])

    def cost(self, estimate: Estimate) -> Cost:
        """Groups of answers, two passes without gradients (three with a reward model), updates of the policy."""
        return self.practice_cost(estimate, self.samples, 3 if self.reward else 2, lambda policy: policy,
                                  GroupSurrogate(self), ("log_probs", "reference", "advantages"))


class GroupSurrogate:
    """The clipped surrogate plus a KL penalty, over the tokens of a minibatch (Shao et al. 2024, eq. 3, as a mean over
    all tokens: Yu et al. 2025, eq. 8, so that no response's tokens count less for its length)."""

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




def spread(settings: Grpo, scores: np.ndarray, lengths: list[int]) -> np.ndarray:
    """The advantage of every token of K responses: that of its response."""
    given = leave_one_out_advantages(scores) if settings.estimator == "rloo" else group_advantages(
        scores, settings.scaled)
    return np.repeat(given, lengths)
