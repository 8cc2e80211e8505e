"""Made-up groups of responses, and what the objectives of `grpo` make of them."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import torch

from trivium.stages.reinforcement.grpo import GroupSurrogate, advantages_of, importance
from trivium.stages.reinforcement.rollout import Rollout, microbatches, split_by_response
from trivium.training.batch import Tree
from trivium.training.parallel import World

LONGEST = 9
SAMPLES = 4


def groups_of(policy):
    """Ragged responses to three prompts, scores, and their tokens' log-probabilities under four models: the policy, it
    before it moved, its reference, and what sampled them."""
    rng = np.random.default_rng(1)
    trees = [Tree(rng.integers(0, 40, size), tuple(rng.integers(0, 40, n) for n in lengths))
             for size, lengths in ((3, (1, 9, 4, 2)), (5, (7, 7, 1, 3)), (2, (2, 5, 8, 6)))]
    now = [torch.cat(parts).detach().numpy() for parts in alone(policy, trees)[0]]
    old, reference, sampled = ([(each + rng.normal(0, width, len(each))).astype(np.float32) for each in now]
                               for width in (0.2, 0.5, 0.1))
    scores = [rng.normal(size=SAMPLES) for _ in trees]
    return SimpleNamespace(trees=trees, now=now, old=old, reference=reference, sampled=sampled, scores=scores)


def alone(policy, trees, temperature=1.0):
    """Log-probabilities of the tokens of each response to each prompt, in float64, each response computed by itself
    behind its prompt; the entropies at its tokens; and the model, whose weights they can be derived by."""
    model = copy.deepcopy(policy).double()
    found, spread = [], []
    for tree in trees:
        found.append([])
        for response in tree.responses:
            logits = model(torch.from_numpy(np.concatenate([tree.prompt, response]))[None])[0, len(tree.prompt) - 1:-1]
            every = torch.log_softmax(logits.double() / temperature, -1)
            spread.append(-(every.exp() * every).sum(-1))
            found[-1].append(every.gather(1, torch.from_numpy(response)[:, None])[:, 0])
    return found, spread, model


def flat(trees, arrays):
    """Arrays over the tokens of trees, as one for each response, in float64."""
    return [torch.from_numpy(part).double() for tree, array in zip(trees, arrays, strict=True)
            for part in split_by_response(tree, array)]


def rollout_of(made, settings):
    """What is learned from, as the stage makes it."""
    penalties = settings.penalties(made.old, made.reference)
    advantages = advantages_of(settings.chosen.advantages, made.trees, made.scores, penalties, World())
    arrays = {"log_probs": made.old, "advantages": advantages}
    if settings.chosen.kl_coefficient and penalties is None:
        arrays["reference"] = made.reference
    if settings.importance_cap:
        sampled = [split_by_response(tree, each) for tree, each in zip(made.trees, made.sampled, strict=True)]
        arrays["importance"], _ = importance(sampled, made.old, settings.importance_cap)
    return Rollout(made.trees, arrays)


def learned(policy, settings, rollout, length=200, rows=None):
    """The loss, its gradient by the names of weights, and how many microbatches there were, added up as a trainer
    does."""
    model = copy.deepcopy(policy)
    objective = GroupSurrogate(settings)
    batches = microbatches(rollout, range(len(rollout.trees)), length, rows, World(), torch.device("cpu"))
    counts = {name: sum(batch.counts[name] for batch in batches) for name in ("tokens", "responses")}
    loss = torch.zeros(())
    for batch in batches:
        totals = objective(model, batch)
        loss = loss + sum(weight * totals[name].value / counts[totals[name].per]
                          for name, weight in objective.weights.items() if name in totals)
    loss.backward()
    return float(loss.detach()), {name: weight.grad for name, weight in model.named_parameters()}, len(batches)
