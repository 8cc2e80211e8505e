"""Proximal policy optimisation from a reward model, as InstructGPT did it (Ouyang et al. 2022; Schulman et al. 2017).

Each iteration: sample a response to each of some prompts; score it; charge every token for drifting from the model that
training began with; estimate advantages; then improve policy and value model for a few epochs over those responses.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trivium import randomness
from trivium.errors import TriviumError
from trivium.generation.engine import Completion, Sampling, generate
from trivium.model import LanguageModel, RewardModel
from trivium.objectives.language_modeling import entropies, token_log_probs
from trivium.objectives.policy import (
    adapt_kl_coefficient,
    generalised_advantages,
    kl_k3,
    policy_losses,
    value_losses,
    whiten,
)
from trivium.pipeline import Context
from trivium.stages.common import (
    adapt,
    fingerprint,
    load_language_model,
    load_reward_model,
    map_trees,
    prompt_ids,
    rows_of,
    save_adapter,
    save_model,
    weights_digest,
)
from trivium.stages.reward import score_trees
from trivium.stages.settings import Ppo
from trivium.training.batch import Batch, Tree, hidden_states, make_batch, pack
from trivium.training.checkpoint import load_checkpoint, save_checkpoint
from trivium.training.loop import Log, Total, Trainer
from trivium.training.machine import autocast, choose_precision, prepare

VERSION = 2


class PolicyAndValue(nn.Module):
    """The two models that PPO trains."""

    def __init__(self, policy: LanguageModel, value: RewardModel) -> None:
        super().__init__()
        self.policy, self.value = policy, value


def log_probs_of(policy: Any, batch: Batch, temperature: float) -> Tensor:
    """Log-probability of every response token, ``[N]``, at the sampling temperature."""
    hidden = hidden_states(policy.model, batch)
    return token_log_probs(hidden[batch.sources], policy.lm_head.weight, batch.targets, temperature)


def values_of(value: Any, batch: Batch) -> Tensor:
    """The value of the state before every response token, ``[N]``: on the scale of the scores, shift included, so that it
    need not be learned first."""
    hidden = hidden_states(value.model, batch)
    return value.score(hidden[batch.sources]).squeeze(-1).float() + value.shift


class ClippedSurrogate:
    """PPO's losses over the tokens of a minibatch of responses."""

    def __init__(self, settings: Ppo) -> None:
        self.settings = settings
        self.weights = {"policy_loss": 1.0, "value_loss": settings.value_coefficient}

    def __call__(self, model: Any, batch: Batch) -> dict[str, Total]:
        """All sums are over tokens."""
        s, extra = self.settings, batch.extra
        hidden = hidden_states(model.policy.model, batch)
        hidden = hidden[batch.sources]
        log_probs = token_log_probs(hidden, model.policy.lm_head.weight, batch.targets, s.temperature)
        losses, ratios = policy_losses(log_probs, extra["log_probs"], extra["advantages"], s.clip)
        values = values_of(model.value, batch)
        errors = value_losses(values, extra["values"], extra["returns"], s.clip)
        with torch.no_grad():
            clipped = ((ratios - 1).abs() > s.clip).float().sum()
            entropy = entropies(hidden, model.policy.lm_head.weight, s.temperature).sum()
            squared = ((values - extra["returns"]) ** 2).sum()
        return {"policy_loss": Total(losses.sum(), "tokens"), "value_loss": Total(errors.sum(), "tokens"),
                "clip_fraction": Total(clipped, "tokens"), "entropy": Total(entropy, "tokens"),
                "value_error": Total(squared, "tokens")}


@dataclass
class Rollout:
    """Responses and, for each, arrays over its tokens."""

    trees: list[Tree]
    arrays: dict[str, list[np.ndarray]]
    """log_probs, values, advantages and returns."""
    metrics: dict[str, float]


