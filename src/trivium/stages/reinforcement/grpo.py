"""Reinforcement learning without a value model: GRPO (Shao et al. 2024) and those that followed it, each a preset of
choices in :mod:`trivium.objectives.policy_presets`.

Each iteration: sample K responses to each of some prompts; check them; a response is worth as much as it is better than
the others to the same prompt, or than all. So no value model is needed. The K responses share one computation of their
prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from trivium.evaluation.checkers import Checker, check_name
from trivium.objectives.language_modeling import entropies, learned_entropies, token_log_probs
from trivium.objectives.policy import (
    detached_losses,
    group_advantages,
    kl_penalties,
    leave_one_out_advantages,
    means_of_responses,
    overlong_punishments,
    policy_losses,
    rewards_to_go,
)
from trivium.objectives.policy_presets import (
    OBJECTIVES,
    Advantages,
    Aggregation,
    KlPlace,
    ObjectiveName,
    PolicyObjective,
    Ratio,
)
from trivium.stage import Code, Context, Panel, Title, refusing
from trivium.stages.cost import Estimate
from trivium.stages.models import adapt
from trivium.stages.outlook import Cost
from trivium.stages.reinforcement.drawing import Drawn, check_further, draw
from trivium.stages.reinforcement.rollout import Rollout, Rollouts, Sums, example_of, split_by_response
from trivium.stages.reinforcement.scoring import JudgeLoader, TrainingReward, whiten_together
from trivium.stages.reinforcement.settings import ReinforcementSettings
from trivium.stages.reinforcement.training import PolicyTraining
from trivium.stages.rewards import FunctionReward, RewardSetting
from trivium.training.batch import Batch, Tree, hidden_states
from trivium.training.machine import prepare
from trivium.training.objective import Objective, Total
from trivium.training.parallel import World

ALL_ALIKE = ("all responses to each prompt had the same score, so nothing was learned from any: look at the reward, or "
             "raise `temperature` or `samples`")

MOVED = {"estimator": "`objective: rloo`, or `advantages: leave_one_out` beside another objective",
         "scaled": "`objective: dr_grpo`, or `advantages: centred` beside another objective"}
"""Settings of earlier versions, and what to write now."""


class Grpo(ReinforcementSettings):
    """Reinforcement learning from rewards that can be checked, without a value model: GRPO, RLOO, REINFORCE++, Dr.
    GRPO, DAPO, GSPO and CISPO."""

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
    samples: int = Field(8, ge=1)
    """Responses to each prompt, which are compared with one another."""
    episodes: int = Field(32, ge=1)
    """Prompts in a rollout; all that there are, where that is fewer and none is set."""
    epochs: int = Field(1, ge=1)
    """Passes over each rollout."""
    objective: ObjectiveName = "grpo"
    """What the policy is improved by: a preset of the settings that follow, each of which may be set otherwise.
    docs/rlhf.md has their formulas and papers."""
    advantages: Advantages | None = None
    """A response's reward minus its group's mean, over the group's deviation (group) or not (centred), or minus the
    mean of the others (leave_one_out); or its reward whitened over all tokens of a rollout (batch), after its group's
    mean was taken off (centred_batch). null: the objective's."""
    ratio: Ratio | None = None
    """How much likelier a response became: each token by itself, or, with sequence, the geometric mean of its tokens.
    null: the objective's."""
    aggregation: Aggregation | None = None
    """The mean of losses over all tokens (tokens), over responses of the means of their tokens (responses), or over
    responses of their sums, divided by `max_new_tokens` (constant). null: the objective's."""
    clip: float | None = Field(None, gt=0)
    """How far a ratio may move from 1 (1: it may fall as far as it likes); 0.2 but for gspo (3e-4) and cispo (1). null:
    the objective's."""
    clip_high: float | None = Field(None, gt=0)
    """How far a ratio may rise, where that differs from `clip`. null: the objective's (dapo 0.28, gspo 4e-4, cispo 4),
    else as far as it may fall."""
    kl_coefficient: float | None = Field(None, ge=0)
    """Weight of the KL penalty; null: the objective's, which is 0.04 for grpo, 0.05 for rloo, 0.01 for reinforce++ and
    0 for the others. With 0, and no `kl_budget`, no reference is kept and no KL is logged."""
    kl_place: KlPlace | None = None
    """Whether the penalty is learned through (loss) or taken off the reward (reward). null: the objective's."""
    kl_estimate: Literal["k1", "k2", "k3"] | None = None
    """The estimate of KL (Schulman 2020): the log-ratio k1, half its square k2, or k3, which is never negative. null:
    k3 in the loss and k1 in the reward."""
    reference_every: int = Field(0, ge=0)
    """Iterations after which the reference becomes the policy as it is then (Liu et al. 2025, ProRL); 0: never."""
    entropy_bonus: float = Field(0.0, ge=0)
    """Weight of the policy's entropy, which is then kept up."""
    dynamic_sampling: int | None = Field(None, ge=0)
    """How often, in an iteration, groups whose responses all score alike are drawn again from further prompts (Yu et
    al. 2025). null: the objective's, which is 10 for dapo and 0 for the others."""
    overlong_buffer: int | None = Field(None, ge=0)
    """The last tokens of `max_new_tokens`, in which a response's reward falls by up to 1 (Yu et al. 2025, eq. 13).
    null: the objective's, a fifth of them for dapo and 0 for the others."""
    mask_unfinished: bool = False
    """Learn nothing from responses that never end; their scores count in their groups all the same."""
    importance_cap: float | None = Field(None, gt=0)
    """Weigh each token's loss by how much likelier it is to the model that learns than to what sampled it, up to this:
    where responses are sampled by a server, or in bf16 (2 is usual). null: all weigh alike."""

    @model_validator(mode="before")
    @classmethod
    def _nothing_has_moved(cls, given: Any) -> Any:
        for name, now in MOVED.items():
            if isinstance(given, dict) and name in given:
                raise ValueError(f"`{name}` is no setting any more: write {now}")
        return given

    @model_validator(mode="after")
    def _choices_fit(self) -> Grpo:
        chosen = self.chosen
        if self.samples < 2 and chosen.advantages != "batch":
            raise ValueError(f"the advantages of `{chosen.advantages}` compare the responses to a prompt, so `samples` "
                             "must be at least 2; only `batch` needs no others")
        if self.samples < 2 and chosen.tries:
            raise ValueError("dynamic_sampling compares the responses to a prompt, so `samples` must be at least 2")
        if chosen.tries and self.safety:
            raise ValueError("with `safety` scores are whitened over a whole rollout, of which dynamic_sampling would "
                             "draw parts; leave one of the two out")
        if self.buffer > self.max_new_tokens:
            raise ValueError(f"overlong_buffer ({self.buffer}) is the last part of max_new_tokens "
                             f"({self.max_new_tokens}), so it cannot be longer")
        if not chosen.kl_coefficient and (self.kl_place or self.kl_estimate):
            raise ValueError("kl_place and kl_estimate are of a penalty that `kl_coefficient: 0` takes away; leave "
                             "them out, or set a coefficient")
        if not self.drifts and self.reference_every:
            raise ValueError("reference_every renews a reference, and with `kl_coefficient: 0` there is none; leave it "
                             "out, or set a coefficient")
        if chosen.kl_place == "loss" and self.kl_estimate == "k1":
            raise ValueError("kl_estimate: k1 teaches nothing in the loss, as its gradient is 0 in the mean; choose k2 "
                             "or k3, or `kl_place: reward`")
        return self

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
        check_further(rollouts, self.chosen.tries)
        reward = TrainingReward(score, self.unfinished_score, safety, self.safety_threshold, rollouts.world)
        training = PolicyTraining(rollouts, policy, policy, GroupSurrogate(self), reward,
                                  gold and TrainingReward(gold, self.unfinished_score), attached, drifts=self.drifts,
                                  inputs=("model", "reward", "safety", "gold"), reference_every=self.reference_every)
        taught = float(training.iteration)  # of earlier ones nothing is known any more
        with reward, training:
            for iteration in training.iterations():
                drawn = draw(rollouts, reward, iteration, self.chosen.tries)
                answers, scores = drawn.answers, drawn.scores
                log_probs = rollouts.log_probs(training.policy, answers.trees)
                reference_log_probs = training.reference_log_probs(answers.trees)

                rollout = self.compared(rollouts, drawn, log_probs, reference_log_probs)
                metrics = training.measure(rollout)

                for update, responses in training.minibatches(rollout):
                    metrics |= training.step(update, responses)
                if drawn.again and not metrics["groups_that_teach"]:
                    context.progress.say(none_teaches(iteration, drawn.again))
                training.finish(metrics, example_of(answers, scores))
                taught += metrics["groups_that_teach"]
            if not taught and self.chosen.advantages != "batch":  # which compares prompts, too
                context.progress.say(ALL_ALIKE)
            return training.save()

    @property
    def chosen(self) -> PolicyObjective:
        """The objective, with what is set otherwise."""
        own: dict[str, Any] = {
            "advantages": self.advantages, "ratio": self.ratio, "aggregation": self.aggregation, "clip": self.clip,
            "clip_high": self.clip_high, "kl_coefficient": self.kl_coefficient, "kl_place": self.kl_place,
            "tries": self.dynamic_sampling}
        return replace(OBJECTIVES[self.objective], **{name: value for name, value in own.items() if value is not None})

    @property
    def buffer(self) -> int:
        """The last tokens in which a response is punished for its length."""
        if self.overlong_buffer is not None:
            return self.overlong_buffer
        return int(self.chosen.overlong * self.max_new_tokens)

    @property
    def drifts(self) -> bool:
        """Whether the policy's drift from a reference is to be known."""
        return bool(self.chosen.kl_coefficient or self.kl_budget)

    def compared(self, rollouts: Rollouts, drawn: Drawn, log_probs: list[np.ndarray],
                 reference: list[np.ndarray] | None) -> Rollout:
        """What is learned from the responses: how much better each is than others, with what is logged of it."""
        answers, scores = drawn.answers, drawn.scores
        count, gained = float(sum(map(len, scores))), scores
        sums = rollouts.metrics(answers, scores, log_probs, reference) | rollouts.gold(answers) | drawn.sums
        sums["groups_that_teach"] = (float(sum(given.std() > 0 for given in scores)), float(len(scores)))
        if self.buffer:
            punishments = [self.punishments(tree) for tree in answers.trees]
            gained = [given + punished for given, punished in zip(scores, punishments, strict=True)]
            sums["overlong_punishment"] = (float(sum(map(np.sum, punishments))), count)
        penalties = self.penalties(log_probs, reference)
        arrays = {"log_probs": log_probs, "advantages": advantages_of(
            self.chosen.advantages, answers.trees, gained, penalties, rollouts.world)}
        if reference is not None and penalties is None:
            arrays["reference"] = reference
        if self.importance_cap is not None:
            arrays["importance"], weighed = importance(answers.log_probs, log_probs, self.importance_cap)
            sums |= weighed
        rollout = Rollout(answers.trees, arrays, sums)
        if not self.mask_unfinished:
            return rollout
        sums["masked"] = (count - float(sum(map(sum, answers.finished))), count)
        return rollout.only(answers.finished)

    def punishments(self, tree: Tree) -> np.ndarray:
        """What the responses to a prompt lose by their length, ``[K]``."""
        return overlong_punishments(np.array([len(response) for response in tree.responses]), self.max_new_tokens,
                                    self.buffer)

    def penalties(self, log_probs: Sequence[np.ndarray],
                  reference: Sequence[np.ndarray] | None) -> list[np.ndarray] | None:
        """What is taken off the reward at each token for drifting from the reference; None where it is not taken
        there."""
        chosen = self.chosen
        if reference is None or chosen.kl_place != "reward" or not chosen.kl_coefficient:
            return None
        return [chosen.kl_coefficient * kl_penalties(torch.from_numpy(now).double(), torch.from_numpy(before).double(),
                                                     self.kl_estimate or "k1").numpy()
                for now, before in zip(log_probs, reference, strict=True)]

    def cost(self, estimate: Estimate) -> Cost:
        """Groups of answers, a pass without gradients for each of policy, reference and reward model, updates of the
        policy."""
        return self.rollout_cost(estimate, self.samples, 1 + self.drifts + bool(self.reward), lambda policy: policy,
                                  GroupSurrogate(self), ("log_probs", "reference", "advantages"))


