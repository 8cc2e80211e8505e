"""Direct preference optimisation: the policy itself as the reward model (Rafailov et al. 2023); IPO too (Azar et al. 2023)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from trivium.objectives.language_modeling import token_log_probs
from trivium.objectives.preference import dpo_losses, ipo_losses
from trivium.pipeline import Context
from trivium.stages.common import (
    adapt,
    as_without,
    contents_of,
    load_language_model,
    map_trees,
    run_training,
    save_trained,
    weights_digest,
)
from trivium.stages.reward import accuracy, add_pairs, ranked_tree, rankings, training_data
from trivium.stages.settings import Dpo
from trivium.training.batch import Batch, Tree, hidden_states
from trivium.training.loop import Total
from trivium.training.machine import prepare, resolve_precision
from trivium.training.precision import as_trained

VERSION = 3
PARALLEL = True


def response_log_probs(model: Any, batch: Batch, mean: bool = False) -> torch.Tensor:
    """The log-probability of each whole response of a batch, ``[S]`` in nats: summed over its tokens, or their ``mean``."""
    hidden = hidden_states(model.model, batch)
    log_probs = token_log_probs(hidden[batch.sources], model.lm_head.weight, batch.targets)
    nothing = log_probs.new_zeros(len(batch.ends))
    sums = nothing.index_add(0, batch.owners, log_probs)
    return sums / nothing.index_add(0, batch.owners, torch.ones_like(log_probs)).clamp(min=1) if mean else sums


class DirectPreference:
    """DPO or IPO over all pairs of each ranking; every response is encoded once, every prompt computed once."""

    weights = {"loss": 1.0}

    def __init__(self, settings: Dpo) -> None:
        self.settings = settings

    def __call__(self, model: Any, batch: Batch) -> dict[str, Total]:
        """The mean over prompts of the mean over a prompt's pairs."""
        s, reference = self.settings, batch.extra["reference"]
        policy = response_log_probs(model, batch, s.length_normalised)
        winners, losers = batch.extra["winners"], batch.extra["losers"]
        four = policy[winners], policy[losers], reference[winners], reference[losers]
        losses, margins = ipo_losses(*four, s.beta) if s.loss == "ipo" else dpo_losses(*four, s.beta, s.label_smoothing)
        return {"loss": Total((losses * batch.extra["pair_weights"]).sum(), "trees"),
                "accuracy": Total((margins > 0).float().sum(), "pairs"), "margin": Total(margins.sum(), "pairs")}


def run(settings: Dpo, context: Context) -> dict[str, object]:
    """Compute the reference's log-probabilities once, train, and measure held-out preference accuracy."""
    device = prepare(context.threads)
    model, tokenizer = load_language_model(context.inputs["model"])
    model.to(device)
    attached = adapt(model, settings.adapter, context)
    length = min(settings.length, model.config.max_positions)
    precision = resolve_precision(settings.precision, device)
    batches, _ = training_data(settings, context)
    trees = list(batches.trees)
    heldout = [(ranked_tree(tokenizer, row), row) for row in rankings(context.inputs["preferences"], context) if row["split"] == "heldout"]
    fitting = [(tree, row) for tree, row in heldout if len(tree) <= length]
    if len(fitting) < len(heldout):
        context.progress.say(f"{len(heldout) - len(fitting)} of {len(heldout)} held-out rankings are longer than {length} tokens and were left out")
    heldout = fitting

    def all_log_probs(trees: list[Tree]) -> list[np.ndarray]:
        def compute(batch: Batch) -> torch.Tensor:
            return response_log_probs(model, batch, settings.length_normalised)
        model.eval()
        with as_trained(model, precision):
            return map_trees(compute, trees, length, settings.rows, device, per_token=False)

    with as_without(attached):
        first, before = all_log_probs(trees), all_log_probs([tree for tree, _ in heldout])
    reference = {id(tree): values for tree, values in zip(trees, first, strict=True)}

    def finish(batch: Batch) -> None:
        add_pairs(batch)
        batch.extra["reference"] = torch.from_numpy(np.concatenate([*(reference[id(tree)] for tree in batch.trees), np.zeros(0, np.float32)]))

    batches.finish = finish
    steps = max(1, round(settings.epochs * batches.steps_per_epoch))
    outcome = run_training(model, DirectPreference(settings), batches, steps, settings, context,
                           weights_digest(context.inputs["model"]), contents_of(trees))
    if not outcome.leader:
        return {}
    model = outcome.model
    after = all_log_probs([tree for tree, _ in heldout])
    margins = [list(map(float, new - old)) for new, old in zip(after, before, strict=True)]
    save_trained(model, attached, tokenizer, context.inputs["model"], context)
    return {"rankings": len(trees), "steps": steps, "loss": outcome.metrics.get("loss"), "precision": outcome.precision,
            "preference_accuracy": accuracy([row for _, row in heldout], margins)}
