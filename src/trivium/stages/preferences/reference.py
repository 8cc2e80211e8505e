"""What DPO and KTO share: the model that training starts from is measured once, as the reference; then it is trained,
and measured again on held-out rankings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from trivium.files import Row
from trivium.model.adapter_settings import AdapterSettings
from trivium.model.adapters.folder import weights_digest
from trivium.objectives.language_modeling import token_log_probs
from trivium.stage import Context
from trivium.stages.models import adapt, load_language_model, save_trained, without_adapter
from trivium.stages.preferences.rankings import fitting
from trivium.stages.preferences.reward_statistics import accuracy
from trivium.stages.training import FromModel, run_training
from trivium.training.batch import Batch, Tree, hidden_states, map_trees
from trivium.training.epochs import PackedEpochs, contents_of
from trivium.training.machine import prepare, resolve_precision
from trivium.training.objective import Objective
from trivium.training.precision import as_trained
from trivium.training.settings import NumberFormat


@dataclass(frozen=True)
class Reference:
    """The log-probabilities of responses under the model that training starts from, in nats: those of each tree's
    responses are an array ``[K]`` of ``values``."""

    trees: Sequence[Tree]
    values: Sequence[np.ndarray]
    by_tree: dict[int, np.ndarray] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        by_tree = {id(tree): values for tree, values in zip(self.trees, self.values, strict=True)}
        object.__setattr__(self, "by_tree", by_tree)

    def __call__(self, trees: Sequence[Tree]) -> torch.Tensor:
        """Those of some of the trees, one after another, ``[S]``."""
        return torch.from_numpy(np.concatenate([np.zeros(0, np.float32), *(self.by_tree[id(tree)] for tree in trees)]))


NO_REFERENCE = Reference((), ())
"""That of a loss that takes none."""


class MakeObjective(Protocol):
    """What is minimised, once the reference is known."""

    def __call__(self, batches: PackedEpochs, reference: Reference) -> Objective:
        """The objective; ``batches.finish`` is to give each batch what the objective needs of it."""


@dataclass(frozen=True)
class Trained:
    """What :func:`with_reference` tells of a finished training."""

    sequences: int
    """Trees that were trained on."""
    steps: int
    loss: float | None
    """Of the last update."""
    precision: NumberFormat
    """What the products were made in."""
    preference_accuracy: dict[str, Any]
    """The share of held-out pairs that the change of log-probabilities orders as people did; its ``value`` is None
    where no held-out ranking could be measured."""


def with_reference(settings: FromModel, context: Context, make_objective: MakeObjective, heldout: Sequence[Row], *,
                   epochs: float, adapter: AdapterSettings | None, mean: bool = False, needs_reference: bool = True,
                   measured: Callable[[Sequence[Tree]], Sequence[Sequence[Tree]]] = lambda trees: [trees],
                   contents: Callable[[Sequence[Tree]], str] = contents_of) -> Trained | None:
    """Measure the reference once, train, save, and measure the accuracy on ``heldout`` rankings. None in all processes
    but the first.

    ``measured`` gives, of the training trees, the groups of trees whose responses the reference is measured on;
    ``contents`` digests them. Log-probabilities are summed over a response's tokens, or their ``mean``. Without
    ``needs_reference`` nothing is measured before training, and held-out responses are ordered by what the policy says
    alone."""
    device = prepare(context.threads)
    model, tokenizer = load_language_model(context.inputs["model"])
    model.to(device)
    attached = adapt(model, adapter, context)
    length = min(settings.length, model.config.max_positions)
    precision = resolve_precision(settings.precision, device)
    batches: PackedEpochs
    batches, _ = settings.training_data(context)
    judged = fitting(tokenizer, heldout, length, context)
    judged_trees = [tree for tree, _ in judged]

    def log_probs(trees: Sequence[Tree]) -> list[np.ndarray]:
        model.eval()
        with as_trained(model, precision):
            return map_trees(lambda batch: response_log_probs(model, batch, mean), trees, length, settings.rows, device,
                             per_token=False)

    reference, before = NO_REFERENCE, [np.zeros(len(tree.responses), np.float32) for tree in judged_trees]
    if needs_reference:
        with without_adapter(attached):
            groups = measured(batches.trees)
            values = [found for group in groups for found in log_probs(group)]
            reference = Reference([tree for group in groups for tree in group], values)
            before = log_probs(judged_trees)
    objective = make_objective(batches, reference)
    steps = max(1, round(epochs * batches.steps_per_epoch))
    outcome = run_training(model, objective, batches, steps, settings, context,
                           weights_digest(context.inputs["model"]), contents(batches.trees))
    if not outcome.leader:
        return None
    model = outcome.model
    changes = [list(map(float, new - old)) for new, old in zip(log_probs(judged_trees), before, strict=True)]
    save_trained(model, attached, tokenizer, context.inputs["model"], context, settings.save_dtype)
    return Trained(len(batches.trees), steps, outcome.metrics.get("loss"), outcome.precision,
                   accuracy([row for _, row in judged], changes))


def response_log_probs(model: Any, batch: Batch, mean: bool = False) -> torch.Tensor:
    """The log-probability of each whole response of a batch, ``[S]`` in nats: summed over its tokens, or their
    ``mean``."""
    hidden = hidden_states(model.model, batch)
    log_probs = token_log_probs(hidden[batch.sources], model.lm_head.weight, batch.targets)
    nothing = log_probs.new_zeros(len(batch.ends))
    sums = nothing.index_add(0, batch.owners, log_probs)
    return sums / nothing.index_add(0, batch.owners, torch.ones_like(log_probs)).clamp(min=1) if mean else sums
