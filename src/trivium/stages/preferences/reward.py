"""The reward model: a score that agrees with the rankings."""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from trivium import randomness
from trivium.errors import TriviumError
from trivium.feedback.agreement import pair_agreement
from trivium.intervals import mean_interval
from trivium.model import RewardModel
from trivium.model.adapter_settings import AdapterSettings
from trivium.model.adapters.folder import weights_digest
from trivium.model.folder import read_config
from trivium.objectives.ranking import ranking_losses, rating_losses
from trivium.stage import Context, Figure, Input, Panel, Title
from trivium.stages.models import adapt, load_language_model, load_tokenizer, prompt_ids, response_ids, save_trained
from trivium.stages.rows import Row, rows_of
from trivium.stages.training import Looped, run_training
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.batch import Batch, Tree, hidden_states, map_trees
from trivium.training.epochs import PackedEpochs, contents_of, fits
from trivium.training.machine import autocast, prepare, resolve_precision
from trivium.training.objective import Total
from trivium.world.panel import judge


class Reward(Looped):
    """Train a reward model on rankings, every response encoded once and every prompt computed once."""

    kind: ClassVar[str] = "reward"
    version: ClassVar[int] = 4
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
    loss: Literal["ranking", "regression"] = "ranking"
    """ranking: InstructGPT's, over all pairs; regression: the squared error of ratings 1 to 7, to compare with."""
    margin: float = Field(0.0, ge=0)
    """ranking: a pair's scores are to differ by this much for each point that its ratings differ (Llama 2: graded
    preferences)."""
    member: int = Field(0, ge=0)
    """Another number gives another head and another order of the same rankings: members of an ensemble are stages that
    differ in it."""

    def training_data(self, context: Context) -> tuple[PackedEpochs, ChatTokenizer]:
        """The rankings as batches, and the tokenizer that made them."""
        return ranked_batches(self, context)

    def run(self, context: Context) -> dict[str, object]:
        """Train on the rankings, centre on demonstrations, and measure agreement with held-out rankings."""
        device = prepare(context.threads)
        policy, tokenizer = load_language_model(context.inputs["model"])
        good = shown_responses(self, context, tokenizer, min(self.length, policy.config.max_positions))
        attached = adapt(policy, self.adapter, context)
        model = policy.rewarding(randomness.derive(context.seed, "head", *([self.member] if self.member else [])),
                                 share=attached is not None).to(device)
        length = min(self.length, model.config.max_positions)
        precision = resolve_precision(self.precision, device)
        rows = rankings(context.inputs["preferences"], context, self.margin > 0 or self.loss == "regression")
        batches, _ = self.training_data(context)
        training = batches.trees
        steps = max(1, round(self.epochs * batches.steps_per_epoch))
        outcome = run_training(model, Ranking(self.loss, self.margin), batches, steps, self, context,
                               weights_digest(context.inputs["model"]), contents_of(training))
        if not outcome.leader:
            return {}
        model = outcome.model
        model.shift = -float(np.mean(np.concatenate(score_trees(model, good, length, self.rows, precision))))
        save_trained(model, attached, tokenizer, context.inputs["model"], context)
        heldout = [row for row in rows if row["split"] == "heldout"]
        pairs = [(tree, row) for row in heldout if len(tree := ranked_tree(tokenizer, row)) <= length]
        if len(pairs) < len(heldout):
            context.progress.say(
                f"{len(heldout) - len(pairs)} of {len(heldout)} held-out rankings are longer than {length} tokens and "
                "were left out"
            )
        scores = score_trees(model, [tree for tree, _ in pairs], length, self.rows, precision)
        judged = [row for _, row in pairs]
        summary: dict[str, object] = {"rankings": len(training), "steps": steps, "precision": outcome.precision, "shift": model.shift}
        summary["accuracy"] = accuracy(judged, [list(map(float, s)) for s in scores])
        if (people := annotators_agreement(judged))["value"] is not None:
            summary["agreement"] = people
        longer = accuracy([row for row in rows if row["split"] == "train"], [], by_length=1)["value"]
        summary["length_accuracy"] = accuracy(judged, [], by_length=1 if longer is None or longer >= 0.5 else -1)
        if judged and all("truth" in row for row in judged):
            summary["ceiling"] = accuracy(judged, [true_points(row) for row in judged])
        return summary | looked_at(judged, [list(map(float, s)) for s in scores])


