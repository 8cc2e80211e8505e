"""What scores of held-out rankings are worth: accuracy, calibration, and what they are to be held against."""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trivium.feedback.agreement import pair_agreement
from trivium.files import Row
from trivium.intervals import mean_interval
from trivium.stages.preferences.rankings import pairs_of
from trivium.tokenizer.chat import text_of_answer
from trivium.world.panel import judge

BY_LENGTH = ("better is shorter", "alike", "better is longer")
"""How a pair's better response compares with the other: under 4/5 of its characters, about as many, over 5/4."""
BY_MARGIN = ("0 or less", "1", "2", "3 or more")
"""How many points of rating, rounded down, the better response is ahead."""


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
    lengths = [max(1, len(text_of_answer(one))) for one in row["responses"]]
    ratings, prompt = row.get("ratings"), prompt_of(row)
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
        points = [[float(by_length * len(text_of_answer(one))) for one in row["responses"]] for row in rows]
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
            alike[prompt_of(row), *map(text_of_answer, row["responses"])].setdefault(str(row["annotator"]), row)
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
