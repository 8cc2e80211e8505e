"""Kahneman-Tversky optimisation: learn from single responses that people liked or not (Ethayarajh et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field

from trivium.errors import TriviumError
from trivium.files import Row
from trivium.model.adapter_settings import AdapterSettings
from trivium.model.folder import read_config
from trivium.objectives.preference import balanced_weights, kto_losses
from trivium.stage import Context, Figure, Input, Panel, Title
from trivium.stages.chat_settings import FromChat
from trivium.stages.cost import Estimate
from trivium.stages.models import answer_tree
from trivium.stages.outlook import Cost, Outlook
from trivium.stages.preferences.cost import cost_of_rankings
from trivium.stages.preferences.rankings import add_pairs, check_response, rankings, tell_remarks
from trivium.stages.preferences.reference import (
    Reference,
    drift,
    response_log_probs,
    summed,
    target_log_probs,
    with_reference,
)
from trivium.stages.rows import rows_of
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.batch import Batch, Tree, make_batch, pack
from trivium.training.epochs import Limit, PackedEpochs, contents_of, fits
from trivium.training.next_token import LanguageModeling
from trivium.training.objective import Objective, Total
from trivium.training.trainer import Trainer


class Kto(FromChat):
    """Learn from single responses that were liked or not (Kahneman-Tversky optimisation)."""

    kind: ClassVar[str] = "kto"
    version: ClassVar[int] = 6
    usual: ClassVar[str] = "kto"
    title: ClassVar[Title] = Title("thumbs up and down (KTO)", "赞与踩（KTO）", "judge")
    figures: ClassVar[tuple[Figure, ...]] = (
        Figure("liked", "responses liked", "获赞的回答"),
        Figure("disliked", "responses disliked", "被踩的回答"),
        Figure("liked_reward", "implied reward, liked", "隐含奖励（赞）"),
        Figure("disliked_reward", "implied reward, disliked", "隐含奖励（踩）"),
        Figure("kl", "nats a response from the reference", "每个回答偏离参考模型（奈特）"),
        Figure("kl_per_token", "nats a token from the reference", "每个词元偏离参考模型（奈特）"),
    )
    panel: ClassVar[Panel] = Panel(curves=("liked_reward", "disliked_reward"))
    every_process: ClassVar[bool] = True
    model: Input = "sft"
    """The model to start from, and the reference."""
    feedback: Input = "preferences"
    """Thumbs: a stage or a JSONL file of prompt, completion and label; or a stage with rankings, of which the upper
    half of each is liked and the lower half not."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the responses."""
    beta: float | None = Field(None, gt=0)
    """Strength of the implied KL penalty. null: 0.1, and 0.5 for a model below 10 million parameters."""
    desirable_weight: float | None = Field(None, gt=0)
    """Weight of what was liked; null makes up for an imbalance of numbers."""
    undesirable_weight: float | None = Field(None, gt=0)
    """Weight of what was not liked; null makes up for an imbalance of numbers."""
    adapter: AdapterSettings | None = None
    """Train an adapter; the reference is then the same weights with it off. null trains all weights."""

    def training_data(self, context: Context) -> tuple[PackedEpochs, ChatTokenizer]:
        """The batches, and the tokenizer that made them. A tree is a prompt with its responses, and carries
        :class:`Labels`."""
        config, _ = read_config(context.inputs["model"])
        tokenizer = self.load_chat_tokenizer(context)
        limit = Limit(self.length, config.max_positions, "responses")
        rows = [row for row in thumbs(self, context) if row["split"] == "train"]
        tell_remarks(tokenizer, ((row["prompt"], row["completion"]) for row in rows), context)
        trees = fits((tree_of(tokenizer, row) for row in rows), limit, context.progress.say)
        whole = grouped_by_prompt(trees, sum(map(len, trees)))
        length, count = self.lay_out(context, list(map(len, whole)), limit.positions, self.epochs)
        paired = mismatched(grouped_by_prompt(trees, length), length, limit.positions)
        return PackedEpochs(paired, length, count, context.seed), tokenizer

    def run(self, context: Context) -> dict[str, object]:
        """Compute the reference's log-probabilities once, train, and measure held-out preference accuracy where there
        are rankings."""
        self = self.settled(context.inputs)
        summary: dict[str, object] = {}

        def make_objective(batches: PackedEpochs, reference: Reference) -> KahnemanTversky:
            labels = [label for tree in batches.trees for label in tree.payload.liked]
            liked, disliked = sum(labels), len(labels) - sum(labels)
            if not liked or not disliked:
                context.progress.say("all thumbs point the same way: there is little to learn from them")
            balanced = balanced_weights(liked, disliked)
            weights = (self.desirable_weight or balanced[0], self.undesirable_weight or balanced[1])
            summary.update(liked=liked, disliked=disliked, weights=list(weights))
            batches.finish = lambda batch: add_labels(batch, reference)
            assert self.beta is not None
            return KahnemanTversky(self.beta, *weights, reference)

        place = context.inputs["feedback"]
        ranked = rankings(place, context) if place.is_dir() and (place / "comparisons.jsonl").is_file() else []
        trained = with_reference(
            self, context, make_objective, [row for row in ranked if row["split"] == "heldout"],
            epochs=self.epochs, adapter=self.adapter,
            measured=lambda trees: [trees, [tree.payload.mismatched for tree in trees]],
            contents=lambda trees: contents_of([replace(tree, payload=tree.payload.liked) for tree in trees]))
        if trained is None:
            return {}
        summary.update(steps=trained.steps, loss=trained.loss, precision=trained.precision, length=trained.length,
                       rows=trained.rows, **trained.drift)
        if trained.preference_accuracy["value"] is not None:
            summary["preference_accuracy"] = trained.preference_accuracy
        return summary

    def cost(self, estimate: Estimate) -> Cost:
        """The updates, which read the responses to other prompts too, and passes over both for the reference."""
        given = estimate.rankings(self.feedback)
        return cost_of_rankings(self, self.model, given, self.epochs, estimate, lambda model: model,
                                LanguageModeling(), add_pairs, 2 * (1 - given.heldout) + 2 * given.heldout, 1)

    def outlook(self, estimate: Estimate) -> Outlook:
        """A model like the one it starts from."""
        return Outlook(like=self.model, adapter=self.adapter)


