"""Direct preference optimisation: the policy itself as the reward model (Rafailov et al. 2023), by any loss of
:mod:`trivium.objectives.preference`, and by losses of the user's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field, ValidationInfo, field_validator

from trivium.extensions import code_files, file_of
from trivium.model import LanguageModel
from trivium.model.adapter_settings import AdapterSettings
from trivium.model.adapters import attach
from trivium.objectives.preference import find_preference_loss, implicit_margins
from trivium.stage import Code, Context, Figure, Input, Panel, Title, refusing
from trivium.stages.chat_settings import FromChat
from trivium.stages.cost import Estimate
from trivium.stages.defaults import Usual
from trivium.stages.outlook import Cost, Outlook, Step
from trivium.stages.preferences.cost import cost_of_rankings
from trivium.stages.preferences.rankings import add_pairs, count_rankings, full_ranking, ordered_right, rankings
from trivium.stages.preferences.reference import (
    Reference,
    drift,
    summed,
    summed_in_pairs,
    target_log_probs,
    token_counts,
    with_reference,
)
from trivium.stages.preferences.reward import ranked_batches
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.batch import Batch
from trivium.training.epochs import PackedEpochs
from trivium.training.objective import Objective, Total

USUAL_BETA = 0.1
"""That of a loss that is measured before the model is known."""


class Dpo(FromChat):
    """Direct preference optimisation from the same rankings."""

    kind: ClassVar[str] = "dpo"
    version: ClassVar[int] = 6
    usual: ClassVar[str] = "dpo"
    title: ClassVar[Title] = Title("direct preferences (DPO)", "直接偏好优化（DPO）", "judge")
    figures: ClassVar[tuple[Figure, ...]] = (
        Figure("accuracy", "pairs ordered right", "成对排序正确率"),
        Figure("margin", "margin", "间隔"),
        Figure("kl", "nats a response from the reference", "每个回答偏离参考模型（奈特）"),
        Figure("kl_per_token", "nats a token from the reference", "每个词元偏离参考模型（奈特）"),
    )
    panel: ClassVar[Panel] = Panel(curves=("accuracy", "margin", "kl"))
    every_process: ClassVar[bool] = True
    model: Input = "sft"
    """The model to start from, and the reference."""
    preferences: Input = "preferences"
    """A stage with rankings."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the rankings."""
    beta: float | None = Field(None, gt=0)
    """Strength of the implied KL penalty. null: what the loss declares; else 0.1, and 0.3 for a model below 10 million
    parameters."""
    loss: Code = "sigmoid"
    """sigmoid: DPO's own. For labels that may be wrong: robust. Not to push certain preferences without end: ipo,
    hinge. That one good way of answering is enough: exo. That chosen responses stay likely: dpo_nll, dpop, apo_zero,
    bco, nca; apo_down where the model's own are better; sppo for rounds. Against a taste for length: ld_dpo, r_dpo,
    simpo. Without a reference: simpo, cpo, and orpo, for a model that has not been fine-tuned. docs/rlhf.md has a table
    of them. Or one of a plugin or an installed package by its name, or FILE.py:NAME: a function of (policy_chosen,
    policy_rejected, reference_chosen, reference_rejected, beta)."""
    loss_options: dict[str, bool | int | float | str] = Field({}, validate_default=True)
    """Further arguments of the loss, by name."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """The probability that a preference is labelled the wrong way round; for sigmoid, robust, exo, and any other loss
    that takes it. 0: what the loss begins with, 0.1 for robust, 0.001 for exo."""
    length_normalised: bool = False
    """Take the mean log-probability of a response's tokens instead of their sum. A loss may declare that it does."""
    tail_weight: float | None = Field(None, ge=0, le=1, validate_default=True)
    """What the tokens of the longer response of a pair weigh beyond the length of the shorter one, in sums (Liu et al.
    2024: alpha). null: what the loss declares, 0.5 for ld_dpo; else 1."""
    nll_coefficient: float | None = Field(None, ge=0)
    """How many times the negative log-likelihood of the chosen response, the mean over its tokens, is added to the loss
    (Pang et al. 2024, Llama 3). null: what the loss declares, 1 for cpo and orpo, 0.2 for dpo_nll; else 0."""
    adapter: AdapterSettings | None = None
    """Train an adapter; the reference is then the same weights with it off. null trains all weights."""

    @field_validator("loss")
    @classmethod
    def _a_loss(cls, loss: str) -> str:
        with refusing():
            find_preference_loss(loss)
        return loss

    @field_validator("loss_options")
    @classmethod
    def _options_of_the_loss(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "loss" in info.data:
            with refusing():
                find_preference_loss(info.data["loss"]).check(options)
        return options

    @field_validator("label_smoothing")
    @classmethod
    def _smoothing_of_the_loss(cls, smoothing: float, info: ValidationInfo) -> float:
        if smoothing and "loss" in info.data and "loss_options" in info.data:
            with refusing():
                options = info.data["loss_options"] | {"label_smoothing": smoothing}
                find_preference_loss(info.data["loss"]).check(options)
        return smoothing

    @field_validator("tail_weight")
    @classmethod
    def _tail_of_sums(cls, weight: float | None, info: ValidationInfo) -> float | None:
        if {"loss", "length_normalised"} <= set(info.data):
            loss = find_preference_loss(info.data["loss"])
            mean, tail = loss.mean or info.data["length_normalised"], loss.tail_weight if weight is None else weight
            if mean and tail < 1:
                raise ValueError(f"a tail weighs {tail:g} in sums, and log-probabilities are means here; leave out "
                                 "`length_normalised`, or take another `loss` or a `tail_weight` of 1")
        return weight

    @property
    def options(self) -> dict[str, Any]:
        """What the loss is given besides log-probabilities and ``beta``."""
        return {**self.loss_options, **({"label_smoothing": self.label_smoothing} if self.label_smoothing else {})}

    @property
    def mean(self) -> bool:
        """Whether log-probabilities are means over a response's tokens."""
        return self.length_normalised or find_preference_loss(self.loss).mean

    @property
    def tail(self) -> float:
        """What tokens beyond the length of a pair's other response weigh."""
        return find_preference_loss(self.loss).tail_weight if self.tail_weight is None else self.tail_weight

    @property
    def nll(self) -> float:
        """How many times the negative log-likelihood of chosen responses is added."""
        declared = find_preference_loss(self.loss).nll_coefficient
        return declared if self.nll_coefficient is None else self.nll_coefficient

    def usual_settings(self, inputs: Mapping[str, Any]) -> tuple[Usual, int]:
        """What the table says, with the beta and the rate that the loss declares."""
        known, parameters = super().usual_settings(inputs)
        loss = find_preference_loss(self.loss)
        return replace(known, beta=known.beta if loss.beta is None else loss.beta,
                       learning_rate=known.learning_rate * loss.rate,
                       matrix_learning_rate=known.matrix_learning_rate * loss.rate), parameters

    def learned(self) -> dict[str, Any]:
        """The settings that decide what the stage makes. Those that came later are among them where they are given."""
        later: dict[str, Any] = {"loss_options": {}, "tail_weight": None, "nll_coefficient": None}
        return {name: value for name, value in super().learned().items()
                if name not in later or value != later[name]}

    def code(self) -> Iterator[tuple[str, Path]]:
        """The user's code that the stage runs; the file of a loss that is named by its registered name too."""
        yield from super().code()
        file = find_preference_loss(self.loss).file
        if file is not None and file_of(self.loss) is None:
            yield from code_files("loss", file)

    def training_data(self, context: Context) -> tuple[PackedEpochs, ChatTokenizer]:
        """The rankings as batches, and the tokenizer that made them."""
        return ranked_batches(self, context)

    def run(self, context: Context) -> dict[str, object]:
        """Compute the reference's log-probabilities once, train, and measure held-out preference accuracy."""
        self = self.settled(context.inputs)
        objective = DirectPreference(self)

        counted: list[int] = []

        def make_objective(batches: PackedEpochs, reference: Reference) -> DirectPreference:
            counted.append(count_rankings(batches.trees))

            def finish(batch: Batch) -> None:
                add_pairs(batch)
                if objective.loss.reference:
                    batch.extra |= {"reference": reference(batch.trees),
                                    "reference_tokens": reference.tokens(batch.trees)}
                batch.counts["read"] = float(len(batch.ends))
            batches.finish = finish
            return objective

        heldout = [row for row in rankings(context.inputs["preferences"], context) if row["split"] == "heldout"]
        trained = with_reference(self, context, make_objective, heldout, epochs=self.epochs, adapter=self.adapter,
                                 mean=self.mean, needs_reference=objective.loss.reference)
        if trained is None:
            return {}
        return {
            "rankings": counted[0], "steps": trained.steps, "loss": trained.loss, "precision": trained.precision,
            "length": trained.length, "rows": trained.rows, **trained.drift,
            "preference_accuracy": trained.preference_accuracy
        }

    def cost(self, estimate: Estimate) -> Cost:
        """The updates, and passes over all rankings for the reference, where the loss takes one, and over the held-out
        ones again."""
        given, before = estimate.rankings(self.preferences), float(find_preference_loss(self.loss).reference)
        return cost_of_rankings(self, self.model, given, self.epochs, estimate, lambda model: model,
                                DirectPreference(self), add_pairs, before + given.heldout)

    def outlook(self, estimate: Estimate) -> Outlook:
        """A model like the one it starts from."""
        return Outlook(like=self.model, adapter=self.adapter)

    def training_step(self, estimate: Estimate, processes: int) -> Step:
        """A model, or its adapter, and full rows of rankings."""
        config = estimate.config(self.model)
        length, _ = self.usual_layout(config)

        def models() -> tuple[LanguageModel, list[Any]]:
            model = LanguageModel(config)
            if self.adapter is not None:
                attach(model, self.adapter, 0)
            return model, []

        def finish(batch: Batch) -> None:
            add_pairs(batch)
            batch.extra |= {"reference": torch.zeros(len(batch.ends)),
                            "reference_tokens": torch.zeros(len(batch.targets))}
            batch.counts["read"] = float(len(batch.ends))

        return self.step_with(estimate, models, DirectPreference(self),
                              self.full_batches(processes, full_ranking(length), finish, length, config))


class DirectPreference(Objective):
    """A preference loss over all pairs of each ranking; every response is encoded once, every prompt computed once."""

    weights = {"loss": 1.0}

    def __init__(self, settings: Dpo) -> None:
        self.settings, self.loss = settings, find_preference_loss(settings.loss)
        self.beta = next(beta for beta in (settings.beta, self.loss.beta, USUAL_BETA) if beta is not None)

    def __call__(self, model: Any, batch: Batch) -> dict[str, Total]:
        """The mean over prompts of the mean over a prompt's pairs."""
        winners, losers, settings = batch.extra["winners"], batch.extra["losers"], self.settings
        tokens = target_log_probs(model, batch)
        responses = summed(tokens, batch.owners, len(batch.ends), settings.mean)
        policy = self.in_pairs(batch, responses, tokens)
        reference: tuple[torch.Tensor | None, torch.Tensor | None] = (None, None)
        if self.loss.reference:
            reference = self.in_pairs(batch, batch.extra["reference"], batch.extra.get("reference_tokens"))
        four = (*policy, *reference)
        lengths = [token_counts(batch)[side] for side in (winners, losers)] if self.loss.lengths else ()
        losses, margins = self.loss(*four, self.beta, lengths, **settings.options), implicit_margins(*four, self.beta)
        weights, totals = batch.extra["pair_weights"], {}
        if settings.nll:
            nll = -summed(tokens, batch.owners, len(batch.ends), mean=True)[winners]
            losses, totals["nll"] = losses + settings.nll * nll, Total((nll * weights).sum(), "trees")
        return {"loss": Total((losses * weights).sum(), "trees"),
                "accuracy": Total(ordered_right(margins), "pairs"), "margin": Total(margins.sum(), "pairs"),
                **totals, **drift(tokens, batch)}

    def in_pairs(self, batch: Batch, responses: torch.Tensor,
                 tokens: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The log-probabilities of chosen and of rejected responses, ``[P]`` each, from those of the batch's
        ``responses [S]`` or, where tails weigh less, of their ``tokens [N]``."""
        if self.settings.tail == 1:
            return responses[batch.extra["winners"]], responses[batch.extra["losers"]]
        assert tokens is not None
        return summed_in_pairs(tokens, batch, self.settings.tail)