class Ranking:
    """InstructGPT's loss over all pairs of each prompt's responses, every response encoded once; or, to compare with,
    regression on the responses' ratings."""

    weights = {"loss": 1.0}

    def __init__(self, loss: str = "ranking", margin: float = 0.0) -> None:
        self.loss, self.margin = loss, margin

    def __call__(self, model: Any, batch: Batch) -> dict[str, Total]:
        """The mean over prompts of the mean over a prompt's pairs; of regression, the mean over responses."""
        scores, extra = score_ends(model, batch), batch.extra
        winners, losers = extra["winners"], extra["losers"]
        if self.loss == "regression":
            loss = Total(rating_losses(scores, extra["ratings"]).sum(), "responses")
        else:
            margins = self.margin * (extra["ratings"][winners] -
                                     extra["ratings"][losers]).clamp(min=0) if self.margin else None
            loss = Total(ranking_losses(scores, winners, losers, extra["pair_weights"], margins).sum(), "trees")
        return {"loss": loss, "accuracy": Total((scores[winners] > scores[losers]).float().sum(), "pairs")}


def score_ends(model: Any, batch: Batch) -> torch.Tensor:
    """The score of each response of a batch, read at its last token, ``[S]`` in float32."""
    hidden = hidden_states(model.model, batch)
    return model.score(hidden[batch.ends]).squeeze(-1).float()