@dataclass(frozen=True)
class Labels:
    """What a tree of KTO carries."""

    liked: tuple[bool, ...]
    """Of each response, whether it was liked."""
    mismatched: Tree
    """The tree's prompt with the responses to another one."""


def add_labels(batch: Batch, reference: Reference) -> None:
    """Give a batch of labelled trees its labels, and the reference's log-probabilities of its responses and of their
    tokens."""
    trees: list[Tree[Labels]] = batch.trees
    liked = [label for tree in trees for label in tree.payload.liked]
    batch.extra |= {"liked": torch.tensor(liked, dtype=torch.bool), "reference": reference(trees),
                    "reference_tokens": reference.tokens(trees)}
    batch.counts |= {"read": float(len(liked)), "liked": float(sum(liked)), "disliked": float(len(liked) - sum(liked))}


class KahnemanTversky(Objective):
    """The mean over responses of what a person would feel a response has lost or gained.

    The baseline is how much likelier the policy makes responses that belong to *other* prompts, on the mean over the
    whole batch of all processes: it is computed before the update, without gradients, and so accumulation cannot change
    the loss. ``reference`` gives the reference's log-probabilities of those responses."""

    weights = {"loss": 1.0}

    def __init__(self, beta: float, desirable_weight: float, undesirable_weight: float,
                 reference: Callable[[Sequence[Tree]], torch.Tensor]) -> None:
        self.beta, self.desirable_weight, self.undesirable_weight = beta, desirable_weight, undesirable_weight
        self.reference = reference

    def before(self, trainer: Trainer, batches: list[Batch]) -> None:
        """Give every microbatch the baseline: the mean log-ratio of mismatched responses, those of the next prompt."""
        total = count = 0.0
        for batch in batches:
            other = mismatched_batch(batch)
            with torch.no_grad(), trainer.in_precision():
                log_probs = trainer.learner(lambda model, b: response_log_probs(model, b), other.to(trainer.device))
            total += float(log_probs.sum()) - float(self.reference(other.trees).sum())
            count += len(other.ends)
        total, count = trainer.world.add([total, count], trainer.device)
        for batch in batches:
            batch.extra["baseline"] = torch.tensor(total / max(count, 1.0))

    def __call__(self, model: Any, batch: Batch) -> dict[str, Total]:
        """Sums over responses."""
        tokens = target_log_probs(model, batch)
        ratios = summed(tokens, batch.owners, len(batch.ends)) - batch.extra["reference"]
        liked = batch.extra["liked"]
        losses = kto_losses(ratios, liked, batch.extra["baseline"], self.beta, self.desirable_weight,
                            self.undesirable_weight)
        return {
            "loss": Total(losses.sum(), "responses"), "liked_reward": Total(self.beta * ratios[liked].sum(), "liked"),
            "disliked_reward": Total(self.beta * ratios[~liked].sum(), "disliked"),
            "baseline": Total(batch.extra["baseline"] * len(batch.ends), "responses"), **drift(tokens, batch)
        }


