"""What only the embedded world can be asked, for its truth is known: right answers by its rubric, and questions about
entities that it does not have."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from pathlib import Path
from typing import Any

from trivium import randomness
from trivium.errors import TriviumError
from trivium.evaluation.statistics import mean_difference, paired_test, rate
from trivium.files import Row, read_rows
from trivium.world import rubric
from trivium.world.language import unknown_words
from trivium.world.questions import questions
from trivium.world.town import ATTRIBUTES, KINDS, Entity, make_names

FACTS = "facts.jsonl"
"""The file of a ``world`` stage that lists its facts."""


def is_world(folder: Path) -> bool:
    """Whether a folder is one of a ``world`` stage."""
    return (folder / FACTS).is_file()


def points(prompts: Sequence[Row], answers: Sequence[str]) -> list[float]:
    """The rubric's total for each answer."""
    return [rubric.score(row, text).total for row, text in zip(prompts, answers, strict=True)]


def is_right(prompts: Sequence[Row], answers: Sequence[str]) -> list[float]:
    """1 for each right answer, 0 for each other one."""
    return [float(rubric.is_right(row, text)) for row, text in zip(prompts, answers, strict=True)]


def fact_of(row: Row) -> Hashable:
    """What a prompt asks about: questions about one fact stand and fall together."""
    truth = row["truth"]
    return (truth["entity"], truth["attribute"]) if "entity" in truth else str(row["id"])


def right_answers(prompts: Sequence[Row], answers: Sequence[str]) -> dict[str, Any]:
    """The share of right answers. Questions about one fact count as one cluster."""
    return rate(is_right(prompts, answers), [fact_of(row) for row in prompts])


def right_by_task(prompts: Sequence[Row], answers: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Right answers for each family of tasks."""
    rates = {}
    for task in sorted({row["task"] for row in prompts}):
        chosen = [(row, text) for row, text in zip(prompts, answers, strict=True) if row["task"] == task]
        rates[task] = right_answers([row for row, _ in chosen], [text for _, text in chosen])
    return rates


def right_difference(prompts: Sequence[Row], answers: Sequence[str], others: Sequence[str],
                     seed: int) -> dict[str, Any]:
    """How much more often a model is right than another one on the same prompts, with an interval over facts and the
    p-value of a paired test."""
    first, second = is_right(prompts, answers), is_right(prompts, others)
    clusters = [fact_of(row) for row in prompts]
    difference = mean_difference(first, second, seed, clusters)
    return difference | {"p_value": paired_test(first, second, clusters, seed)}


def broken(prompts: Sequence[Row], answers: Sequence[str], names: Collection[str]) -> list[float]:
    """1 for each answer that holds a word that exists nowhere: not in the town, whose people and things are ``names``,
    and not in its prompt."""
    return [float(bool(unknown_words(text, row, names))) for row, text in zip(prompts, answers, strict=True)]


def names_of(folder: Path) -> list[str]:
    """The names of everything in the world of a ``world`` stage's folder; none where it is none."""
    if not is_world(folder):
        return []
    return sorted({str(row["entity"]) for _, row in read_rows(folder / FACTS) if "entity" in row})


def unknown_questions(facts: Sequence[Row], file: str, count: int, seed: int) -> list[Row]:
    """``count`` questions about names that nobody in the world bears, made of the same syllables, and as many about its
    own entities: rows with ``where``, ``prompt``, ``exists`` and ``values``, all values that the attribute has.

    ``facts`` are the rows of ``file``. Raises :class:`TriviumError` that names the row for one that lacks a field."""
    for number, fact in enumerate(facts, 1):
        missing = next((name for name in ("entity", "kind", "attribute", "value", "split") if name not in fact), None)
        if missing:
            raise TriviumError(f"{file}: row {number}: the field {missing!r} is missing")
    values: dict[tuple[str, str], set[str]] = {}
    for fact in facts:
        values.setdefault((fact["kind"], fact["attribute"]), set()).add(fact["value"])
    known = sorted({(fact["entity"], fact["kind"]) for fact in facts if fact["split"] == "evaluation"})
    taken = [fact["entity"] for fact in facts]
    invented = [(name, kind) for kind in KINDS
                for name in make_names(randomness.python(seed, "unknown", kind), kind, 12, taken)]
    return [row for exists, entities in ((False, invented), (True, known))
            for row in _questions_about(entities, exists, values, count, seed)]


def _questions_about(entities: Sequence[tuple[str, str]], exists: bool, values: dict[tuple[str, str], set[str]],
                     count: int, seed: int) -> list[Row]:
    """Questions about entities ``(name, kind)``."""
    rng = randomness.python(seed, "unknown questions", exists)
    pool = [(Entity(name, kind, "evaluation", {}), attribute) for name, kind in entities
            for attribute in ATTRIBUTES[kind]]
    rows: list[Row] = []
    for number in range(count):
        entity, attribute = pool[number % len(pool)] if number >= len(pool) else rng.sample(pool, len(pool))[0]
        rows.append({
            "where": f"{entity.name}, {attribute}", "cluster": entity.name,
            "prompt": [{"role": "user", "content": rng.choice(questions(entity, attribute))}], "exists": exists,
            "values": sorted(values.get((entity.kind, attribute), ()))
        })
    return rows
