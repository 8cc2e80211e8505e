"""The reward model: a score that agrees with the rankings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trivium import randomness
from trivium.evaluation.intervals import mean_interval
from trivium.model import RewardModel
from trivium.model.folder import read_config
from trivium.objectives.ranking import ranking_losses
from trivium.pipeline import Context
from trivium.stages.common import (
    PackedEpochs,
    Row,
    contents_of,
    fits,
    load_language_model,
    load_tokenizer,
    map_trees,
    prompt_ids,
    response_ids,
    rows_of,
    run_training,
    save_model,
    weights_digest,
)
from trivium.stages.settings import Dpo, Reward
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.batch import Batch, Tree, hidden_states
from trivium.training.loop import Total
from trivium.training.machine import autocast, choose_precision, prepare
from trivium.world.panel import judge

VERSION = 1
PARALLEL = True


class Ranking:
    """InstructGPT's loss over all pairs of each prompt's responses, every response encoded once."""

    weights = {"loss": 1.0}

    def __call__(self, model: Any, batch: Batch) -> dict[str, Total]:
        """The mean over prompts of the mean over a prompt's pairs."""
        scores = score_ends(model, batch)
        winners, losers = batch.extra["winners"], batch.extra["losers"]
        losses = ranking_losses(scores, winners, losers, batch.extra["pair_weights"])
        return {"loss": Total(losses.sum(), "trees"),
                "accuracy": Total((scores[winners] > scores[losers]).float().sum(), "pairs")}


def score_ends(model: Any, batch: Batch) -> torch.Tensor:
    """The score of each response of a batch, read at its last token, ``[S]`` in float32."""
    hidden = hidden_states(model.model, batch)
    return model.score(hidden[batch.ends]).squeeze(-1).float()


def pairs_of(ranking: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """All (better, worse) pairs of a ranking; ties are in none."""
    return [(better, worse) for i, group in enumerate(ranking) for better in group
            for later in ranking[i + 1:] for worse in later]


def add_pairs(batch: Batch) -> None:
    """Give a batch of ranked trees its pairs; ``payload`` of each tree is its ranking."""
    winners, losers, weights = [], [], []
    first = 0
    for tree in batch.trees:
        pairs = pairs_of(tree.payload)
        winners += [first + better for better, _ in pairs]
        losers += [first + worse for _, worse in pairs]
        weights += [1 / len(pairs)] * len(pairs)
        first += len(tree.responses)
    batch.extra |= {"winners": torch.tensor(winners, dtype=torch.int64), "losers": torch.tensor(losers, dtype=torch.int64),
                    "pair_weights": torch.tensor(weights)}
    batch.counts["pairs"] = float(len(winners))


def rankings(preferences: Path) -> list[Row]:
    """All rankings with at least one pair."""
    rows = rows_of(preferences, "comparisons.jsonl", ["prompt", "responses", "ranking", "split"])
    return [row for row in rows if pairs_of(row["ranking"])]


def training_data(settings: Reward | Dpo, context: Context) -> tuple[PackedEpochs, ChatTokenizer]:
    """The batches, and the tokenizer that made them."""
    config, _ = read_config(context.inputs["model"])
    tokenizer = load_tokenizer(context.inputs["model"], config.vocab_size)
    length = min(settings.length, config.max_positions)
    rows = [row for row in rankings(context.inputs["preferences"]) if row["split"] == "train"]
    trees = fits((ranked_tree(tokenizer, row) for row in rows), length, context.progress.say)
    return PackedEpochs(trees, length, settings.rows, context.seed, add_pairs), tokenizer


def ranked_tree(tokenizer: ChatTokenizer, row: Row) -> Tree:
    """A prompt with its ranked responses."""
    return Tree(prompt_ids(tokenizer, row["prompt"]), tuple(response_ids(tokenizer, text) for text in row["responses"]),
                payload=row["ranking"])


def score_trees(model: RewardModel, trees: Sequence[Tree], length: int, rows: int, precision: str) -> list[np.ndarray]:
    """The scores of each tree's responses, in the order of the trees, without the shift."""
    model.eval()
    device = model.score.weight.device

    def compute(batch: Batch) -> torch.Tensor:
        with autocast(precision, device):
            return score_ends(model, batch)

    return map_trees(compute, trees, length, rows, device, per_token=False)


def run(settings: Reward, context: Context) -> dict[str, object]:
    """Train on the rankings, centre on demonstrations, and measure agreement with held-out rankings."""
    device = prepare(context.threads)
    policy, tokenizer = load_language_model(context.inputs["model"])
    model = RewardModel.from_language_model(policy, randomness.derive(context.seed, "head")).to(device)
    length = min(settings.length, model.config.max_positions)
    precision = choose_precision(settings.precision, device)
    rows = rankings(context.inputs["preferences"])
    batches, _ = training_data(settings, context)
    training = batches.trees
    steps = max(1, round(settings.epochs * batches.steps_per_epoch))
    outcome = run_training(model, Ranking(), batches, steps, settings, context, weights_digest(context.inputs["model"]),
                           contents_of(training))
    if not outcome.leader:
        return {}
    model = outcome.model
    if settings.demonstrations:
        shown = rows_of(context.inputs["demonstrations"], "demonstrations.jsonl", ["messages"])[:500]
        good = [Tree(prompt_ids(tokenizer, row["messages"][:-1]), (response_ids(tokenizer, row["messages"][-1]["content"]),))
                for row in shown if row["messages"][-1]["role"] == "assistant"]
    else:
        good = [Tree(tree.prompt, (tree.responses[tree.payload[0][0]],)) for tree in training[:500]]
    good = [tree for tree in good if len(tree) <= length]
    model.shift = -float(np.mean(np.concatenate(score_trees(model, good, length, settings.rows, precision))))
    save_model(model, tokenizer, context.folder)
    heldout = [row for row in rows if row["split"] == "heldout"]
    pairs = [(ranked_tree(tokenizer, row), row) for row in heldout]
    pairs = [(tree, row) for tree, row in pairs if len(tree) <= length]
    scores = score_trees(model, [tree for tree, _ in pairs], length, settings.rows, precision)
    summary: dict[str, object] = {"rankings": len(training), "steps": steps, "shift": model.shift}
    summary["accuracy"] = accuracy([row for _, row in pairs], [list(map(float, s)) for s in scores])
    summary["length_accuracy"] = accuracy([row for _, row in pairs], [[float(len(r)) for r in row["responses"]] for _, row in pairs])
    if all("truth" in row for _, row in pairs):
        summary["ceiling"] = accuracy([row for _, row in pairs], [true_points(row) for _, row in pairs])
    return summary


def accuracy(rows: Sequence[Row], points: Sequence[Sequence[float]]) -> dict[str, float | int]:
    """Share of the rankings' pairs that ``points`` order alike (equal points count half), with a 95 % interval that
    treats each prompt's pairs as one cluster."""
    right, total = [], []
    for row, values in zip(rows, points, strict=True):
        pairs = pairs_of(row["ranking"])
        right.append(sum((values[a] > values[b]) + 0.5 * (values[a] == values[b]) for a, b in pairs))
        total.append(float(len(pairs)))
    return mean_interval(right, total)


def true_points(row: Row) -> list[float]:
    """What a noiseless judge would give each response: minus its place in the true ranking."""
    points = [0.0] * len(row["responses"])
    for place, group in enumerate(judge(row, row["responses"])):
        for index in group:
            points[index] = -float(place)
    return points


