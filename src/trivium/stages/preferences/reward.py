"""The reward model: a score that agrees with the rankings."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, ValidationInfo, field_validator

from trivium import randomness
from trivium.errors import TriviumError, nearest
from trivium.extensions import file_of
from trivium.model import LanguageModel, RewardModel
from trivium.model.adapter_settings import AdapterSettings
from trivium.model.adapters import attach
from trivium.model.adapters.folder import weights_digest
from trivium.model.folder import read_config
from trivium.objectives.functions import pair_losses
from trivium.objectives.ranking import TIED_LOSSES, find_pairwise_loss, ranking_losses, rating_losses
from trivium.stage import Code, Context, Figure, Input, Panel, Title, refusing
from trivium.stages.chat_settings import FromChat
from trivium.stages.cost import Estimate
from trivium.stages.kept import kept, weights_in_memory
from trivium.stages.models import adapt, answer_tree, save_trained
from trivium.stages.outlook import Cost, Outlook, Step
from trivium.stages.preferences.cost import cost_of_rankings
from trivium.stages.preferences.rankings import (
    add_pairs,
    add_ratings,
    count_rankings,
    fitting,
    full_ranking,
    lay_out,
    ordered_right,
    ranked_tree,
    rankings,
    tell_remarks,
)
from trivium.stages.preferences.reward_statistics import (
    heldout_summary,
)
from trivium.stages.rows import rows_of
from trivium.stages.scores import score_ends, score_trees
from trivium.stages.training import run_training
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.at_once import tokens_at_once
from trivium.training.batch import Batch, Tree
from trivium.training.epochs import Limit, PackedEpochs, contents_of, fits, longest_branch
from trivium.training.machine import prepare, resolve_precision
from trivium.training.objective import Objective, Total


class Reward(FromChat):
    """Train a reward model on rankings, every response encoded once and every prompt computed once."""

    kind: ClassVar[str] = "reward"
    version: ClassVar[int] = 7
    usual: ClassVar[str] = "reward"
    title: ClassVar[Title] = Title("reward model", "奖励模型", "judge")
    figures: ClassVar[tuple[Figure, ...]] = (
        Figure("accuracy", "pairs ordered right", "成对排序正确率"),
        Figure("ceiling", "a judge without noise", "无噪声裁判"),
        Figure("length_accuracy", "length alone", "仅凭长度"),
        Figure("accuracy_by_length", "accuracy by length", "按长度的正确率"),
        Figure("accuracy_by_margin", "accuracy by how far apart people rated", "按评分差距的正确率"),
        Figure("shift", "score shift", "分数平移"),
    )
    panel: ClassVar[Panel] = Panel(headline="accuracy", beside=("agreement", "ceiling", "length_accuracy"),
                                   curves=("accuracy",))
    every_process: ClassVar[bool] = True
    model: Input = "sft"
    """The model whose trunk it starts from."""
    preferences: Input = "preferences"
    """A stage with rankings."""
    demonstrations: Input | None = None
    """Demonstrations whose mean score becomes 0; the preferences' best responses when null."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the rankings; more than one overfits (InstructGPT)."""
    adapter: AdapterSettings | None = None
    """Train an adapter and the head beside the frozen model; null trains all weights."""
    loss: Code = "ranking"
    """ranking: InstructGPT's, over all pairs; rao_kupper and davidson: the same with ties, whose scores are to be alike
    (Rao and Kupper 1967, Davidson 1970); regression: the squared error of ratings 1 to 7, to compare with. Or
    FILE.py:NAME: a function of the pairs' (chosen, rejected, margins), scores and what they are to differ by."""
    margin: float = Field(0.0, ge=0)
    """All but regression: an ordered pair's scores are to differ by this much for each point that its ratings
    differ (Llama 2: graded preferences)."""
    tie_strength: float | None = Field(None, gt=0)
    """How readily responses are taken for tied. rao_kupper: a ratio above 1, by which one must be stronger to be told
    apart; null is 3. davidson: null is 2. Either makes half of the pairs with equal scores ties."""
    member: int = Field(0, ge=0)
    """Another number gives another head and another order of the same rankings: members of an ensemble are stages that
    differ in it."""

    @field_validator("loss")
    @classmethod
    def _a_loss(cls, loss: str) -> str:
        with refusing():
            find_objective(loss)
        return loss

    @field_validator("tie_strength")
    @classmethod
    def _strength_of_ties(cls, strength: float | None, info: ValidationInfo) -> float | None:
        loss = info.data.get("loss")
        if strength is not None and loss is not None and loss not in TIED_LOSSES:
            raise ValueError(f"{loss} learns nothing from ties; leave it out, or take the loss "
                             f"{' or '.join(TIED_LOSSES)}")
        if strength is not None and loss == "rao_kupper" and strength <= 1:
            raise ValueError(f"{strength:g} is not above 1, where nothing is tied; see rao_kupper")
        return strength

    def learned(self) -> dict[str, Any]:
        """The settings that decide what the stage makes. The strength of ties is among them where it is given."""
        return {name: value for name, value in super().learned().items() if name != "tie_strength" or value is not None}

    @property
    def rated(self) -> bool:
        """Whether it learns from ratings too."""
        return self.margin > 0 or self.loss == "regression"

    def training_data(self, context: Context) -> tuple[PackedEpochs, ChatTokenizer]:
        """The rankings as batches, and the tokenizer that made them."""
        return ranked_batches(self, context)

    def run(self, context: Context) -> dict[str, object]:
        """Train on the rankings, centre on demonstrations, and measure agreement with held-out rankings."""
        device = prepare(context.threads)
        policy, tokenizer = self.load_policy(context)
        limit = Limit(self.length, policy.config.max_positions, "rankings")
        good = shown_responses(self, context, tokenizer, limit)
        attached = adapt(policy, self.adapter, context)
        model = policy.rewarding(randomness.derive(context.seed, "head", *([self.member] if self.member else [])),
                                 share=attached is not None).to(device)
        precision = resolve_precision(self.precision, device)
        rows = rankings(context.inputs["preferences"], context, self.rated)
        batches, _ = self.training_data(context)
        training = batches.trees
        judged = fitting(tokenizer, [row for row in rows if row["split"] == "heldout"], limit, context)
        length = max(batches.length, *map(longest_branch, [*good, *(tree for tree, _ in judged)]))
        each = self.rows or max(1, tokens_at_once(model.config) // length)
        steps = max(1, round(self.epochs * batches.steps_per_epoch))
        objective = find_objective(self.loss, self.margin, self.tie_strength)
        outcome = run_training(model, objective, batches, steps, self, context,
                               weights_digest(context.inputs["model"]), contents_of(training))
        if not outcome.leader:
            return {}
        model = outcome.model
        weights = weights_in_memory(model)

        def scored(trees: list[Tree], name: str) -> list[np.ndarray]:
            return kept(context, name, weights, trees, {"length": length, "rows": each, "precision": precision,
                                                        "device": str(device)},
                        lambda progress: score_trees(model, trees, length, each, precision, progress))

        model.shift = -float(np.mean(np.concatenate(scored(good, "responses whose mean becomes 0"))))
        save_trained(model, attached, tokenizer, context.inputs["model"], context, self.save_dtype)
        scores = scored([tree for tree, _ in judged], "held-out rankings")
        return {"rankings": count_rankings(training), "steps": steps, "precision": outcome.precision,
                "length": batches.length, "rows": batches.rows, "shift": model.shift
                } | heldout_summary([row for _, row in judged], [list(map(float, each)) for each in scores],
                                    [row for row in rows if row["split"] == "train"])

    def cost(self, estimate: Estimate) -> Cost:
        """The updates, and passes over the held-out rankings and over what becomes 0; a judge for the ceiling."""
        given = estimate.rankings(self.preferences)
        cost = cost_of_rankings(self, self.model, given, self.epochs, estimate,
                                lambda model: RewardModel.from_language_model(model, 0), Ranking(), add_pairs,
                                given.heldout + 500 / given.count)
        if given.prompts is None:
            return cost
        judged = given.count * given.heldout * given.responses
        return replace(cost, seconds=cost.seconds + judged * estimate.judging(given.prompts))

    def outlook(self, estimate: Estimate) -> Outlook:
        """A reward model with the trunk of the model it starts from, or an adapter on it."""
        return Outlook(like=self.model, adapter=self.adapter)

    def training_step(self, estimate: Estimate, processes: int) -> Step:
        """A reward model, or its adapter, and full rows of rankings."""
        config = estimate.config(self.model)

        def models() -> tuple[RewardModel, list[Any]]:
            model = LanguageModel(config)
            if self.adapter is not None:
                attach(model, self.adapter, 0)
            return model.rewarding(0, share=self.adapter is not None), []

        length, _ = self.usual_layout(config)
        return self.step_with(estimate, models, Ranking(),
                              self.full_batches(processes, full_ranking(length), add_pairs, length, config))


PairwiseLoss = Callable[..., torch.Tensor]
"""Of the scores of a pair's chosen and rejected response, and the margin between them, all ``[P]``: a loss ``[P]``. One
of :data:`TIED_LOSSES` is told which pairs are tied, too."""


class Ranking(Objective):
    """A pairwise loss, InstructGPT's by default, over all pairs of each prompt's responses, every response encoded
    once. ``margin`` is what a pair's scores are to differ by for each point that its ratings differ; ``options`` are
    the loss's."""

    weights = {"loss": 1.0}

    def __init__(self, margin: float = 0.0, loss: PairwiseLoss = ranking_losses, name: str = "ranking",
                 tied: bool = False, **options: float) -> None:
        self.margin, self.loss, self.name, self.tied, self.options = margin, loss, name, tied, options

    def __call__(self, model: Any, batch: Batch) -> dict[str, Total]:
        """The mean over prompts of the mean over a prompt's pairs."""
        scores, winners, losers = score_ends(model, batch), batch.extra["winners"], batch.extra["losers"]
        margins = scores.new_zeros(len(winners))
        if self.margin:
            ratings = batch.extra["ratings"]
            margins = self.margin * (ratings[winners] - ratings[losers]).clamp(min=0)
        tied = tied_pairs(batch)
        settings = [margins.masked_fill(tied, 0.0), tied] if self.tied else [margins]
        losses = pair_losses(self.name, self.loss, [scores[winners], scores[losers]], *settings, **self.options)
        return {"loss": Total((losses * batch.extra["pair_weights"]).sum(), "trees"),
                "accuracy": right_pairs(scores, batch)}


class Regression(Objective):
    """Regression on the responses' ratings, to compare rankings with."""

    weights = {"loss": 1.0}

    def __call__(self, model: Any, batch: Batch) -> dict[str, Total]:
        """The mean over responses."""
        scores = score_ends(model, batch)
        losses = rating_losses(scores, batch.extra["ratings"])
        return {"loss": Total((losses * batch.extra["response_weights"]).sum(), "responses"),
                "accuracy": right_pairs(scores, batch)}


def find_objective(loss: str, margin: float = 0.0, tie_strength: float | None = None) -> Ranking | Regression:
    """The objective that the setting ``loss`` names; ``tie_strength`` is that of one with ties, its own where None.
    Raises :class:`TriviumError` for an unknown one, and for a function of the user's own that does not take what it is
    given."""
    if loss == "regression":
        return Regression()
    if loss == "ranking":
        return Ranking(margin)
    if loss in TIED_LOSSES:
        return Ranking(margin, TIED_LOSSES[loss], loss, True,
                       **({} if tie_strength is None else {"strength": tie_strength}))
    if file_of(loss) is None:
        raise TriviumError(f"there is no loss {loss!r} (one of your own is FILE.py:NAME)"
                           f"{nearest(loss, ('ranking', 'regression', *TIED_LOSSES))}")
    return Ranking(margin, find_pairwise_loss(loss), loss)


def tied_pairs(batch: Batch) -> torch.Tensor:
    """Which of a batch's pairs are tied, ``[P]``."""
    return batch.extra.get("tied", torch.zeros_like(batch.extra["winners"], dtype=torch.bool))


def right_pairs(scores: torch.Tensor, batch: Batch) -> Total:
    """The pairs whose better response has the higher score; equal ones count half. Tied pairs are not counted."""
    differences = scores[batch.extra["winners"]] - scores[batch.extra["losers"]]
    return Total(ordered_right(differences.masked_fill(tied_pairs(batch), -math.inf)), "pairs")


def ranked_batches(settings: FromChat, context: Context) -> tuple[PackedEpochs, ChatTokenizer]:
    """The batches, and the tokenizer that made them."""
    config, _ = read_config(context.inputs["model"])
    tokenizer = settings.load_chat_tokenizer(context)
    limit = Limit(settings.length, config.max_positions, "rankings")
    rated = isinstance(settings, Reward) and settings.rated
    tied = isinstance(settings, Reward) and settings.loss in TIED_LOSSES
    rows = [row for row in rankings(context.inputs["preferences"], context, rated, tied) if row["split"] == "train"]
    tell_remarks(tokenizer, ((row["prompt"], said) for row in rows for said in row["responses"]), context)
    trees = fits((ranked_tree(tokenizer, row, rated, tied) for row in rows), limit, context.progress.say)
    packed = lay_out(trees, settings, context, limit.positions, getattr(settings, "epochs", 1.0))
    seed = context.seed
    if isinstance(settings, Reward) and settings.member:
        seed = randomness.derive(seed, "member", settings.member)
    return PackedEpochs(packed.trees, packed.length, packed.rows, seed,
                        add_ratings if rated else add_pairs), tokenizer


def shown_responses(settings: Reward, context: Context, tokenizer: ChatTokenizer, limit: Limit) -> list[Tree]:
    """Responses whose mean score becomes 0: those of demonstrations, or the best of each training ranking."""
    if settings.demonstrations:
        rows = rows_of(context.inputs["demonstrations"], "demonstrations.jsonl", ["messages"], context)
        shown = [({**row, "prompt": row["messages"][:-1]}, row["messages"][-1]) for row in rows
                 if len(row["messages"]) > 1 and row["messages"][-1]["role"] == "assistant"]
    else:
        shown = [(row, row["responses"][row["ranking"][0][0]])
                 for row in rankings(context.inputs["preferences"], context) if row["split"] == "train"]
    trees = [answer_tree(tokenizer, row, [said]) for row, said in shown[:500]]
    return fits(trees, replace(limit, what="demonstrations, whose mean score is to become 0,"), context.progress.say)