def advantages_of(kind: Advantages, trees: Sequence[Tree], scores: Sequence[np.ndarray],
                  penalties: Sequence[np.ndarray] | None, world: World) -> list[np.ndarray]:
    """The advantage of every token of every tree's responses, by the responses' scores and, where it is taken off the
    reward, the KL penalty of each token. Group by group a response is compared as a whole, and loses the sum of its
    penalties (Ahmadian et al. 2024, eq. 3); over a batch each token gains the score less the penalties from there on
    (Hu 2025), and all are whitened together over the rollout of all processes."""
    if kind not in ("batch", "centred_batch"):
        if penalties is not None:
            scores = [given - [part.sum() for part in split_by_response(tree, taken)]
                      for tree, given, taken in zip(trees, scores, penalties, strict=True)]
        return [np.repeat(better_than_others(kind, given), [len(response) for response in tree.responses])
                for tree, given in zip(trees, scores, strict=True)]
    gained = []
    for number, (tree, given) in enumerate(zip(trees, scores, strict=True)):
        from_here = given - given.mean() if kind == "centred_batch" else given
        taken = np.zeros(sum(map(len, tree.responses))) if penalties is None else penalties[number]
        gained.append(np.concatenate([rewards_to_go(score, part) for score, part in zip(
            from_here, split_by_response(tree, taken), strict=True)]))
    return whiten_together(gained, world)