def mismatched_batch(batch: Batch) -> Batch:
    """The batch's prompts, each with the mismatched responses that its tree carries; rows are as long as the
    batch's."""
    trees = [tree.payload.mismatched for tree in batch.trees]
    length = max(batch.tokens.shape[1], *(len(tree) for tree in trees)) if trees else batch.tokens.shape[1]
    rows = pack([len(tree) for tree in trees], length)
    return make_batch([[trees[i] for i in row] for row in rows], length, batch.tokens.shape[0])


def thumbs(settings: Kto, context: Context) -> list[Row]:
    """Rows of prompt, completion, label and split. Of rankings, the better half of each is liked, the worse half not; a
    middle response, and a ranking of ties alone, say nothing."""
    place = context.inputs["feedback"]
    if place.is_dir() and (place / "comparisons.jsonl").is_file() and not (place / "thumbs.jsonl").is_file():
        rows = []
        for row in rankings(place, context):
            flat = [index for group in row["ranking"] for index in group]
            groups = {index: g for g, group in enumerate(row["ranking"]) for index in group}
            middle = (groups[flat[(len(flat) - 1) // 2]] + groups[flat[len(flat) // 2]]) / 2
            rows += [{
                "id": f"{row.get('id')}/{index}", "prompt": row["prompt"], "tools": row.get("tools"),
                "completion": row["responses"][index],
                "label": groups[index] < middle, "split": row["split"],
                "finished": (row.get("finished") or [True] * len(flat))[index]
            } for index in flat if groups[index] != middle]
        return rows
    return [{"split": "train", **row}
            for row in rows_of(place, "thumbs.jsonl", ["prompt", "completion", "label"], context, check_thumb)]


def check_thumb(row: Row) -> None:
    """Refuse a thumb that is none."""
    if not isinstance(row["label"], bool):
        raise TriviumError(f"the label {row['label']!r} is not true or false")
    if not row["completion"]:
        raise TriviumError("the completion is empty")
    check_response(row["completion"], "the completion")


def tree_of(tokenizer: ChatTokenizer, row: Row) -> Tree[tuple[bool, ...]]:
    """A thumb as a tree, which carries its label; a completion that was cut short does not teach to stop."""
    return answer_tree(tokenizer, row, [row["completion"]], [row.get("finished", True)], (bool(row["label"]),))


def grouped_by_prompt(trees: Sequence[Tree[tuple[bool, ...]]], length: int) -> list[Tree[tuple[bool, ...]]]:
    """Trees of one response each as trees of a prompt with all its responses, or with as many as fit ``length`` tokens:
    a prompt is computed once. Payloads, the labels, are joined. In the order in which the prompts come first."""
    groups: dict[bytes, list[list[Tree[tuple[bool, ...]]]]] = {}
    for tree in trees:
        parts = groups.setdefault(tree.prompt.tobytes(), [[]])
        if parts[-1] and len(tree.prompt) + sum(len(one.responses[0]) for one in [*parts[-1], tree]) > length:
            parts.append([])
        parts[-1].append(tree)
    return [Tree(part[0].prompt, tuple(tree.responses[0] for tree in part),
                 payload=tuple(label for tree in part for label in tree.payload))
            for parts in groups.values() for part in parts]


def mismatched(trees: Sequence[Tree[tuple[bool, ...]]], length: int,
               positions: int | None = None) -> list[Tree[Labels]]:
    """The trees, each with its labels and with its prompt before the responses to the next other prompt, as many as fit
    ``length`` tokens, each cut where the model's ``positions`` end (Ethayarajh et al. 2024, sec. 4.2: responses of the
    same batch, shifted). Where all thumbs are of one prompt its own responses stand in."""
    carrying = []
    for number, tree in enumerate(trees):
        following = (trees[(number + step) % len(trees)] for step in range(1, len(trees)))
        other = next((one for one in following if not np.array_equal(one.prompt, tree.prompt)),
                     trees[(number + 1) % len(trees)])
        room = max(1, length - len(tree.prompt))
        cut = max(1, min(room, (positions or length) - len(tree.prompt)))
        shortened = [response[:cut] for response in other.responses]
        ends = np.cumsum([len(response) for response in shortened])
        taken = shortened[:max(1, int((ends <= room).sum()))]
        carrying.append(Tree(tree.prompt, tree.responses,
                             payload=Labels(tree.payload, Tree(tree.prompt, tuple(taken)))))
    return carrying
