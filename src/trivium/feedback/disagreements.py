"""What a run leaves open, as items for people: rankings that its reward model gets wrong, and answers of two models of
which no rubric says which is better."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trivium.artifacts import Artifact, open_artifact
from trivium.errors import TriviumError, nearest
from trivium.feedback.agreement import preferences
from trivium.feedback.simulate import Score, scores_of
from trivium.files import Row, read_rows

UNCLEAR = 1.0
"""Answers whose points differ by less are taken for equal."""


class Doubt(NamedTuple):
    """An item to ask people about, and how much there is to ask: the greater, the sooner."""

    weight: float
    item: Row


def of_run(folder: Path, load: Callable[[Path], Score], models: Sequence[str] = (), most: int | None = None,
           progress: Callable[[int, int], None] = lambda done, total: None) -> list[Row]:
    """The items of a run's disagreements, the greatest first: those of its reward models, which ``load`` opens, with
    people, and those between two of the ``models`` of its examinations (the first two by name, where none are named).

    Raises :class:`TriviumError` for a folder in which there is neither."""
    artifacts = [open_artifact(path.parent) for path in sorted(folder.glob("*/manifest.json"))]
    doubts: list[Doubt] = []
    asked = [one for one in artifacts if one.kind == "reward"]
    exams = [one for one in artifacts if (one.folder / "answers.jsonl").is_file()]
    if not asked and not exams:
        raise TriviumError(f"{folder}: no run with a reward model or an examination: there is nothing to disagree on")
    if not models:
        for artifact in asked:
            doubts += against_people(rankings_of(artifact), load(artifact.folder), artifact.name, progress)
    for artifact in exams:
        doubts += unclear(artifact, models)
    doubts.sort(key=lambda doubt: -doubt.weight)  # stable: of equals the reward models' come first
    items: dict[str, Row] = {}
    for _, item in doubts:
        items.setdefault(repr((item["prompt"], sorted(item["responses"]))), item)
    return list(items.values())[:most]


def rankings_of(reward: Artifact) -> list[Row]:
    """The held-out rankings beside which a reward model was laid: it has not seen them."""
    made = reward.manifest["inputs"].get("preferences")
    place = Path(os.path.normpath(reward.folder / made["path"])) if made else None
    if made and made["path"].startswith("project:"):
        kept = reward.folder.parent / ".work" / "projects" / made["digest"][:16]
        place = next(kept.glob("*"), None)
    file = place / "comparisons.jsonl" if place and place.is_dir() else place
    if file is None or not file.is_file():
        raise TriviumError(f"{reward.folder}: the rankings that it learned from are not there any more; run the recipe "
                           "again")
    return [row for _, row in read_rows(file) if row.get("split") == "heldout"]


def against_people(rows: Iterable[Row], score: Score, name: str,
                   progress: Callable[[int, int], None] = lambda done, total: None) -> Iterator[Doubt]:
    """The rankings of which a reward model orders some pair the other way. The weight is the greatest probability that
    it gives to what people did not prefer, ``sigmoid(score_worse - score_better)``, above 1/2."""
    given = list(rows)
    for number, row in enumerate(given, 1):
        scores = scores_of(score, row)
        gaps = [scores[worse] - scores[better] for better, worse in preferences(row["ranking"])]
        progress(number, len(given))
        if gaps and max(gaps) > 0:
            own = {"id": row["id"]} if row.get("id") is not None else {}  # that of the project it came from
            yield Doubt(1 / (1 + math.exp(-max(gaps))),
                        own | item_of(row, row["responses"], name) | {"scores": [scores]})


def unclear(exam: Artifact, models: Sequence[str] = ()) -> Iterator[Doubt]:
    """The prompts of an examination to which two models gave different answers, with equal points or none: no rubric
    says which is better. The weight is 1/2, and 1/4 without points. By default the models are the first two by name."""
    known = list(exam.manifest["settings"].get("models", {}))
    for name in models:
        if name not in known:
            raise TriviumError(f"{exam.folder}: no model {name!r} was examined{nearest(name, known)}")
    pair = list(models or known[:2])
    if len(pair) != 2:
        if models:
            raise TriviumError(f"two models can be compared; {len(pair)} are named")
        return
    for _, row in read_rows(exam.folder / "answers.jsonl"):
        texts = row.get("samples") or {}
        points = row.get("points") or {}
        if not all(name in texts for name in pair):
            texts, points = row.get("answers") or {}, {}
        answers = [str(texts.get(name, "")).strip() for name in pair]
        if not all(answers) or answers[0] == answers[1]:
            continue
        told = all(isinstance(points.get(name), int | float) for name in pair)
        apart = abs(points[pair[0]] - points[pair[1]]) if told else 0.0
        if not told or apart < UNCLEAR:
            yield Doubt(0.5 if told else 0.25, item_of(row, answers, exam.name) | {"models": pair})


def item_of(row: Mapping[str, Any], responses: Sequence[str], source: str) -> Row:
    """A row as an item: the truth that simulated annotators see goes with it."""
    texts = [one if isinstance(one, str) else one["content"] for one in responses]
    return {"prompt": row["prompt"], "responses": texts, "source": source,
            **{name: row[name] for name in ("task", "truth") if row.get(name) is not None}}