def better_than_others(kind: Advantages, scores: np.ndarray) -> np.ndarray:
    """The advantage of each of K responses to one prompt, by their scores ``[K]``."""
    if kind == "leave_one_out":
        return leave_one_out_advantages(scores)
    return group_advantages(scores, scaled=kind == "group")


def importance(sampled: Sequence[Sequence[np.ndarray]], log_probs: Sequence[np.ndarray],
               cap: float) -> tuple[list[np.ndarray], Sums]:
    """How much likelier each token is to the model that learns than to what sampled it, up to ``cap`` (truncated
    importance sampling: Yao et al. 2025), and what is logged of it: the mean, and the largest before it was bounded."""
    ratios = [np.exp(now.astype(np.float64) - np.concatenate(group))
              for group, now in zip(sampled, log_probs, strict=True)]
    weights = [np.minimum(ratio, cap) for ratio in ratios]
    return weights, {"importance": (float(sum(map(np.sum, weights))), float(sum(map(len, weights)))),
                     "importance_max": (float(max(map(np.max, ratios))), 1.0)}


def none_teaches(iteration: int, again: int) -> str:
    """What is said where dynamic sampling found nothing."""
    return (f"WARNING: iteration {iteration}: no group teaches, though {again} were drawn again: all responses to each "
            "prompt score alike; look at the reward, raise `temperature`, `samples` or `dynamic_sampling`, or bring "
            "prompts that are neither too hard nor too easy")


