"""This package's side of ``gpu_rlhf.py``: its trainer, objectives and sampling engine, put together as the stages do
it. The stages themselves need pydantic, which a machine with a GPU may lack."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import gpu_rlhf_rows as given
import numpy as np
import torch
from gpu_rlhf_rows import Parts, Plan, Shape, timed
from torch import Tensor, nn

from trivium.generation.engine import Engines, Sampling, generate
from trivium.model import LanguageModel, ModelConfig, RewardModel
from trivium.objectives.language_modeling import entropies, token_log_probs
from trivium.objectives.policy import (
    generalised_advantages,
    group_advantages,
    kl_penalties,
    policy_losses,
    value_losses,
    whiten,
)
from trivium.objectives.preference import dpo_losses, implicit_margins
from trivium.training.at_once import tokens_at_once
from trivium.training.batch import Batch, Tree, hidden_states, make_batch, map_trees, pack, split_tree
from trivium.training.epochs import PackedEpochs
from trivium.training.machine import autocast, prepare
from trivium.training.next_token import LanguageModeling
from trivium.training.objective import Objective, Total
from trivium.training.precision import as_trained
from trivium.training.settings import Optimization
from trivium.training.trainer import Trainer


def decoder(shape: Shape, positions: int, device: torch.device) -> LanguageModel:
    """The decoder with the weights that both sides begin with."""
    with device:
        return LanguageModel(
            ModelConfig(vocab_size=shape.vocabulary, hidden_size=shape.width, intermediate_size=shape.inner,
                        num_layers=shape.layers, num_heads=shape.heads, num_kv_heads=shape.kv_heads,
                        head_dim=shape.head_dim, max_positions=positions, qk_norm=False, attention_bias=True,
                        tie_embeddings=True)).initialise(0)


def packed(trees: Sequence[Tree], plan: Plan) -> PackedEpochs:
    """The rows of the updates; a row is as long as the longest tree."""
    length = max(map(len, trees))
    return PackedEpochs(trees, length, max(1, plan.batch // length), 0)


def run(options: dict[str, Any], device: torch.device) -> dict[str, float]:
    """One method."""
    prepare()
    if not options.get("deterministic", True):
        torch.use_deterministic_algorithms(False)
    shape, plan = given.SHAPES[options["size"]], given.plan_of(options["size"])
    if options["method"] in ("sft", "dpo"):
        return tuned(options, shape, plan, device)
    return reinforced(options, shape, plan, device)


def target_log_probs(model: Any, batch: Batch) -> Tensor:
    """Of each target, ``[N]``."""
    return token_log_probs(hidden_states(model.model, batch)[batch.sources], model.lm_head.weight, batch.targets)


class Pairs(Objective):
    """DPO's loss with the metrics that its stage logs."""

    weights = {"loss": 1.0}

    def __call__(self, model: Any, batch: Batch) -> dict[str, Total]:
        """A mean over pairs; responses come as chosen, rejected, chosen, rejected."""
        sums = sums_of(target_log_probs(model, batch), batch)
        four = (sums[::2], sums[1::2], batch.extra["reference"][::2], batch.extra["reference"][1::2])
        margins = implicit_margins(*four, given.BETA)
        return {"loss": Total(dpo_losses(*four, given.BETA).sum(), "trees"),
                "accuracy": Total((margins > 0).float().sum(), "trees"), "margin": Total(margins.sum(), "trees")}


def sums_of(log_probs: Tensor, batch: Batch) -> Tensor:
    """Log-probabilities of tokens summed over each response, ``[S]``."""
    return log_probs.new_zeros(len(batch.ends)).index_add(0, batch.owners, log_probs)


