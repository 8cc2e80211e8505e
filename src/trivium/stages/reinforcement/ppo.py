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

from trivium.model import LanguageModel, RewardModel
from trivium.model.adapters import attach
from trivium.model.adapters.folder import weights_digest
from trivium.model.transformer import sharing
from trivium.objectives.language_modeling import entropies, token_log_probs
from trivium.objectives.policy import adapt_kl_coefficient, generalised_advantages, policy_losses, value_losses
from trivium.stage import Context, Figure, Input, Panel, Title
from trivium.stages.cost import Estimate
from trivium.stages.models import adapt, as_without, load_judge, load_language_model
from trivium.stages.outlook import Cost, Step
from trivium.stages.pretraining.pretrain import LanguageModelling, pieces
from trivium.stages.reinforcement.practice import Practice
from trivium.stages.reinforcement.rollout import (
    Answered,
    Practising,
    Rollout,
    check_scores,
    example_of,
    log_probs_of,
    measures,
    moments,
    over_all,
    practise,
    split_tokens,
)
from trivium.stages.training import full_row
from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.tokens import Tokens
from trivium.training.batch import Batch, Tree, hidden_states, make_batch, pack
from trivium.training.epochs import PackedEpochs
from trivium.training.machine import prepare
from trivium.training.objective import Total
from trivium.training.parallel import World