class GroupSurrogate(Objective):
    """The loss of :attr:`Grpo.chosen`, with the KL penalty where it stands in the loss and the entropy's bonus, over
    the responses of a minibatch."""

    def __init__(self, settings: Grpo) -> None:
        self.settings, self.chosen = settings, settings.chosen
        self.weights = {"policy_loss": 1.0, "kl_loss": self.chosen.kl_coefficient,
                        "entropy_loss": settings.entropy_bonus}

    def __call__(self, model: Any, batch: Batch) -> dict[str, Total]:
        """Losses are sums as :meth:`total` says, all others over tokens."""
        s, extra, (low, high) = self.settings, batch.extra, self.chosen.bounds
        hidden = hidden_states(model.model, batch)[batch.sources]
        log_probs = token_log_probs(hidden, model.lm_head.weight, batch.targets, s.temperature)
        losses, ratios = self.losses(log_probs, batch)
        if "importance" in extra:
            losses = losses * extra["importance"]
        with torch.no_grad():
            changes = ratios - 1
            clipped = (changes > high) | (-changes > low)
        found = {"policy_loss": self.total(losses, batch)}
        if "reference" in extra:
            found["kl_loss"] = self.total(kl_penalties(log_probs, extra["reference"], s.kl_estimate or "k3"), batch)
        if s.entropy_bonus:
            entropy = learned_entropies(hidden, model.lm_head.weight, s.temperature)
            found["entropy_loss"] = self.total(-entropy, batch)
        else:
            entropy = entropies(hidden, model.lm_head.weight, s.temperature)
        return found | {"clip_fraction": Total(clipped.float().sum(), "tokens"),
                        "entropy": Total(entropy.detach().sum(), "tokens"),
                        "ratio_error": Total(changes.abs().sum(), "tokens")}

    def losses(self, log_probs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss and the ratio of each token ``[N]``."""
        old, advantages, (low, high) = batch.extra["log_probs"], batch.extra["advantages"], self.chosen.bounds
        if self.chosen.ratio == "sequence":
            whole = means_of_responses(log_probs - old, batch.owners, len(batch.ends))[batch.owners]
            if self.chosen.detached:
                return detached_losses(log_probs, whole, advantages, low, high)
            return policy_losses(whole, torch.zeros_like(whole), advantages, low, high)
        if self.chosen.detached:
            return detached_losses(log_probs, log_probs - old, advantages, low, high)
        return policy_losses(log_probs, old, advantages, low, high)

    def total(self, values: Tensor, batch: Batch) -> Total:
        """The sum of tokens' values ``[N]`` whose mean is what the aggregation says."""
        if self.chosen.aggregation == "tokens":
            return Total(values.sum(), "tokens")
        if self.chosen.aggregation == "constant":
            return Total(values.sum() / self.settings.max_new_tokens, "responses")
        return Total(means_of_responses(values, batch.owners, len(batch.ends)).sum(), "responses")