def tuned(options: dict[str, Any], shape: Shape, plan: Plan, device: torch.device) -> dict[str, float]:
    """SFT or DPO. DPO's reference is measured before the updates, and the seconds of that, for the rows that are timed,
    are added to theirs."""
    dpo = options["method"] == "dpo"
    trees = (given.pairs if dpo else given.documents)(plan, shape.vocabulary)
    batches, model = packed(trees, plan), decoder(shape, plan.positions, device)
    at_once = max(1, tokens_at_once(model.config) // batches.length)
    learned = [tree for step in range(plan.warm, plan.warm + plan.steps) for batch in batches(step)
               for tree in batch.trees]
    more = {}
    if dpo:
        clock = Parts(device)
        for rows in (trees[:at_once * 4], learned):  # the first are a warm-up
            clock.restart()
            with as_trained(model, options["precision"]):
                map_trees(lambda batch: target_log_probs(model, batch), rows, batches.length, at_once, device, True)
            clock.end("reference")
        more = {"reference_seconds": clock.medians()["reference_seconds"]}
        with as_trained(model, options["precision"]):
            every = map_trees(lambda batch: target_log_probs(model, batch), trees, batches.length, at_once, device,
                              True)
        reference = {id(tree): [float(part.sum()) for part in np.split(values, [len(tree.responses[0])])]
                     for tree, values in zip(trees, every, strict=True)}

        def finish(batch: Batch) -> None:
            batch.extra["reference"] = torch.tensor([value for tree in batch.trees for value in reference[id(tree)]])

        batches.finish = finish
    trainer = Trainer(model, Optimization(learning_rate=given.LEARNING_RATE, schedule="constant", warmup=0.0), 10**6,
                      options["precision"], compiled=options.get("compile", False))
    objective = Pairs() if dpo else LanguageModeling()
    seconds, metrics = timed(lambda step: trainer.step(step, batches(step, rows=at_once), objective), plan, device)
    whole = seconds + more.get("reference_seconds", 0.0)
    return {"tokens_per_second": sum(map(len, learned)) / whole,
            "operations_per_second": given.operations(shape, learned, 3 + dpo) / whole, "loss": metrics["loss"], **more,
            "update_seconds": seconds / plan.steps}


class PolicyAndValue(nn.Module):
    """The two models that PPO trains."""

    def __init__(self, policy: LanguageModel, value: RewardModel) -> None:
        super().__init__()
        self.policy, self.value = policy, value


def values_of(value: Any, batch: Batch) -> Tensor:
    """The value of the state before each response token, ``[N]``."""
    found: Tensor = value.score(hidden_states(value.model, batch)[batch.sources]).squeeze(-1).float()
    return found


class Clipped(Objective):
    """PPO's losses, a batch for each of its two models, or GRPO's, with the metrics that their stages log."""

    weights = {"policy_loss": 1.0, "value_loss": given.VALUE, "kl_loss": given.KL}

    def __call__(self, model: Any, batch: Batch) -> dict[str, Total]:
        """Sums over tokens."""
        extra = batch.extra
        if "returns" in extra:
            values = values_of(model.value, batch)
            return {"value_loss": Total(value_losses(values, extra["values"], extra["returns"], given.CLIP).sum(),
                                        "value_tokens")}
        policy = getattr(model, "policy", model)
        hidden = hidden_states(policy.model, batch)[batch.sources]
        log_probs = token_log_probs(hidden, policy.lm_head.weight, batch.targets)
        losses, ratios = policy_losses(log_probs, extra["log_probs"], extra["advantages"], given.CLIP)
        with torch.no_grad():
            changes, entropy = (ratios - 1).abs(), entropies(hidden, policy.lm_head.weight).sum()
        drift = {"kl_loss": Total(kl_penalties(log_probs, extra["reference"]).sum(), "tokens")
                 } if "reference" in extra else {}
        return {"policy_loss": Total(losses.sum(), "tokens"), **drift, "entropy": Total(entropy, "tokens"),
                "ratio_error": Total(changes.sum(), "tokens")}


def microbatches(trees: Sequence[Tree], arrays: dict[str, list[np.ndarray]], chosen: Sequence[int], length: int,
                 rows: int) -> list[Batch]:
    """Some of the trees with their arrays, packed into microbatches of at most so many rows."""
    parts: list[Tree] = []
    values: dict[str, list[np.ndarray]] = {name: [] for name in arrays}
    for number in chosen:
        split = split_tree(trees[number], length)
        ends = np.cumsum([sum(map(len, part.responses)) for part in split])[:-1]
        parts += split
        for name, array in arrays.items():
            values[name] += np.split(array[number], ends)
    every, batches = pack(list(map(len, parts)), length), []
    for start in range(0, len(every), rows):
        group = every[start:start + rows]
        batch = make_batch([[parts[i] for i in row] for row in group], length)
        batch.extra = {name: torch.from_numpy(np.concatenate([array[i] for row in group for i in row]).astype(
            np.float32)) for name, array in values.items()}
        batches.append(batch)
    return batches


def split_by_model(batches: Sequence[Batch]) -> list[Batch]:
    """Each of PPO's batches as one for the policy and one for the value model."""
    split = []
    for batch in batches:
        split.append(replace(batch, extra={name: batch.extra[name] for name in ("log_probs", "advantages")}))
        split.append(replace(batch, extra={name: batch.extra[name] for name in ("values", "returns")},
                             counts={"value_tokens": batch.counts["tokens"]}))
    return split


def reinforced(options: dict[str, Any], shape: Shape, plan: Plan, device: torch.device) -> dict[str, float]:
    """PPO or GRPO."""
    ppo = options["method"] == "ppo"
    count, samples = (plan.episodes, 1) if ppo else (plan.groups, plan.samples)
    policy = decoder(shape, plan.positions, device)
    reference = copy.deepcopy(policy).eval()
    model = PolicyAndValue(policy, RewardModel.from_language_model(policy, 0).to(device)) if ppo else policy
    trainer = Trainer(model, Optimization(learning_rate=given.LEARNING_RATE, epsilon=1e-5, schedule="constant",
                                          warmup=0.0), 10**6, options["precision"])
    length = plan.prompt + samples * plan.new
    at_once = max(1, tokens_at_once(policy.config) // length)

    def over_tokens(compute: Callable[[Any, Batch], Tensor], of: Any, trees: Sequence[Tree]) -> list[np.ndarray]:
        def in_precision(batch: Batch) -> Tensor:
            with autocast(options["precision"], device):
                return compute(of, batch)
        return map_trees(in_precision, trees, length, at_once, device, True)

    clock, trees, update, engines = Parts(device), list[Tree](), 0, Engines()
    for iteration in range(1 + plan.iterations):
        model.eval()
        clock.restart()
        asked = given.questions(plan, shape.vocabulary, count, iteration)
        with autocast(options["sampling"], device):
            said = generate(policy, asked, Sampling(max_new_tokens=plan.new, seed=iteration), [], samples,
                            engines=engines)
        trees = [Tree(np.array(prompt), tuple(np.array(one.tokens) for one in group))
                 for prompt, group in zip(asked, said, strict=True)]
        clock.end("sampling")
        rewards = given.scores(count, samples, iteration)
        arrays = {"log_probs": over_tokens(target_log_probs, policy, trees)}
        before = over_tokens(target_log_probs, reference, trees)
        if ppo:
            arrays |= learned_values(trees, arrays["log_probs"], before, over_tokens(values_of, model.value, trees),
                                     rewards)
        else:
            arrays |= {"reference": before, "advantages": [
                np.repeat(group_advantages(one), [len(response) for response in tree.responses])
                for one, tree in zip(rewards, trees, strict=True)]}
        clock.end("scoring")
        for epoch in range(given.EPOCHS[options["method"]]):
            order = np.random.default_rng(epoch).permutation(count)
            for share in range(given.MINIBATCHES):
                batches = microbatches(trees, arrays, order[share::given.MINIBATCHES].tolist(), length, at_once)
                trainer.step(update, split_by_model(batches) if ppo else batches, Clipped())
                update += 1
        clock.end("update")
    parts = clock.medians()
    passes = 3 * (1 + ppo) * given.EPOCHS[options["method"]]
    return {"tokens_per_second": count * samples * plan.new / parts["iteration_seconds"], **parts,
            "operations_per_second": given.operations(shape, trees, passes) / parts["update_seconds"]}


def learned_values(trees: Sequence[Tree], log_probs: list[np.ndarray], reference: list[np.ndarray],
                   values: list[np.ndarray], rewards: np.ndarray) -> dict[str, list[np.ndarray]]:
    """PPO's values, advantages and returns of each tree's one response."""
    found = []
    for now, before, value, score in zip(log_probs, reference, values, rewards[:, 0], strict=True):
        each = -given.KL * (now - before).astype(np.float64)
        each[-1] += score
        found.append(generalised_advantages(each, value, 1.0, 0.95))
    flat = whiten(np.concatenate(found))
    return {"values": values, "advantages": np.split(flat, np.cumsum(list(map(len, found)))[:-1]),
            "returns": [advantage + value for advantage, value in zip(found, values, strict=True)]}