class Ppo(Practice):
    """Reinforcement learning from the reward model, with a KL penalty to the model it starts from."""

    kind: ClassVar[str] = "ppo"
    version: ClassVar[int] = 5
    title: ClassVar[Title] = Title("reinforcement learning (PPO)", "强化学习（PPO）", "judge")
    figures: ClassVar[tuple[Figure, ...]] = (
        Figure("kl_coefficient", "KL coefficient", "KL 系数"),
        Figure("explained_variance", "explained variance", "解释方差"),
        Figure("pretraining_loss", "pretraining loss (nats)", "预训练损失（奈特）"),
    )
    panel: ClassVar[Panel] = Panel(curves=("score", "gold", "watched_gold", "kl", "entropy", "length", "finished",
                                   "clip_fraction", "explained_variance", "pretraining_loss"))
    every_process: ClassVar[bool] = True
    reward: Input = "reward"
    """The reward model; the value model starts from it too."""
    kl_coefficient: float = 0.05
    """Weight of the per-token KL penalty (InstructGPT: 0.02)."""
    kl_target: float | None = None
    """When set, the KL coefficient adapts so that the KL of a response approaches this many nats."""
    kl_horizon: int = 10000
    """Episodes over which the adaptive coefficient moves."""
    value_coefficient: float = 0.1
    """Weight of the value loss."""
    whiten_rewards: bool = False
    """Scale rewards to deviation 1 over a rollout, their mean left where it is."""
    gamma: float = 1.0
    """Discount."""
    lam: float = 0.95
    """GAE's lambda."""
    pretraining: Input | None = None
    """A tokenised corpus for PPO-ptx: every update also goes on with pretraining on it (Ouyang et al. 2022, eq. 2)."""
    pretraining_coefficient: float = Field(1.0, ge=0)
    """Weight of that loss, a mean over tokens as the policy's is (InstructGPT: 27.8, in its own normalisation)."""
    pretraining_rows: int = Field(4, ge=1)
    """Packed rows of documents in an update."""

    def run(self, context: Context) -> dict[str, object]:
        """All of PPO, top to bottom."""
        device = prepare(context.threads)
        policy, tokenizer = load_language_model(context.inputs["model"])
        policy.to(device)
        reward, safety, gold = (load_judge(context, name, policy, tokenizer, share=self.adapter is not None)
                                for name in ("reward", "safety", "gold"))
        assert reward
        attached = adapt(policy, self.adapter, context)
        # one copy of the weights is policy and reference, and value model and reward model too where the latter is an
        # adapter on it
        if attached:
            reference, value = policy, reward.twin()
            adapt(value, self.adapter, context, "value adapter")
            value.score.requires_grad_(True)
        else:
            # the value model starts from the reward model
            reference, value = copy.deepcopy(policy).eval(), copy.deepcopy(reward)
        model = PolicyAndValue(policy, value)
        practising = Practising(self, context, policy, tokenizer, samples=1)
        pretraining = documents(self, context, tokenizer)

        def scores_of(answered: Answered) -> list[np.ndarray]:
            return practising.scores(reward, answered, safety, self.safety_threshold)

        def roll_out(practising: Practising, acting: Any, iteration: int, state: dict[str, float]) -> Rollout:
            answered = practising.answer(practising.chosen(iteration), 1, "rollout", iteration)
            new = practising.log_probs(acting.policy, answered.trees)
            values = practising.over_tokens(lambda batch: values_of(acting.value, batch), answered.trees)
            with as_without(attached):
                old = practising.log_probs(reference, answered.trees)
            scores = scores_of(answered)
            rollout = learn_from(answered, new, old, values, scores, state["kl_coefficient"], self, practising.world)
            rollout.example = example_of(answered, scores, tokenizer)
            if practising.known:
                rollout.sums["gold"] = (float(np.concatenate(practising.true_points(answered)).sum()),
                                        float(len(answered.rows)))
            return rollout

        def adapt_kl(state: dict[str, float], metrics: dict[str, float]) -> None:
            if self.kl_target:
                state["kl_coefficient"] = adapt_kl_coefficient(state["kl_coefficient"], metrics["kl"], self.kl_target,
                                                               self.kl_horizon, self.episodes)

        return practise(
            model, lambda pair: pair.policy, practising, ClippedSurrogate(self), roll_out,
            state={"kl_coefficient": self.kl_coefficient}, adapt=adapt_kl, learned_from=scores_of, gold=gold,
            attached=attached, apart=apart, extra=lambda update, part, parts: pretraining(update, part, parts)
            if pretraining else [], made_from=[
                weights_digest(context.inputs[name]) for name in ("model", "reward", "safety", "gold")
                if context.inputs.get(name)
            ])

    def cost(self, estimate: Estimate) -> Cost:
        """Answers, four passes without gradients, updates of two models."""
        return self.practice_cost(
            estimate, 1, 4, lambda policy: PolicyAndValue(policy, RewardModel.from_language_model(policy, 0)),
            ClippedSurrogate(self), ("log_probs", "values", "advantages", "returns"), apart)

    def training_step(self, estimate: Estimate, processes: int) -> Step:
        """Policy and value model, with the reference and the reward model beside them; responses of the greatest
        length, to prompts as long as they."""
        config, judge = estimate.config(self.model), estimate.outlook(self.reward)
        onto = judge.adapter if self.adapter is not None and judge.like == self.model else None

        def models() -> tuple[PolicyAndValue, list[Any]]:
            policy = LanguageModel(config)
            reward = sharing(policy).rewarding(0) if onto else RewardModel(config)
            if onto:
                attach(reward, onto, 0)
            if self.adapter is None:
                pair = PolicyAndValue(policy, copy.deepcopy(reward))
                return pair, [reward, copy.deepcopy(policy), *([copy.deepcopy(pair)] if processes > 1 else [])]
            # one trunk is policy and reference, and value model and reward model too where that is an adapter on it
            attach(policy, self.adapter, 0)
            value = reward.twin()
            attach(value, self.adapter, 0)
            value.score.requires_grad_(True)
            return PolicyAndValue(policy, value), [reward]

        batches = full_minibatch(self, max(1, processes // self.parallel.tensor_parallel),
                                 min(self.length, config.max_positions))
        return self.step_with(estimate, models, ClippedSurrogate(self), batches)


__all__ = ["ClippedSurrogate", "PolicyAndValue", "log_probs_of", "values_of"]



class PolicyAndValue(nn.Module):
    """The two models that PPO trains."""

    def __init__(self, policy: LanguageModel, value: RewardModel) -> None:
        super().__init__()
        self.policy, self.value = policy, value


def values_of(value: Any, batch: Batch) -> Tensor:
    """The value of the state before every response token, ``[N]``: on the scale of the scores, shift included, so that
    it need not be learned first."""
    hidden = hidden_states(value.model, batch)
    return value.score(hidden[batch.sources]).squeeze(-1).float() + value.shift


def apart(batch: Batch) -> list[Batch]:
    """A minibatch of responses as one for the policy and one for the value model: no weight is trained by both, and so
    the activations of one model alone are held at a time."""
    return [
        replace(batch, extra={name: batch.extra[name]
                              for name in ("log_probs", "advantages")}),
        replace(batch, extra={name: batch.extra[name]
                              for name in ("values", "returns")}, counts={"value_tokens": batch.counts["tokens"]})
    ]


class ClippedSurrogate:
    """PPO's policy loss or value loss over the tokens of a minibatch of responses (:func:`apart`); over a batch of
    documents, PPO-ptx's pretraining loss."""

    def __init__(self, settings: Ppo) -> None:
        self.settings = settings
        self.weights = {"policy_loss": 1.0, "value_loss": settings.value_coefficient,
                        "pretraining_loss": settings.pretraining_coefficient}

    def __call__(self, model: Any, batch: Batch) -> dict[str, Total]:
        """All sums are over tokens."""
        s, extra = self.settings, batch.extra
        if "returns" in extra:
            values = values_of(model.value, batch)
            errors = value_losses(values, extra["values"], extra["returns"], s.clip)
            return {
                "value_loss": Total(errors.sum(), "value_tokens"), "value_error": Total(
                    ((values.detach() - extra["returns"])**2).sum(), "value_tokens")
            }
        if "advantages" not in extra:
            return {
                "pretraining_loss": Total(LanguageModelling()(model.policy, batch)["loss"].value, "pretraining_tokens")
            }
        hidden = hidden_states(model.policy.model, batch)[batch.sources]
        log_probs = token_log_probs(hidden, model.policy.lm_head.weight, batch.targets, s.temperature)
        losses, ratios = policy_losses(log_probs, extra["log_probs"], extra["advantages"], s.clip)
        with torch.no_grad():
            changes = (ratios - 1).abs()
            entropy = entropies(hidden, model.policy.lm_head.weight, s.temperature).sum()
        return {
            "policy_loss": Total(losses.sum(), "tokens"), "clip_fraction": Total(
                (changes > s.clip).float().sum(), "tokens"), "entropy": Total(entropy, "tokens"),
            "ratio_error": Total(changes.sum(), "tokens")
        }




def documents(settings: Ppo, context: Context, tokenizer: ChatTokenizer) -> PackedEpochs | None:
    """PPO-ptx's batches of pretraining documents, if it is on."""
    if settings.pretraining is None:
        return None
    corpus = Tokens.open(context.inputs["pretraining"] / "train", tokenizer.digest)

    def finish(batch: Batch) -> None:
        batch.counts = {"pretraining_tokens": batch.counts["tokens"]}

    return PackedEpochs(pieces(corpus, tokenizer, settings.length), settings.length, settings.pretraining_rows,
                        context.seed, finish)


def learn_from(answered: Answered, new: Sequence[np.ndarray], old: Sequence[np.ndarray], values: Sequence[np.ndarray],
               scores: Sequence[np.ndarray], kl_coefficient: float, settings: Ppo,
               world: World | None = None) -> Rollout:
    """Rewards, advantages and returns of a rollout. The reward of a token is minus the KL coefficient times how much
    likelier the policy finds it than the reference does; the last token of a response gets its score too.

    Raises :class:`TriviumError` for a score that is not finite, naming the prompt."""
    world = world or World()
    check_scores(answered, scores)
    rewards = []
    for tree, now, before, given in zip(answered.trees, new, old, scores, strict=True):
        reward = -kl_coefficient * (now - before).astype(np.float64)
        reward[np.cumsum([len(response) for response in tree.responses]) - 1] += given
        rewards.append(reward)
    if settings.whiten_rewards:
        rewards = over_all(rewards, world, shift_mean=False)
    advantages, returns = [], []
    for tree, reward, value in zip(answered.trees, rewards, values, strict=True):
        gained = np.concatenate([generalised_advantages(r, v, settings.gamma, settings.lam)
                                 for r, v in zip(split_tokens(tree, reward), split_tokens(tree, value), strict=True)])
        advantages.append(gained)
        returns.append(gained + value)
    predicted, wanted = np.concatenate(values), np.concatenate(returns)
    sums = measures(answered, new, old)
    sums["score"] = (float(sum(given.sum() for given in scores)), float(sum(map(len, scores))))
    sums["explained_variance"] = (1 - moments(wanted - predicted, world)[1] / (moments(wanted, world)[1] + 1e-8), 1.0)
    return Rollout(
        answered.trees,
        {"log_probs": list(new), "values": list(values), "advantages": over_all(advantages, world), "returns": returns},
        sums)


def full_minibatch(settings: Ppo, parts: int, length: int) -> list[Batch]:
    """What one of ``parts`` processes goes through in an update: documents, where pretraining goes on, and the
    responses of a minibatch."""
    response = min(settings.max_new_tokens, length - 1)
    tree = Tree(np.zeros(min(response, length - response), np.int64), (np.zeros(response, np.int64),))
    packed = pack([len(tree)] * -(-settings.episodes // (settings.minibatches * parts)), length)
    each = min(len(packed), settings.parallel.rows or len(packed))
    batch = make_batch([[tree] * len(row) for row in packed[:each]], length)
    batch.extra = {name: torch.zeros(len(batch.targets)) for name in ("log_probs", "values", "advantages", "returns")}
    responses = apart(batch) * min(2, -(-len(packed) // each))
    if settings.pretraining is None:
        return responses
    return [make_batch([[full_row(length)]] * -(-settings.pretraining_rows // parts), length), *responses]