def pairs_of(ranking: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """All (better, worse) pairs of a ranking; ties are in none."""
    return [(better, worse) for i, group in enumerate(ranking) for better in group
            for later in ranking[i + 1:] for worse in later]


def add_ratings(batch: Batch) -> None:
    """Give a batch of ranked and rated trees its pairs and ratings."""
    add_pairs(batch, lambda tree: tree.payload[0])
    batch.extra["ratings"] = torch.tensor([float(rating) for tree in batch.trees for rating in tree.payload[1]])


def add_pairs(batch: Batch, ranking_of: Callable[[Tree], Any] = lambda tree: tree.payload) -> None:
    """Give a batch of ranked trees its pairs; ``payload`` of each tree is its ranking."""
    winners, losers, weights = [], [], []
    first = 0
    for tree in batch.trees:
        pairs = pairs_of(ranking_of(tree))
        winners += [first + better for better, _ in pairs]
        losers += [first + worse for _, worse in pairs]
        weights += [1 / len(pairs)] * len(pairs)
        first += len(tree.responses)
    batch.extra |= {
        "winners": torch.tensor(winners, dtype=torch.int64), "losers": torch.tensor(losers, dtype=torch.int64),
        "pair_weights": torch.tensor(weights)
    }
    batch.counts["pairs"] = float(len(winners))


def rankings(preferences: Path, context: Context, rated: bool = False) -> list[Row]:
    """All good rankings with at least one pair; with good ratings too, where they are needed."""
    def check(row: Row) -> None:
        check_ranking(row)
        if rated:
            check_ratings(row)

    rows = rows_of(preferences, "comparisons.jsonl", ["prompt", "responses", "ranking", "split"], context, check)
    return [row for row in rows if pairs_of(row["ranking"])]


def check_ranking(row: Row) -> None:
    """Refuse a ranking that does not name each response once."""
    if not all(isinstance(text, str) for text in row["responses"]):
        raise TriviumError("a response is not a text")
    finished = row.get("finished") or [True] * len(row["responses"])
    if len(finished) != len(row["responses"]):
        raise TriviumError(f"`finished` says of {len(finished)} responses whether they ended; there are "
                           f"{len(row['responses'])}")
    if not all(text or done for text, done in zip(row["responses"], finished, strict=True)):
        raise TriviumError("a response is empty and never ended, so it has no token to learn from")
    if sorted(index for group in row["ranking"] for index in group) != list(range(len(row["responses"]))):
        raise TriviumError(
            f"the ranking {row['ranking']} does not name each of the {len(row['responses'])} responses once, as in "
            "[[0], [2, 1]]"
        )


def check_ratings(row: Row) -> None:
    """Refuse ratings that are not a number from 1 to 7 for each response."""
    ratings = row.get("ratings")
    if not isinstance(ratings, list) or len(ratings) != len(row["responses"]):
        raise TriviumError(
            f"a rating of each of the {len(row['responses'])} responses is needed (`ratings`), not {ratings!r}")
    bad = next((value for value in ratings if not isinstance(value, (int, float)) or not 1 <= value <= 7), None)
    if bad is not None:
        raise TriviumError(f"the rating {bad!r} is not a number from 1 to 7")


def ranked_batches(settings: Looped, context: Context) -> tuple[PackedEpochs, ChatTokenizer]:
    """The batches, and the tokenizer that made them."""
    config, _ = read_config(context.inputs["model"])
    tokenizer = load_tokenizer(context.inputs["model"], config.vocab_size)
    length = min(settings.length, config.max_positions)
    rated = isinstance(settings, Reward) and (settings.margin > 0 or settings.loss == "regression")
    rows = [row for row in rankings(context.inputs["preferences"], context, rated) if row["split"] == "train"]
    trees = fits((ranked_tree(tokenizer, row, rated) for row in rows), length, context.progress.say)
    seed = randomness.derive(context.seed, "member",
                             settings.member) if isinstance(settings, Reward) and settings.member else context.seed
    return PackedEpochs(trees, length, settings.rows, seed, add_ratings if rated else add_pairs), tokenizer


def ranked_tree(tokenizer: ChatTokenizer, row: Row, rated: bool = False) -> Tree:
    """A prompt with its ranked responses; those that were cut short (``finished``) have no token that ends them. Its
    payload is the ranking or, ``rated``, that and the ratings."""
    finished = row.get("finished") or [True] * len(row["responses"])
    responses = (response_ids(tokenizer, text)[:None if done else -1]
                 for text, done in zip(row["responses"], finished, strict=True))
    return Tree(prompt_ids(tokenizer, row["prompt"]), tuple(responses),
                payload=(row["ranking"], row["ratings"]) if rated else row["ranking"])


def score_trees(model: RewardModel, trees: Sequence[Tree], length: int, rows: int, precision: str) -> list[np.ndarray]:
    """The scores of each tree's responses, in the order of the trees, without the shift."""
    model.eval()
    device = model.score.weight.device

    def compute(batch: Batch) -> torch.Tensor:
        with autocast(precision, device):
            return score_ends(model, batch)

    return map_trees(compute, trees, length, rows, device, per_token=False)




BY_LENGTH = ("better is shorter", "alike", "better is longer")
"""How a pair's better response compares with the other: under 4/5 of its characters, about as many, over 5/4."""
BY_MARGIN = ("0 or less", "1", "2", "3 or more")
"""How many points of rating, rounded down, the better response is ahead."""


def looked_at(rows: Sequence[Row], points: Sequence[Sequence[float]], bins: int = 8) -> dict[str, object]:
    """How far the scores can be trusted on held-out rankings. ``calibration``: pairs by the probability that the scores
    give to the response they put first, sigmoid of the difference, with the share that people put first too.
    ``accuracy_by_length`` of pairs in which the better response is much shorter, about as long, or much longer;
    ``accuracy_by_margin``: of pairs by how far apart people rated them, where they did."""
    found: list[tuple[str, float, bool, str, str | None]] = []
    for row, values in zip(rows, points, strict=True):
        lengths, ratings, prompt = [max(1, len(text)) for text in row["responses"]], row.get("ratings"), prompt_of(row)
        for a, b in pairs_of(row["ranking"]):
            ratio = lengths[a] / lengths[b]
            by_length = BY_LENGTH[0 if ratio < 0.8 else 2 if ratio > 1.25 else 1]
            apart = BY_MARGIN[min(3, max(0, math.floor(ratings[a] - ratings[b])))] if ratings else None
            found.append((prompt, 1 / (1 + math.exp(-min(30.0, abs(values[a] - values[b])))), values[a]
                          > values[b], by_length, apart))

    def rate(chosen: list[tuple[str, float, bool, str, str | None]]) -> dict[str, Any]:
        return pooled((prompt, float(well), 1.0) for prompt, _, well, *_ in chosen)

    edges = [0.5 + 0.5 * i / bins for i in range(bins + 1)]
    calibration = []
    for low, high in itertools.pairwise(edges):
        inside = [pair for pair in found if low <= pair[1] < high or (high == 1.0 and pair[1] == 1.0)]
        if inside:
            calibration.append(
                {"predicted": float(np.mean([pair[1] for pair in inside])), **rate(inside), "pairs": len(inside)})
    summary: dict[str, object] = {"calibration": calibration}
    for name, place, groups in (("accuracy_by_length", 3, BY_LENGTH), ("accuracy_by_margin", 4, BY_MARGIN)):
        parts = [{"name": group, **rate(inside)} for group in groups
                 if (inside := [pair for pair in found if pair[place] == group])]
        if parts:
            summary[name] = parts
    return summary


def shown_responses(settings: Reward, context: Context, tokenizer: ChatTokenizer, length: int) -> list[Tree]:
    """Responses whose mean score becomes 0: those of demonstrations, or the best of each training ranking."""
    if settings.demonstrations:
        rows = rows_of(context.inputs["demonstrations"], "demonstrations.jsonl", ["messages"], context)
        shown = [(row["messages"][:-1], row["messages"][-1]["content"]) for row in rows
                 if row["messages"] and row["messages"][-1]["role"] == "assistant"]
    else:
        shown = [(row["prompt"], row["responses"][row["ranking"][0][0]])
                 for row in rankings(context.inputs["preferences"], context) if row["split"] == "train"]
    trees = [Tree(prompt_ids(tokenizer, prompt), (response_ids(tokenizer, text),)) for prompt, text in shown[:500]]
    kept = [tree for tree in trees if len(tree) <= length]
    if not kept:
        raise TriviumError(
            f"reward: no demonstration fits rows of {length} tokens, but their mean score is to become 0; raise "
            "`length`"
        )
    return kept


def prompt_of(row: Row) -> str:
    """What two rankings of the same prompt have in common, whoever made them."""
    return json.dumps(row["prompt"], sort_keys=True, ensure_ascii=False)


def pooled(counts: Iterable[tuple[str, float, float]]) -> dict[str, Any]:
    """The share of ``(prompt, right, total)`` with a 95 % interval that takes the prompt as what was drawn: its pairs,
    and what several annotators say of them, stand and fall together."""
    right, total = defaultdict[str, float](float), defaultdict[str, float](float)
    for prompt, hits, of in counts:
        if of:
            right[prompt] += hits
            total[prompt] += of
    return mean_interval(list(right.values()), list(total.values()))


def accuracy(rows: Sequence[Row], points: Sequence[Sequence[float]], by_length: int = 0) -> dict[str, Any]:
    """Share of the rankings' pairs that ``points`` order alike (equal points count half), with its :func:`pooled`
    interval. ``by_length`` of 1 judges by length instead, of -1 by shortness."""
    if by_length:
        points = [[float(by_length * len(text)) for text in row["responses"]] for row in rows]
    found = []
    for row, values in zip(rows, points, strict=True):
        pairs = pairs_of(row["ranking"])
        found.append((prompt_of(row), sum(
            (values[a] > values[b]) + 0.5 * (values[a] == values[b]) for a, b in pairs), float(len(pairs))))
    return pooled(found)


def annotators_agreement(rows: Sequence[Row]) -> dict[str, Any]:
    """How often two annotators order a pair of responses alike, of the pairs that both prefer something in: what a
    reward model's accuracy is to be held against. Its value is None where nothing was ranked by two."""
    alike: dict[tuple[str, ...], dict[str, Row]] = defaultdict(dict)
    for row in rows:
        if row.get("annotator") is not None:
            alike[prompt_of(row), *row["responses"]].setdefault(str(row["annotator"]), row)
    found = []
    for key, by in alike.items():
        for one, other in itertools.combinations(by.values(), 2):
            same, both = pair_agreement(one["ranking"], other["ranking"])
            found.append((key[0], float(same), float(both)))
    return pooled(found)


def true_points(row: Row) -> list[float]:
    """What a noiseless judge would give each response: minus its place in the true ranking."""
    points = [0.0] * len(row["responses"])
    for place, group in enumerate(judge(row, row["responses"])):
        for index in group:
            points[index] = -float(place)
    return points