def run(settings: Ppo, context: Context) -> dict[str, object]:
    """All of PPO, top to bottom."""
    device = prepare(context.threads)
    policy, tokenizer = load_language_model(context.inputs["model"])
    reward, reward_tokenizer = load_reward_model(context.inputs["reward"])
    if reward_tokenizer.digest != tokenizer.digest:
        raise TriviumError(f"{context.inputs['reward']}: the reward model has another tokenizer than the policy")
    policy.to(device)
    reward.to(device).eval()
    as_reference: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    as_reward: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    if settings.adapter:  # one copy of the weights is policy and reference, another value model and reward model
        attached, judged = adapt(policy, settings.adapter, context), adapt(reward, settings.adapter, context, "value adapter")
        assert attached and judged
        reference, as_reference, as_reward = policy, attached.off, judged.off
        model = PolicyAndValue(policy, reward.twin())
    else:
        attached = adapt(policy, None, context)
        reference = copy.deepcopy(policy).eval()
        model = PolicyAndValue(policy, copy.deepcopy(reward))  # the value model starts from the reward model
    prompts = rows_of(context.inputs["prompts"], "prompts.jsonl", ["id", "prompt"], context)
    ids = {row["id"]: prompt_ids(tokenizer, row["prompt"]) for row in prompts}
    length = min(settings.length, policy.config.max_positions)
    prompts = [row for row in prompts if len(ids[row["id"]]) + settings.max_new_tokens <= length]
    if len(prompts) < settings.episodes:
        raise TriviumError(f"ppo: {len(prompts)} prompts fit rows of {length} tokens with {settings.max_new_tokens} new ones, "
                           f"but a rollout needs {settings.episodes}; lower `episodes` or raise `length`")
    precision = choose_precision(settings.precision, device)
    updates = settings.epochs * settings.minibatches
    trainer = Trainer(model, settings.optimization, settings.iterations * updates, precision)
    mark = fingerprint(weights_digest(context.inputs["model"]), weights_digest(context.inputs["reward"]), prompts,
                       settings.model_dump(), context.seed)
    context.scratch.mkdir(parents=True, exist_ok=True)
    found = load_checkpoint(context.scratch, model, trainer.optimizers, mark)
    first, kl_coefficient = (found[0], found[1]["kl_coefficient"]) if found else (0, settings.kl_coefficient)
    log = Log(context.folder / "log.jsonl", first)
    objective = ClippedSurrogate(settings)

    def over_tokens(compute: Callable[[Batch], Tensor], trees: list[Tree]) -> list[np.ndarray]:
        def in_precision(batch: Batch) -> Tensor:
            with autocast(precision, device):
                return compute(batch)
        return map_trees(in_precision, trees, length, settings.rows, device, per_token=True)

    def roll_out(iteration: int) -> Rollout:
        epoch, start = divmod(iteration * settings.episodes, len(prompts) - len(prompts) % settings.episodes)
        order = randomness.numpy(context.seed, "prompts", epoch).permutation(len(prompts))
        chosen = [prompts[i] for i in order[start:start + settings.episodes]]
        model.eval()
        sampling = Sampling(temperature=settings.temperature, max_new_tokens=settings.max_new_tokens,
                            seed=randomness.derive(context.seed, "rollout", iteration))
        samples = [group[0] for group in generate(policy, [ids[row["id"]].tolist() for row in chosen], sampling,
                                                  [tokenizer.end_id], keys=[row["id"] for row in chosen])]
        trees = [Tree(ids[row["id"]], (np.array(sample.tokens, np.int64),)) for row, sample in zip(chosen, samples, strict=True)]
        log_probs = over_tokens(lambda batch: log_probs_of(policy, batch, settings.temperature), trees)
        with as_reference():
            before = over_tokens(lambda batch: log_probs_of(reference, batch, settings.temperature), trees)
        values = over_tokens(lambda batch: values_of(model.value, batch), trees)
        with as_reward():
            scores = final_scores(reward, trees, samples, settings, length, precision)
        return learn_from(trees, samples, log_probs, before, values, scores, kl_coefficient, settings)

    for iteration in range(first, settings.iterations):
        rollout = roll_out(iteration)
        metrics = dict(rollout.metrics)
        for update, (epoch, part) in enumerate((e, p) for e in range(settings.epochs) for p in range(settings.minibatches)):
            order = randomness.numpy(context.seed, "minibatches", iteration, epoch).permutation(len(rollout.trees))
            batch = minibatch(rollout, order[part::settings.minibatches], length)
            metrics |= trainer.step(iteration * updates + update, [batch], objective)
        if settings.kl_target:
            kl_coefficient = adapt_kl_coefficient(kl_coefficient, metrics["kl"], settings.kl_target, settings.kl_horizon,
                                                  settings.episodes)
        metrics["kl_coefficient"] = kl_coefficient
        if not np.isfinite(metrics["kl"]) or "skipped" in metrics:
            raise TriviumError(f"ppo: iteration {iteration}: the policy or its gradient is not finite; lower the learning rate "
                               "(the checkpoint before is kept)")
        log(iteration, metrics)
        context.progress.update(iteration + 1, settings.iterations, f"score {metrics['score']:+.2f}  KL {metrics['kl']:.2f}")
        save_checkpoint(context.scratch, iteration + 1, model, trainer.optimizers,
                        {"fingerprint": mark, "kl_coefficient": kl_coefficient})
    if attached:
        save_adapter(policy, attached, tokenizer, context.inputs["model"], context)
    else:
        save_model(policy, tokenizer, context.folder)
    return {"episodes": settings.iterations * settings.episodes, "kl_coefficient": kl_coefficient}


