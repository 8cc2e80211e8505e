"""Reinforcement learning from rewards that can be checked: GRPO (Shao et al. 2024) and RLOO (Ahmadian et al. 2024).

Each iteration: sample K responses to each of some prompts; check them; a response is worth as much as it is better than
the others to the same prompt. So no value model is needed. The K responses share one computation of their prompt.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator

from trivium.evaluation.checkers import Checker, check_name
from trivium.objectives.language_modeling import entropies, token_log_probs
from trivium.objectives.policy import group_advantages, kl_penalties, leave_one_out_advantages, policy_losses
from trivium.stage import Code, Context, Panel, Title, refusing
from trivium.stages.cost import Estimate
from trivium.stages.models import adapt
from trivium.stages.outlook import Cost
from trivium.stages.reinforcement.rollout import Rollout, Rollouts, example_of
from trivium.stages.reinforcement.scoring import JudgeLoader, TrainingReward
from trivium.stages.reinforcement.settings import ReinforcementSettings
from trivium.stages.reinforcement.training import PolicyTraining
from trivium.stages.rewards import FunctionReward, RewardSetting
from trivium.training.batch import Batch, hidden_states
from trivium.training.machine import prepare
from trivium.training.objective import Objective, Total

ALL_ALIKE = ("all responses to each prompt had the same score, so nothing was learned from any: look at the reward, or "
             "raise `temperature` or `samples`")


class Grpo(ReinforcementSettings):
    """Reinforcement learning from rewards that can be checked, without a value model: GRPO, or RLOO."""

    kind: ClassVar[str] = "grpo"
    version: ClassVar[int] = 6
    usual: ClassVar[str] = "grpo"
    title: ClassVar[Title] = Title("group-relative RL (GRPO)", "组相对强化学习（GRPO）", "judge")
    panel: ClassVar[Panel] = Panel(curves=("score", "gold", "watched_gold", "kl", "entropy", "length", "finished",
                                   "clip_fraction"))
    every_process: ClassVar[bool] = True
    reward: RewardSetting | None = None
    """What is learned from instead of `checker`: whatever ppo's `reward` may be, such as a reward model."""
    checker: Code = "world"
    """What says how good a response is: `world` (is it right, by the world's truth), `rubric` (the rubric's points),
    `number` (does its last number equal that of the row's `answer`), `exact` (is it the row's `answer`), `instructions`
    (the share of the row's instructions that it follows), `by_row` (the checker that the row's `check` names), or
    FILE.py:FUNCTION of your own."""
    checker_seconds: float = Field(10.0, gt=0)
    """The time that a function of your own may take for a rollout's responses to one prompt."""
    samples: int = Field(8, ge=2)
    """Responses to each prompt, which are compared with one another."""
    episodes: int = Field(32, ge=1)
    """Prompts in a rollout; all that there are, where that is fewer and none is set."""
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
    """Weight of the KL penalty in the loss. With 0, and no `kl_budget`, no reference is kept and no KL is logged."""

    @field_validator("checker")
    @classmethod
    def _is_known(cls, checker: str) -> str:
        with refusing():
            check_name(checker)
        return checker

    @model_validator(mode="after")
    def _one_of_both_judges(self) -> Grpo:
        if self.reward and self.checker != "world":
            raise ValueError(f"`reward` judges, so `checker: {self.checker}` would judge nothing; leave one of the two "
                             "out")
        return self

    @model_validator(mode="after")
    def _safety_stands_beside_a_reward_model(self) -> Grpo:
        if self.safety and not self.reward:
            raise ValueError("a safety model is combined with a reward, not with a checker; name that as `reward`")
        return self

    def run(self, context: Context) -> dict[str, object]:
        """All of GRPO, from top to bottom."""
        device = prepare(context.threads)
        policy, tokenizer = self.load_policy(context)
        policy.to(device)
        judges = JudgeLoader(self, context, policy, tokenizer)
        score = judges.reward(self.reward) if self.reward else FunctionReward(
            Checker(self.checker, self.checker_seconds))
        safety, gold = judges.judge("safety"), judges.gold()
        attached = adapt(policy, self.adapter, context)
        rollouts = Rollouts(self, context, policy, tokenizer, self.samples)
        score.check_rows(rollouts.prompts)
        reward = TrainingReward(score, self.unfinished_score, safety, self.safety_threshold, rollouts.world)
        training = PolicyTraining(rollouts, policy, policy, GroupSurrogate(self), reward,
                                  gold and TrainingReward(gold, self.unfinished_score), attached, drifts=self.drifts,
                                  inputs=("model", "reward", "safety", "gold"))
        taught = float(training.iteration)  # of earlier ones nothing is known any more
        with reward, training:
            for iteration in training.iterations():
                answers = rollouts.answer(rollouts.prompts_of(iteration), self.samples, "rollout", iteration)
                log_probs = rollouts.log_probs(training.policy, answers.trees)
                reference_log_probs = training.reference_log_probs(answers.trees)
                scores = reward(answers)

                advantages = [np.repeat(self.advantages(given), [len(response) for response in tree.responses])
                              for tree, given in zip(answers.trees, scores, strict=True)]

                rollout = Rollout(answers.trees, {"log_probs": log_probs, "advantages": advantages} |
                                  ({"reference": reference_log_probs} if reference_log_probs is not None else {}))
                unlike = float(sum(given.std() > 0 for given in scores))
                rollout.sums = (rollouts.metrics(answers, scores, log_probs, reference_log_probs) |
                                {"groups_that_teach": (unlike, float(len(scores)))} | rollouts.gold(answers))
                metrics = training.measure(rollout)

                for update, responses in training.minibatches(rollout):
                    metrics |= training.step(update, responses)
                training.finish(metrics, example_of(answers, scores))
                taught += metrics["groups_that_teach"]
            if not taught:
                context.progress.say(ALL_ALIKE)
            return training.save()

    @property
    def drifts(self) -> bool:
        """Whether the policy's drift from a reference is to be known."""
        return bool(self.kl_coefficient or self.kl_budget)

    def advantages(self, scores: np.ndarray) -> np.ndarray:
        """The advantage of each of K responses to one prompt, by their scores ``[K]``."""
        if self.estimator == "rloo":
            return leave_one_out_advantages(scores)
        return group_advantages(scores, self.scaled)

    def cost(self, estimate: Estimate) -> Cost:
        """Groups of answers, a pass without gradients for each of policy, reference and reward model, updates of the
        policy."""
        return self.rollout_cost(estimate, self.samples, 1 + self.drifts + bool(self.reward), lambda policy: policy,
                                  GroupSurrogate(self), ("log_probs", "reference", "advantages"))


class GroupSurrogate(Objective):
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
        with torch.no_grad():
            changes = (ratios - 1).abs()
            entropy = entropies(hidden, model.lm_head.weight, s.temperature).sum()
        drift = {"kl_loss": Total(kl_penalties(log_probs, extra["reference"]).sum(), "tokens")
                 } if "reference" in extra else {}
        return {"policy_loss": Total(losses.sum(), "tokens"), **drift,
                "clip_fraction": Total((changes > s.clip).float().sum(), "tokens"), "entropy": Total(entropy, "tokens"),
                "ratio_error": Total(changes.sum(), "tokens")}
