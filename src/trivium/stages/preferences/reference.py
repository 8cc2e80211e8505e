"""What DPO and KTO share: the model that training starts from is measured once, as the reference; then it is trained,
and measured again on held-out rankings."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from trivium.errors import counted
from trivium.files import Row
from trivium.model.adapter_settings import AdapterSettings
from trivium.model.adapters.folder import weights_digest
from trivium.objectives.language_modeling import token_log_probs
from trivium.stage import Context
from trivium.stages.chat_settings import FromChat
from trivium.stages.kept import kept, weights_in_memory
from trivium.stages.models import adapt, save_trained, without_adapter
from trivium.stages.preferences.rankings import fitting
from trivium.stages.preferences.reward_statistics import accuracy
from trivium.stages.training import run_training
from trivium.training.at_once import tokens_at_once
from trivium.training.batch import Batch, Tree, hidden_states, map_trees
from trivium.training.epochs import Limit, PackedEpochs, contents_of, longest_branch
from trivium.training.machine import prepare, resolve_precision
from trivium.training.objective import Objective, Total
from trivium.training.precision import as_trained
from trivium.training.settings import NumberFormat


@dataclass(frozen=True)
class Reference:
    """The log-probabilities of responses under the model that training starts from, in nats: those of each tree's
    responses are an array ``[K]`` of ``values``, and those of its responses' tokens an array of ``token_values``."""

    trees: Sequence[Tree]
    values: Sequence[np.ndarray]
    token_values: Sequence[np.ndarray] = ()
    places: dict[int, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", {id(tree): place for place, tree in enumerate(self.trees)})

    def __call__(self, trees: Sequence[Tree]) -> torch.Tensor:
        """Those of some of the trees, one after another, ``[S]``."""
        return self._joined(self.values, trees)

    def tokens(self, trees: Sequence[Tree]) -> torch.Tensor:
        """Those of the tokens of some of the trees' responses, one after another, ``[N]``."""
        return self._joined(self.token_values, trees)

    def _joined(self, values: Sequence[np.ndarray], trees: Sequence[Tree]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([np.zeros(0, np.float32),
                                                *(values[self.places[id(tree)]] for tree in trees)]))


NO_REFERENCE = Reference((), ())
"""That of a loss that takes none."""

RUN_AWAY = 0.25
"""Nats a token from its reference from which a model is said to have run away. A run of the quickstart that was ruined
was 0.4 away, a sound one 0.07."""


class MakeObjective(Protocol):
    """What is minimised, once the reference is known."""

    def __call__(self, batches: PackedEpochs, reference: Reference) -> Objective:
        """The objective; ``batches.finish`` is to give each batch what the objective needs of it."""


@dataclass(frozen=True)
class Trained:
    """What :func:`with_reference` tells of a finished training."""

    steps: int
    loss: float | None
    """Of the last update."""
    precision: NumberFormat
    """What the products were made in."""
    length: int
    """Tokens in a row."""
    rows: int
    """Rows in a batch."""
    drift: dict[str, float]
    """``kl`` and ``kl_per_token`` of the last update, where they are known (:func:`drift`)."""
    preference_accuracy: dict[str, Any]
    """The share of held-out pairs that the change of log-probabilities orders as people did; its ``value`` is None
    where no held-out ranking could be measured."""


def with_reference(settings: FromChat, context: Context, make_objective: MakeObjective, heldout: Sequence[Row], *,
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
    model, tokenizer = settings.load_policy(context)
    model.to(device)
    attached = adapt(model, adapter, context)
    precision = resolve_precision(settings.precision, device)
    batches: PackedEpochs
    batches, _ = settings.training_data(context)
    judged = fitting(tokenizer, heldout, Limit(settings.length, model.config.max_positions), context)
    judged_trees = [tree for tree, _ in judged]
    length = max(batches.length, *map(longest_branch, judged_trees), 0)
    rows = settings.rows or max(1, tokens_at_once(model.config) // length)

    def token_log_probs_of(trees: Sequence[Tree], name: str, weights: str, leader: bool) -> list[np.ndarray]:
        def compute(progress: Callable[[int, int], None]) -> list[np.ndarray]:
            model.eval()
            with as_trained(model, precision):
                return map_trees(lambda batch: target_log_probs(model, batch), trees, length, rows, device,
                                 per_token=True, progress=progress)

        settings_of = {"length": length, "rows": rows, "precision": precision, "device": str(device)}
        return kept(context, name, weights, trees, settings_of, compute, leader)

    def log_probs(trees: Sequence[Tree], name: str, weights: str, leader: bool) -> list[np.ndarray]:
        return [of_responses(tree, found, mean, device)
                for tree, found in zip(trees, token_log_probs_of(trees, name, weights, leader), strict=True)]

    reference, before = NO_REFERENCE, [np.zeros(len(tree.responses), np.float32) for tree in judged_trees]
    if needs_reference:
        with without_adapter(attached):
            groups, weights = measured(batches.trees), weights_in_memory(model)
            first = int(os.environ.get("RANK", "0")) == 0
            known = [tree for group in groups for tree in group]
            tokens = [found for number, group in enumerate(groups) for found in token_log_probs_of(
                group, f"reference {number + 1} of {len(groups)}" if len(groups) > 1 else "reference", weights, first)]
            reference = Reference(known, [of_responses(tree, found, mean, device)
                                          for tree, found in zip(known, tokens, strict=True)], tokens)
            before = log_probs(judged_trees, "reference of held-out rankings", weights, first)
    objective = make_objective(batches, reference)
    steps = max(1, round(epochs * batches.steps_per_epoch))
    outcome = run_training(model, objective, batches, steps, settings, context,
                           weights_digest(context.inputs["model"]), contents(batches.trees),
                           watch=RunAway(context.progress.say))
    if not outcome.leader:
        return None
    model = outcome.model
    changes = [list(map(float, new - old)) for new, old in zip(
        log_probs(judged_trees, "held-out rankings", weights_in_memory(model), True), before, strict=True)]
    save_trained(model, attached, tokenizer, context.inputs["model"], context, settings.save_dtype)
    far: dict[str, float] = {name: outcome.metrics[name] for name in ("kl", "kl_per_token") if name in outcome.metrics}
    return Trained(steps, outcome.metrics.get("loss"), outcome.precision, batches.length, batches.rows, far,
                   accuracy([row for _, row in judged], changes))


class RunAway:
    """Says once when a model in training has run away from its reference."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self.said = say, False

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Look at the metrics of an update."""
        far = metrics.get("kl_per_token", 0.0)
        if far > RUN_AWAY and not self.said:
            self.said = True
            self.say(f"WARNING: after {counted(step + 1, 'update')} the model is {far:.2f} nats a token "
                     f"({metrics['kl']:.1f} a response) from its reference: it runs away, and may lose its words; "
                     "lower `optimization.learning_rate`, raise `beta`, or take fewer `epochs`")


def target_log_probs(model: Any, batch: Batch) -> torch.Tensor:
    """The log-probability of each target of a batch, ``[N]`` in nats."""
    hidden = hidden_states(model.model, batch)
    return token_log_probs(hidden[batch.sources], model.lm_head.weight, batch.targets)


def summed(log_probs: torch.Tensor, owners: torch.Tensor, count: int, mean: bool = False) -> torch.Tensor:
    """Log-probabilities of tokens ``[N]`` summed over each of ``count`` responses, or their ``mean``, ``[S]``."""
    nothing = log_probs.new_zeros(count)
    sums = nothing.index_add(0, owners, log_probs)
    return sums / nothing.index_add(0, owners, torch.ones_like(log_probs)).clamp(min=1) if mean else sums


def token_counts(batch: Batch) -> torch.Tensor:
    """How many targets each of a batch's responses has, ``[S]``."""
    return batch.owners.new_zeros(len(batch.ends)).index_add(0, batch.owners, torch.ones_like(batch.owners))


def summed_in_pairs(log_probs: torch.Tensor, batch: Batch, tail_weight: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of tokens ``[N]`` summed over the chosen and over the rejected response of each pair, ``[P]``
    each, where those beyond the length of the pair's other response weigh ``tail_weight`` (Liu et al. 2024,
    'Length Desensitization in Direct Preference Optimization')."""
    sizes, length = token_counts(batch), batch.tokens.shape[1]
    places = torch.arange(len(batch.owners), device=batch.owners.device) - (sizes.cumsum(0) - sizes)[batch.owners]
    rows = log_probs.new_zeros(len(sizes), length).index_put((batch.owners, places), log_probs)
    along = torch.arange(length, device=sizes.device)

    def weighed(responses: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        tail = (along >= sizes[others][:, None]).to(rows.dtype)
        return (rows[responses] * (1 - (1 - tail_weight) * tail)).sum(1)

    winners, losers = batch.extra["winners"], batch.extra["losers"]
    return weighed(winners, losers), weighed(losers, winners)


def response_log_probs(model: Any, batch: Batch, mean: bool = False) -> torch.Tensor:
    """The log-probability of each whole response of a batch, ``[S]`` in nats: summed over its tokens, or their
    ``mean``."""
    return summed(target_log_probs(model, batch), batch.owners, len(batch.ends), mean)


def of_responses(tree: Tree, log_probs: np.ndarray, mean: bool, device: torch.device) -> np.ndarray:
    """Log-probabilities of a tree's tokens as those of its responses, ``[K]``, summed as :func:`summed` does it: so
    nothing has changed before the first update."""
    owners = np.repeat(np.arange(len(tree.responses)), [len(response) for response in tree.responses])
    return summed(torch.from_numpy(log_probs).to(device), torch.from_numpy(owners).to(device), len(tree.responses),
                  mean).cpu().numpy()


def drift(log_probs: torch.Tensor, batch: Batch) -> dict[str, Total]:
    """How far the policy is from the reference on a batch's responses, in nats: ``kl`` a response and ``kl_per_token``.

    Of each token's log-ratio r the estimate takes ``exp(-|r|) - 1 + |r|``. That is Schulman's k3 (2020, 'Approximating
    KL divergence') with the less likely of both models in the numerator: half of r squared while the models are near,
    as KL is for tokens that either of them wrote, and never above ``|r|``, so that a few tokens cannot make it
    enormous. ``log_probs [N]`` are the policy's. Nothing without a reference."""
    if "reference_tokens" not in batch.extra:
        return {}
    ratios = (log_probs.detach() - batch.extra["reference_tokens"]).abs()
    total = ((-ratios).exp() - 1 + ratios).sum()
    return {"kl": Total(total, "read"), "kl_per_token": Total(total, "tokens")}