def final_scores(reward: RewardModel, trees: list[Tree], samples: list[Completion], settings: Ppo, length: int,
                 precision: str) -> np.ndarray:
    """The reward model's score of each response, centred on demonstrations; a fixed low one for those that never end."""
    scores = np.concatenate(score_trees(reward, trees, length, settings.rows, precision)) + reward.shift
    return np.where([sample.finished for sample in samples], scores, settings.unfinished_score)


def learn_from(trees: list[Tree], samples: list[Completion], log_probs: list[np.ndarray], before: list[np.ndarray],
               values: list[np.ndarray], scores: np.ndarray, kl_coefficient: float, settings: Ppo) -> Rollout:
    """Rewards, advantages and returns of a rollout. The reward of a token is minus the KL coefficient times how much
    likelier the policy finds it than the reference does; the last token gets the score too."""
    advantages, returns = [], []
    for new, old, value, score in zip(log_probs, before, values, scores, strict=True):
        rewards = -kl_coefficient * (new - old).astype(np.float64)
        rewards[-1] += score
        gained = generalised_advantages(rewards, value, settings.gamma, settings.lam)
        advantages.append(gained)
        returns.append(gained + value)
    flat = whiten(np.concatenate(advantages))
    advantages = np.split(flat, np.cumsum([len(a) for a in advantages])[:-1])
    kl = np.array([(new - old).sum() for new, old in zip(log_probs, before, strict=True)])
    k3 = np.concatenate([kl_k3(new, old) for new, old in zip(log_probs, before, strict=True)])
    predicted, wanted = np.concatenate(values), np.concatenate(returns)
    agreement = max(float(np.abs(sample.log_probs - new).max()) for sample, new in zip(samples, log_probs, strict=True))
    metrics = {"score": float(scores.mean()), "kl": float(kl.mean()), "kl_per_token": float(k3.mean()),
               "length": float(np.mean([len(v) for v in values])), "finished": float(np.mean([s.finished for s in samples])),
               "explained_variance": float(1 - (wanted - predicted).var() / (wanted.var() + 1e-8)),
               "log_prob_disagreement": agreement}
    arrays = {"log_probs": log_probs, "values": values, "advantages": advantages, "returns": returns}
    return Rollout(trees, arrays, metrics)


def minibatch(rollout: Rollout, chosen: np.ndarray, length: int) -> Batch:
    """Some of a rollout's responses, packed, with their arrays in the order of the batch's targets."""
    rows = pack([len(rollout.trees[i]) for i in chosen], length)
    order = [int(chosen[i]) for row in rows for i in row]
    batch = make_batch([[rollout.trees[int(chosen[i])] for i in row] for row in rows], length)
    batch.extra = {name: torch.from_numpy(np.concatenate([arrays[i] for i in order]).astype(np.float32))
                   for name, arrays in rollout.arrays.items()}
    return batch
