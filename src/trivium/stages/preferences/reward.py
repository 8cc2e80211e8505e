"""The reward model: a score that agrees with the rankings."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, field_validator

from trivium import randomness
from trivium.errors import TriviumError, nearest
from trivium.extensions import file_of
from trivium.feedback.agreement import pair_agreement
from trivium.files import Row
from trivium.intervals import mean_interval
from trivium.model import LanguageModel, RewardModel
from trivium.model.adapter_settings import AdapterSettings
from trivium.model.adapters import attach
from trivium.model.adapters.folder import weights_digest
from trivium.model.folder import read_config
from trivium.objectives.functions import pair_losses
from trivium.objectives.ranking import find_pairwise_loss, ranking_losses, rating_losses
from trivium.stage import Code, Context, Figure, Input, Panel, Title
from trivium.stages.cost import Estimate
from trivium.stages.models import adapt, load_language_model, load_tokenizer, prompt_ids, response_ids, save_trained
from trivium.stages.outlook import Cost, Outlook, Step
from trivium.stages.preferences.cost import cost_of_rankings
from trivium.stages.rows import rows_of
from trivium.stages.scores import score_ends, score_trees
from trivium.stages.training import Looped, run_training
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.batch import Batch, Tree
from trivium.training.epochs import PackedEpochs, contents_of, fits
from trivium.training.machine import prepare, resolve_precision
from trivium.training.objective import Objective, Total
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
    loss: Code = "ranking"
    """ranking: InstructGPT's, over all pairs; regression: the squared error of ratings 1 to 7, to compare with. Or
    FILE.py:NAME: a function of the pairs' (chosen, rejected, margins), scores and what they are to differ by."""
    margin: float = Field(0.0, ge=0)
    """ranking, and a loss of your own: a pair's scores are to differ by this much for each point that its ratings
    differ (Llama 2: graded preferences)."""
    member: int = Field(0, ge=0)
    """Another number gives another head and another order of the same rankings: members of an ensemble are stages that
    differ in it."""

    @field_validator("loss")
    @classmethod
    def _a_loss(cls, loss: str) -> str:
        with refusing():
            find_objective(loss)
        return loss

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
        policy, tokenizer = load_language_model(context.inputs["model"])
        good = shown_responses(self, context, tokenizer, min(self.length, policy.config.max_positions))
        attached = adapt(policy, self.adapter, context)
        model = policy.rewarding(randomness.derive(context.seed, "head", *([self.member] if self.member else [])),
                                 share=attached is not None).to(device)
        length = min(self.length, model.config.max_positions)
        precision = resolve_precision(self.precision, device)
        rows = rankings(context.inputs["preferences"], context, self.rated)
        batches, _ = self.training_data(context)
        training = batches.trees
        steps = max(1, round(self.epochs * batches.steps_per_epoch))
        outcome = run_training(model, find_objective(self.loss, self.margin), batches, steps, self, context,
                               weights_digest(context.inputs["model"]), contents_of(training))
        if not outcome.leader:
            return {}
        model = outcome.model
        model.shift = -float(np.mean(np.concatenate(score_trees(model, good, length, self.rows, precision))))
        save_trained(model, attached, tokenizer, context.inputs["model"], context)
        judged = fitting(tokenizer, [row for row in rows if row["split"] == "heldout"], length, context)
        scores = score_trees(model, [tree for tree, _ in judged], length, self.rows, precision)
        return {"rankings": len(training), "steps": steps, "precision": outcome.precision, "shift": model.shift
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

        tree = full_ranking(min(self.length, config.max_positions))
        return self.step_with(estimate, models, Ranking(),
                              self.full_batches(processes, tree, add_pairs, min(self.length, config.max_positions)))


PairwiseLoss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Of the scores of a pair's chosen and rejected response, and the margin between them, all ``[P]``: a loss ``[P]``."""


class Ranking(Objective):
    """A pairwise loss, InstructGPT's by default, over all pairs of each prompt's responses, every response encoded
    once. ``margin`` is what a pair's scores are to differ by for each point that its ratings differ."""

    weights = {"loss": 1.0}

    def __init__(self, margin: float = 0.0, loss: PairwiseLoss = ranking_losses, name: str = "ranking") -> None:
        self.margin, self.loss, self.name = margin, loss, name

    def __call__(self, model: Any, batch: Batch) -> dict[str, Total]:
        """The mean over prompts of the mean over a prompt's pairs."""
        scores, winners, losers = score_ends(model, batch), batch.extra["winners"], batch.extra["losers"]
        margins = scores.new_zeros(len(winners))
        if self.margin:
            ratings = batch.extra["ratings"]
            margins = self.margin * (ratings[winners] - ratings[losers]).clamp(min=0)
        losses = pair_losses(self.name, self.loss, [scores[winners], scores[losers]], margins)
        return {"loss": Total((losses * batch.extra["pair_weights"]).sum(), "trees"),
                "accuracy": right_pairs(scores, batch)}


class Regression(Objective):
    """Regression on the responses' ratings, to compare rankings with."""

    weights = {"loss": 1.0}

    def __call__(self, model: Any, batch: Batch) -> dict[str, Total]:
        """The mean over responses."""
        scores = score_ends(model, batch)
        return {"loss": Total(rating_losses(scores, batch.extra["ratings"]).sum(), "responses"),
                "accuracy": right_pairs(scores, batch)}


def find_objective(loss: str, margin: float = 0.0) -> Ranking | Regression:
    """The objective that the setting ``loss`` names. Raises :class:`TriviumError` for an unknown one, and for a
    function of the user's own that does not take what it is given."""
    if loss == "regression":
        return Regression()
    if loss == "ranking":
        return Ranking(margin)
    if file_of(loss) is None:
        raise TriviumError(f"there is no loss {loss!r} (one of your own is FILE.py:NAME)"
                           f"{nearest(loss, ('ranking', 'regression'))}")
    return Ranking(margin, find_pairwise_loss(loss), loss)


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Within it, a :class:`TriviumError` refuses the setting that is being validated."""
    try:
        yield
    except TriviumError as error:
        raise ValueError(str(error)) from error


def right_pairs(scores: torch.Tensor, batch: Batch) -> Total:
    """The pairs whose better response has the higher score."""
    right = scores[batch.extra["winners"]] > scores[batch.extra["losers"]]
    return Total(right.float().sum(), "pairs")


def pairs_of(ranking: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """All (better, worse) pairs of a ranking; ties are in none."""
    return [(better, worse) for i, group in enumerate(ranking) for better in group
            for later in ranking[i + 1:] for worse in later]


Places = list[list[int]]
"""A ranking: groups of responses by their number, best first; those in a group are tied."""


@dataclass(frozen=True)
class Rated:
    """A ranking with the ratings that it came with."""

    ranking: Places
    ratings: Sequence[float]
    """Of each response, 1 to 7."""


def add_ratings(batch: Batch) -> None:
    """Give a batch of trees that carry :class:`Rated` rankings its pairs and ratings."""
    trees: list[Tree[Rated]] = batch.trees
    add_pairs_of(batch, [tree.payload.ranking for tree in trees])
    batch.extra["ratings"] = torch.tensor([float(rating) for tree in trees for rating in tree.payload.ratings])


def add_pairs(batch: Batch) -> None:
    """Give a batch of trees that carry their rankings its pairs."""
    trees: list[Tree[Places]] = batch.trees
    add_pairs_of(batch, [tree.payload for tree in trees])


def add_pairs_of(batch: Batch, rankings: Sequence[Places]) -> None:
    """Give a batch the pairs of its trees' rankings: ``winners`` and ``losers [P]`` number the batch's responses, and
    ``pair_weights [P]`` of one prompt add up to 1."""
    winners: list[int] = []
    losers: list[int] = []
    weights: list[float] = []
    first = 0
    for tree, ranking in zip(batch.trees, rankings, strict=True):
        pairs = pairs_of(ranking)
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
    rated = isinstance(settings, Reward) and settings.rated
    rows = [row for row in rankings(context.inputs["preferences"], context, rated) if row["split"] == "train"]
    trees = fits((ranked_tree(tokenizer, row, rated) for row in rows), length, context.progress.say)
    seed = context.seed
    if isinstance(settings, Reward) and settings.member:
        seed = randomness.derive(seed, "member", settings.member)
    return PackedEpochs(trees, length, settings.rows, seed, add_ratings if rated else add_pairs), tokenizer


def ranked_tree(tokenizer: ChatTokenizer, row: Row, rated: bool = False) -> Tree[Any]:
    """A prompt with its ranked responses; those that were cut short (``finished``) have no token that ends them. It
    carries the ranking, ``rated`` as :class:`Rated`."""
    finished = row.get("finished") or [True] * len(row["responses"])
    responses = (response_ids(tokenizer, text)[:None if done else -1]
                 for text, done in zip(row["responses"], finished, strict=True))
    return Tree(prompt_ids(tokenizer, row["prompt"]), tuple(responses),
                payload=Rated(row["ranking"], row["ratings"]) if rated else row["ranking"])


def fitting(tokenizer: ChatTokenizer, rows: Sequence[Row], length: int, context: Context) -> list[tuple[Tree, Row]]:
    """Held-out rankings as trees, those that fit ``length`` tokens; how many do not is said."""
    found = [(tree, row) for row in rows if len(tree := ranked_tree(tokenizer, row)) <= length]
    if len(found) < len(rows):
        context.progress.say(f"{len(rows) - len(found)} of {len(rows)} held-out rankings are longer than {length} "
                             "tokens and were left out")
    return found


def heldout_summary(rows: Sequence[Row], points: Sequence[Sequence[float]],
                    training: Sequence[Row]) -> dict[str, object]:
    """What the scores ``points`` of held-out rankings are worth, beside what annotators agree on, what length alone
    would get (longer or shorter, as the ``training`` rankings prefer), and what a noiseless judge would get, where the
    truth is known."""
    summary: dict[str, object] = {"accuracy": accuracy(rows, points)}
    if (people := annotators_agreement(rows))["value"] is not None:
        summary["agreement"] = people
    longer = accuracy(training, [], by_length=1)["value"]
    summary["length_accuracy"] = accuracy(rows, [], by_length=1 if longer is None or longer >= 0.5 else -1)
    if rows and all("truth" in row for row in rows):
        summary["ceiling"] = accuracy(rows, [true_points(row) for row in rows])
    return summary | score_statistics(rows, points)


BY_LENGTH = ("better is shorter", "alike", "better is longer")
"""How a pair's better response compares with the other: under 4/5 of its characters, about as many, over 5/4."""
BY_MARGIN = ("0 or less", "1", "2", "3 or more")
"""How many points of rating, rounded down, the better response is ahead."""


@dataclass(frozen=True)
class JudgedPair:
    """A pair of responses that people and the scores have ordered."""

    prompt: str
    confidence: float
    """The probability that the scores give to the response they put first: the sigmoid of their difference."""
    right: bool
    """Whether people put the same one first."""
    length: str
    """One of ``BY_LENGTH``."""
    margin: str | None
    """One of ``BY_MARGIN``; None where people gave no ratings."""


def judged_pairs(row: Row, scores: Sequence[float]) -> Iterator[JudgedPair]:
    """The pairs of a ranking, with the scores of its responses."""
    lengths, ratings, prompt = [max(1, len(text)) for text in row["responses"]], row.get("ratings"), prompt_of(row)
    for better, worse in pairs_of(row["ranking"]):
        ratio = lengths[better] / lengths[worse]
        length = BY_LENGTH[0 if ratio < 0.8 else 2 if ratio > 1.25 else 1]
        margin = BY_MARGIN[min(3, max(0, math.floor(ratings[better] - ratings[worse])))] if ratings else None
        difference = scores[better] - scores[worse]
        yield JudgedPair(prompt, 1 / (1 + math.exp(-min(30.0, abs(difference)))), difference > 0, length, margin)


def score_statistics(rows: Sequence[Row], points: Sequence[Sequence[float]], bins: int = 8) -> dict[str, object]:
    """How far the scores can be trusted on held-out rankings. ``calibration``: pairs by the probability that the scores
    give to the response they put first, with the share that people put first too. ``accuracy_by_length``: of pairs in
    which the better response is much shorter, about as long, or much longer. ``accuracy_by_margin``: of pairs by how
    far apart people rated them, where they did."""
    pairs = [pair for row, scores in zip(rows, points, strict=True) for pair in judged_pairs(row, scores)]
    summary: dict[str, object] = {"calibration": calibration(pairs, bins)}
    by_length = [(group, [pair for pair in pairs if pair.length == group]) for group in BY_LENGTH]
    by_margin = [(group, [pair for pair in pairs if pair.margin == group]) for group in BY_MARGIN]
    for name, groups in (("accuracy_by_length", by_length), ("accuracy_by_margin", by_margin)):
        parts = [{"name": group, **rate_of(inside)} for group, inside in groups if inside]
        if parts:
            summary[name] = parts
    return summary


def calibration(pairs: Sequence[JudgedPair], bins: int) -> list[dict[str, Any]]:
    """Pairs by their confidence, in ``bins`` of equal width from a half to 1: its mean, and the share that is right."""
    parts = []
    for low, high in itertools.pairwise([0.5 + 0.5 * i / bins for i in range(bins + 1)]):
        inside = [pair for pair in pairs if low <= pair.confidence < high or high == pair.confidence == 1.0]
        if inside:
            predicted = float(np.mean([pair.confidence for pair in inside]))
            parts.append({"predicted": predicted, **rate_of(inside), "pairs": len(inside)})
    return parts


def rate_of(pairs: Sequence[JudgedPair]) -> dict[str, Any]:
    """The share of pairs that is right, with its interval."""
    return pooled((pair.prompt, float(pair.right), 1.0) for pair in pairs)


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
    counts = []
    for row, values in zip(rows, points, strict=True):
        pairs = pairs_of(row["ranking"])
        right = sum((values[a] > values[b]) + 0.5 * (values[a] == values[b]) for a, b in pairs)
        counts.append((prompt_of(row), right, float(len(pairs))))
    return pooled(counts)


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


def full_ranking(length: int) -> Tree:
    """A prompt with four ranked responses that fills a row of ``length`` places."""
    each = max(1, length // 5)
    return Tree(np.zeros(max(1, length - 4 * each), np.int64), (np.zeros(each, np.int64),) * 4,
                payload=[[0], [1], [2], [3]])
