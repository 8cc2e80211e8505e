"""Direct preference optimisation: the policy itself as the reward model (Rafailov et al. 2023); IPO too (Azar et al.
2023)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from trivium.model.adapter_settings import AdapterSettings
from trivium.model.adapters.folder import weights_digest
from trivium.objectives.language_modeling import token_log_probs
from trivium.objectives.preference import dpo_losses, ipo_losses
from trivium.stage import Context, Figure, Input, Panel, Title
from trivium.stages.models import adapt, as_without, load_language_model, save_trained
from trivium.stages.preferences.reward import accuracy, add_pairs, ranked_batches, ranked_tree, rankings
from trivium.stages.training import Looped, run_training
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.batch import Batch, Tree, hidden_states, map_trees
from trivium.training.epochs import PackedEpochs, contents_of
from trivium.training.machine import prepare, resolve_precision
from trivium.training.objective import Total
from trivium.training.precision import as_trained


class Dpo(Looped):
    """Direct preference optimisation from the same rankings."""

    kind: ClassVar[str] = "dpo"
    version: ClassVar[int] = 3
    title: ClassVar[Title] = Title("direct preferences (DPO)", "直接偏好优化（DPO）", "judge")
    figures: ClassVar[tuple[Figure, ...]] = (
        Figure("accuracy", "pairs ordered right", "成对排序正确率"),
        Figure("margin", "margin", "间隔"),
    )
    panel: ClassVar[Panel] = Panel(curves=("accuracy", "margin"))
    every_process: ClassVar[bool] = True
    model: Input = "sft"
    """The model to start from, and the reference."""
    preferences: Input = "preferences"
    """A stage with rankings."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the rankings."""
    beta: float = Field(0.1, gt=0)
    """Strength of the implied KL penalty."""
    loss: Literal["sigmoid", "ipo"] = "sigmoid"
    """sigmoid: DPO's own; ipo: a squared distance that does not push certain preferences without end (Azar et al.
    2023)."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """The probability that a preference is labelled the wrong way round; for sigmoid."""
    length_normalised: bool = False
    """Take the mean log-probability of a response's tokens instead of their sum."""
    adapter: AdapterSettings | None = None
    """Train an adapter; the reference is then the same weights with it off. null trains all weights."""

    @model_validator(mode="after")
    def _smoothing_is_for_sigmoid(self) -> Dpo:
        if self.loss == "ipo" and self.label_smoothing:
            raise ValueError("label_smoothing is for the loss `sigmoid`; ipo has none")
        return self

    def training_data(self, context: Context) -> tuple[PackedEpochs, ChatTokenizer]:
        """The rankings as batches, and the tokenizer that made them."""
        return ranked_batches(self, context)

    def run(self, context: Context) -> dict[str, object]:
        """Compute the reference's log-probabilities once, train, and measure held-out preference accuracy."""
        device = prepare(context.threads)
        model, tokenizer = load_language_model(context.inputs["model"])
        model.to(device)
        attached = adapt(model, self.adapter, context)
        length = min(self.length, model.config.max_positions)
        precision = resolve_precision(self.precision, device)
        batches, _ = self.training_data(context)
        trees = list(batches.trees)
        heldout = [(ranked_tree(tokenizer, row), row) for row in rankings(context.inputs["preferences"], context)
                   if row["split"] == "heldout"]
        fitting = [(tree, row) for tree, row in heldout if len(tree) <= length]
        if len(fitting) < len(heldout):
            context.progress.say(
                f"{len(heldout) - len(fitting)} of {len(heldout)} held-out rankings are longer than {length} tokens "
                "and were left out"
            )
        heldout = fitting

        def all_log_probs(trees: list[Tree]) -> list[np.ndarray]:
            def compute(batch: Batch) -> torch.Tensor:
                return response_log_probs(model, batch, self.length_normalised)
            model.eval()
            with as_trained(model, precision):
                return map_trees(compute, trees, length, self.rows, device, per_token=False)

        with as_without(attached):
            first, before = all_log_probs(trees), all_log_probs([tree for tree, _ in heldout])
        reference = {id(tree): values for tree, values in zip(trees, first, strict=True)}

        def finish(batch: Batch) -> None:
            add_pairs(batch)
            batch.extra["reference"] = torch.from_numpy(
                np.concatenate([*(reference[id(tree)] for tree in batch.trees),
                                np.zeros(0, np.float32)]))

        batches.finish = finish
        steps = max(1, round(self.epochs * batches.steps_per_epoch))
        outcome = run_training(model, DirectPreference(self), batches, steps, self, context,
                               weights_digest(context.inputs["model"]), contents_of(trees))
        if not outcome.leader:
            return {}
        model = outcome.model
        after = all_log_probs([tree for tree, _ in heldout])
        margins = [list(map(float, new - old)) for new, old in zip(after, before, strict=True)]
        save_trained(model, attached, tokenizer, context.inputs["model"], context)
        return {"rankings": len(trees), "steps": steps, "loss": outcome.metrics.get("loss"), "precision": outcome.precision,
                "preference_accuracy": accuracy([row for _, row in heldout], margins)}


def response_log_probs(model: Any, batch: Batch, mean: bool = False) -> torch.Tensor:
    """The log-probability of each whole response of a batch, ``[S]`` in nats: summed over its tokens, or their
    ``mean``."""
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
