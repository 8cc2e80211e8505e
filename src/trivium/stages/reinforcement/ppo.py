"""Proximal policy optimisation from a reward model, as InstructGPT did it (Ouyang et al. 2022; Schulman et al. 2017).

Each iteration: sample a response to each of some prompts; score it; charge every token for drifting from the model that
training began with; estimate advantages; then improve policy and value model for a few epochs over those responses.
With PPO-ptx every update also goes on with pretraining, so that what was learned there is kept.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from trivium import randomness
from trivium.model import LanguageModel, RewardModel
from trivium.model.adapters import attach
from trivium.model.transformer import sharing
from trivium.objectives.language_modeling import entropies, token_log_probs
from trivium.objectives.policy import adapt_kl_coefficient, generalised_advantages, policy_losses, value_losses
from trivium.stage import Context, Figure, Input, Panel, Title
from trivium.stages.cost import Estimate
from trivium.stages.models import adapt
from trivium.stages.outlook import Cost, Outlook, Step
from trivium.stages.pretraining.pretrain import LanguageModeling, pieces
from trivium.stages.reinforcement.rollout import Rollout, Rollouts, example_of, split_by_response
from trivium.stages.reinforcement.rollout import log_probs_of as log_probs_of
from trivium.stages.reinforcement.scoring import JudgeLoader, TrainingReward, moments, whiten_together
from trivium.stages.reinforcement.settings import ReinforcementSettings
from trivium.stages.reinforcement.training import PolicyTraining, acting_copy
from trivium.stages.rewards import ModelReward, RewardSetting
from trivium.stages.training import USUAL_LENGTH, full_row
from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.tokens import Tokens
from trivium.training.batch import Batch, Tree, hidden_states, make_batch, pack
from trivium.training.epochs import PackedEpochs
from trivium.training.machine import prepare
from trivium.training.objective import Objective, Total
from trivium.training.parallel import World


class Ppo(ReinforcementSettings):
    """Reinforcement learning from the reward model, with a KL penalty to the model it starts from."""

    kind: ClassVar[str] = "ppo"
    version: ClassVar[int] = 9
    usual: ClassVar[str] = "ppo"
    title: ClassVar[Title] = Title("reinforcement learning (PPO)", "强化学习（PPO）", "judge")
    figures: ClassVar[tuple[Figure, ...]] = (
        Figure("kl_coefficient", "KL coefficient", "KL 系数"),
        Figure("explained_variance", "explained variance", "解释方差"),
        Figure("pretraining_loss", "pretraining loss (nats)", "预训练损失（奈特）"),
    )
    panel: ClassVar[Panel] = Panel(curves=("score", "gold", "watched_gold", "kl", "entropy", "length", "finished",
                                   "clip_fraction", "explained_variance", "pretraining_loss"))
    every_process: ClassVar[bool] = True
    reward: RewardSetting = "reward"
    """What is learned from: a reward model, a checker (world, rubric, number, exact), FILE.py:FUNCTION, an http
    address, or a weighted sum of such terms by names of your own, as `{helpful: {model: reward, weight: 1.0}, short:
    {function: f.py:short, weight: 0.2}}`."""
    value: Input | None = None
    """A reward model that the value model starts from; null: `reward`, where it is a model, else the policy under a new
    head."""
    kl_coefficient: float = Field(0.05, ge=0)
    """Weight of the per-token KL penalty (InstructGPT: 0.02). With 0, and neither `kl_target` nor `kl_budget`, no
    reference is kept and no KL is logged."""
    kl_target: float | None = Field(None, gt=0)
    """When set, the KL coefficient adapts so that the KL of a response approaches this many nats."""
    kl_horizon: int = Field(10000, ge=1)
    """Episodes over which the adaptive coefficient moves."""
    clip: float = Field(0.2, gt=0)
    """How far a token's probability ratio may move from 1."""
    clip_value: float | None = Field(0.2, gt=0)
    """How far a value may move from what it was at the rollout before the value loss stops following it, on the scale
    of the scores; null sets no bound."""
    value_coefficient: float = Field(0.1, ge=0)
    """Weight of the value loss."""
    whiten_rewards: bool = False
    """Scale rewards to deviation 1 over a rollout, their mean left where it is."""
    gamma: float = Field(1.0, ge=0, le=1)
    """Discount."""
    lam: float = Field(0.95, ge=0, le=1)
    """GAE's lambda."""
    pretraining: Input | None = None
    """A tokenised corpus for PPO-ptx: every update also goes on with pretraining on it (Ouyang et al. 2022, eq. 2)."""
    pretraining_coefficient: float = Field(1.0, ge=0)
    """Weight of that loss, a mean over tokens as the policy's is (InstructGPT: 27.8, in its own normalisation)."""
    pretraining_rows: int = Field(4, ge=1)
    """Packed rows of documents in an update."""

    def run(self, context: Context) -> dict[str, object]:
        """All of PPO, from top to bottom."""
        device = prepare(context.threads)
        policy, tokenizer = self.load_policy(context)
        policy.to(device)
        judges = JudgeLoader(self, context, policy, tokenizer)
        score, safety, gold = judges.reward(self.reward), judges.judge("safety"), judges.gold()
        start = judges.judge("value") or score
        value = value_model(self, start.model if isinstance(start, ModelReward) else None, policy, context.seed)
        attached = adapt(policy, self.adapter, context)
        adapt_value(value, self, context)
        rollouts = Rollouts(self, context, policy, tokenizer, samples=1)
        score.check_rows(rollouts.prompts)
        reward = TrainingReward(score, self.unfinished_score, safety, self.safety_threshold, rollouts.world)
        pretraining = documents(self, context, tokenizer, policy.config.max_positions)
        training = PolicyTraining(
            rollouts, PolicyAndValue(policy, value), policy, ClippedSurrogate(self), reward,
            gold and TrainingReward(gold, self.unfinished_score), attached, drifts=self.drifts,
            inputs=("model", "reward", "safety", "gold", "value"), carried={"kl_coefficient": self.kl_coefficient})
        with reward, training:
            for iteration in training.iterations():
                answers = rollouts.answer(rollouts.prompts_of(iteration), 1, "rollout", iteration)
                log_probs = rollouts.log_probs(training.policy, answers.trees)
                values = rollouts.over_tokens(lambda batch: values_of(training.acting.value, batch), answers.trees)
                reference_log_probs = training.reference_log_probs(answers.trees)
                scores = reward(answers)

                rewards = token_rewards(answers.trees, log_probs, reference_log_probs, scores,
                                        training.state.carried["kl_coefficient"])
                if self.whiten_rewards:
                    rewards = whiten_together(rewards, rollouts.world, shift_mean=False)
                advantages = [advantages_of(*one, self.gamma, self.lam)
                              for one in zip(answers.trees, rewards, values, strict=True)]
                returns = [gained + value for gained, value in zip(advantages, values, strict=True)]

                rollout = Rollout(answers.trees, {
                    "log_probs": log_probs, "values": values,
                    "advantages": whiten_together(advantages, rollouts.world), "returns": returns})
                rollout.sums = (rollouts.metrics(answers, scores, log_probs, reference_log_probs) |
                                {"explained_variance": (explained_variance(values, returns, rollouts.world), 1.0)} |
                                rollouts.gold(answers))
                metrics = training.measure(rollout)

                for update, responses in training.minibatches(rollout):
                    texts = pretraining(update, *rollouts.world.slice) if pretraining else []
                    metrics |= training.step(update, texts + split_by_model(responses))
                if self.kl_target and not training.ended:
                    training.state.carried["kl_coefficient"] = adapt_kl_coefficient(
                        training.state.carried["kl_coefficient"], metrics["kl"], self.kl_target, self.kl_horizon,
                        rollouts.settings.episodes)
                training.finish(metrics, example_of(answers, scores))
            return training.save()

    @property
    def drifts(self) -> bool:
        """Whether the policy's drift from a reference is to be known."""
        return bool(self.kl_coefficient or self.kl_target or self.kl_budget)

    def cost(self, estimate: Estimate) -> Cost:
        """Answers, four passes without gradients (three without a reference), updates of two models."""
        return self.rollout_cost(estimate, 1, 3 + self.drifts,
                                 lambda policy: PolicyAndValue(policy, RewardModel.from_language_model(policy, 0)),
                                 ClippedSurrogate(self), ("log_probs", "values", "advantages", "returns"),
                                 lambda batch: split_by_model([batch]))

    def training_step(self, estimate: Estimate, processes: int) -> Step:
        """Policy and value model, with the reference and the reward model beside them; responses of the greatest
        length, to prompts as long as they."""
        config, judge = estimate.config(
            self.model), estimate.outlook(self.reward) if isinstance(self.reward, str) else Outlook()
        onto = judge.adapter if self.adapter is not None and judge.like == self.model else None

        def models() -> tuple[PolicyAndValue, list[Any]]:
            policy = LanguageModel(config)
            reward = sharing(policy).rewarding(0) if onto else RewardModel(config)
            if onto:
                attach(reward, onto, 0)
            if self.adapter is None:
                pair = PolicyAndValue(policy, copy.deepcopy(reward))
                references = [copy.deepcopy(policy)] if self.drifts else []
                return pair, [reward, *references, *([copy.deepcopy(pair)] if processes > 1 else [])]
            # one trunk is policy and reference, and value model and reward model too where that is an adapter on it
            attach(policy, self.adapter, 0)
            value = reward.twin()
            attach(value, self.adapter, 0)
            value.score.requires_grad_(True)
            pair = PolicyAndValue(policy, value)
            return pair, [reward, *(acting_copy(pair, policy) if processes > 1 else [])]

        batches = full_minibatch(self, max(1, processes // self.parallel.tensor_parallel),
                                 self.usual_layout(config)[0])
        return self.step_with(estimate, models, ClippedSurrogate(self), batches)


def value_model(settings: Ppo, start: RewardModel | None, policy: LanguageModel, seed: int) -> RewardModel:
    """The value model: a copy of ``start`` or, without one, the policy under a new head. Where adapters are trained,
    which both are given afterwards, it shares the weights of what it is made from."""
    if start is None:
        head = randomness.derive(seed, "value head")
        return sharing(policy).rewarding(head) if settings.adapter else policy.rewarding(head, share=False)
    return start.twin() if settings.adapter else copy.deepcopy(start)


def adapt_value(value: RewardModel, settings: Ppo, context: Context) -> None:
    """Give the value model an adapter of its own, where adapters are trained. Its head is trained whole."""
    if settings.adapter:
        adapt(value, settings.adapter, context, "value adapter")
        value.score.requires_grad_(True)


def token_rewards(trees: Sequence[Tree], log_probs: Sequence[np.ndarray],
                  reference_log_probs: Sequence[np.ndarray] | None, scores: Sequence[np.ndarray],
                  kl_coefficient: float) -> list[np.ndarray]:
    """The reward of every token: minus the KL coefficient times how much likelier the policy finds it than the
    reference does (nothing without a reference); the last token of a response gets its score too."""
    rewards = []
    references = log_probs if reference_log_probs is None else reference_log_probs
    for tree, now, before, given in zip(trees, log_probs, references, scores, strict=True):
        reward = -kl_coefficient * (now - before).astype(np.float64)
        reward[np.cumsum([len(response) for response in tree.responses]) - 1] += given
        rewards.append(reward)
    return rewards


def advantages_of(tree: Tree, rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> np.ndarray:
    """GAE over each of a tree's responses, one after another."""
    return np.concatenate([generalised_advantages(reward, value, gamma, lam) for reward, value in zip(
        split_by_response(tree, rewards), split_by_response(tree, values), strict=True)])


def explained_variance(values: Sequence[np.ndarray], returns: Sequence[np.ndarray], world: World) -> float:
    """The share of the returns' variance that the values predict, over those of all processes."""
    predicted, wanted = np.concatenate(values), np.concatenate(returns)
    return 1 - moments(wanted - predicted, world)[1] / (moments(wanted, world)[1] + 1e-8)


class PolicyAndValue(nn.Module):
    """The two models that PPO trains."""

    def __init__(self, policy: LanguageModel, value: RewardModel) -> None:
        super().__init__()
        self.policy, self.value = policy, value


def values_of(value: Any, batch: Batch) -> Tensor:
    """The value of the state before every response token, ``[N]``: on the scale of the scores, shift included, so that
    it need not be learned first."""
    hidden = hidden_states(value.model, batch)
    values: Tensor = value.score(hidden[batch.sources]).squeeze(-1).float() + value.shift
    return values


def split_by_model(batches: Sequence[Batch]) -> list[Batch]:
    """Each batch of responses as one for the policy and one for the value model: no weight is trained by both, and so
    the activations of one model alone are held at a time."""
    split = []
    for batch in batches:
        split.append(replace(batch, extra={name: batch.extra[name] for name in ("log_probs", "advantages")}))
        split.append(replace(batch, extra={name: batch.extra[name] for name in ("values", "returns")},
                             counts={"value_tokens": batch.counts["tokens"]}))
    return split


class ClippedSurrogate(Objective):
    """PPO's policy loss or value loss over the tokens of a minibatch of responses (:func:`split_by_model`); over a
    batch of documents, PPO-ptx's pretraining loss."""

    def __init__(self, settings: Ppo) -> None:
        self.settings = settings
        self.weights = {"policy_loss": 1.0, "value_loss": settings.value_coefficient,
                        "pretraining_loss": settings.pretraining_coefficient}

    def __call__(self, model: Any, batch: Batch) -> dict[str, Total]:
        """All sums are over tokens."""
        s, extra = self.settings, batch.extra
        if "returns" in extra:
            values = values_of(model.value, batch)
            errors = value_losses(values, extra["values"], extra["returns"], s.clip_value)
            squares = (values.detach() - extra["returns"])**2
            return {"value_loss": Total(errors.sum(), "value_tokens"),
                    "value_error": Total(squares.sum(), "value_tokens")}
        if "advantages" not in extra:
            loss = LanguageModeling()(model.policy, batch)["loss"].value
            return {"pretraining_loss": Total(loss, "pretraining_tokens")}
        hidden = hidden_states(model.policy.model, batch)[batch.sources]
        log_probs = token_log_probs(hidden, model.policy.lm_head.weight, batch.targets, s.temperature)
        losses, ratios = policy_losses(log_probs, extra["log_probs"], extra["advantages"], s.clip)
        with torch.no_grad():
            changes = (ratios - 1).abs()
            entropy = entropies(hidden, model.policy.lm_head.weight, s.temperature).sum()
        return {"policy_loss": Total(losses.sum(), "tokens"),
                "clip_fraction": Total((changes > s.clip).float().sum(), "tokens"),
                "entropy": Total(entropy, "tokens"), "ratio_error": Total(changes.sum(), "tokens")}


def documents(settings: Ppo, context: Context, tokenizer: ChatTokenizer, positions: int) -> PackedEpochs | None:
    """PPO-ptx's batches of pretraining documents, if it is on, in rows of at most the model's ``positions``."""
    if settings.pretraining is None:
        return None
    corpus = Tokens.open(context.inputs["pretraining"] / "train", tokenizer.digest)

    def finish(batch: Batch) -> None:
        batch.counts = {"pretraining_tokens": batch.counts["tokens"]}

    length = min(settings.length or USUAL_LENGTH, positions)
    return PackedEpochs(pieces(corpus, tokenizer, length), length, settings.pretraining_rows, context.seed, finish)


def full_minibatch(settings: Ppo, parts: int, length: int) -> list[Batch]:
    """What one of ``parts`` processes goes through in an update: documents, where pretraining goes on, and the
    responses of a minibatch."""
    response = min(settings.max_new_tokens, length - 1)
    tree = Tree(np.zeros(min(response, length - response), np.int64), (np.zeros(response, np.int64),))
    packed = pack([len(tree)] * -(-settings.episodes // (settings.minibatches * parts)), length)
    each = min(len(packed), settings.parallel.rows or len(packed))
    batch = make_batch([[tree] * len(row) for row in packed[:each]], length)
    batch.extra = {name: torch.zeros(len(batch.targets)) for name in ("log_probs", "values", "advantages", "returns")}
    responses = split_by_model([batch]) * min(2, -(-len(packed) // each))
    if settings.pretraining is None:
        return responses
    return [make_batch([[full_row(length)]] * -(-settings.pretraining_rows // parts), length), *responses]
