"""What the runs of a study measured: figures of every stage, and of every model that was examined what it scored at
each prompt."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trivium.artifacts import Artifact
from trivium.files import Row, read_rows
from trivium.report.formats import is_known_rate, is_number
from trivium.report.gather import Gathered, collected, marked
from trivium.stages.registry import Stages
from trivium.stages.results.answers import cluster_of
from trivium.stages.results.exam_rows import PROMPTS
from trivium.study.driver import Outcome

BEST_OF = re.compile(r"-best-of-\d+$")
Item = Hashable
"""A prompt or a question, told apart from all others of its examination."""


@dataclass
class Method:
    """A model of an examination under one setting, in the runs of all seeds."""

    setting: str
    exam: str
    """The stage that examined it."""
    model: str
    label: str = ""
    """What tables call it."""
    digests: dict[int, str] = field(default_factory=dict)
    """The model's digest, by seed, as far as it is an artifact's."""
    figures: dict[int, dict[str, Any]] = field(default_factory=dict)
    """By seed the numbers and rates that the examination says of it."""
    scores: dict[str, dict[int, dict[Item, float]]] = field(default_factory=dict)
    """By test and seed what it scored at each prompt."""
    samples: dict[int, dict[Item, str]] = field(default_factory=dict)
    """By seed its sampled answers, which ``points`` are about."""

    @property
    def family(self) -> str:
        """What it shares with the models of other settings: its name, without how many samples the best was of."""
        return BEST_OF.sub("-best-of", self.model)

    def means(self, key: str) -> dict[int, float]:
        """A figure by seed, where it is a number."""
        return {seed: float(figures[key]) for seed, figures in self.figures.items() if is_number(figures.get(key))}


@dataclass
class Measured:
    """Everything that a study's runs measured."""

    methods: list[Method]
    stages: dict[str, dict[str, dict[int, dict[str, Any]]]]
    """By stage, setting and seed the stage's own numbers and rates."""
    clusters: dict[Item, Hashable]
    """What prompts stand and fall with."""
    runs: dict[tuple[str, int], Gathered]
    """By setting and seed all that a report is made of."""
    merged: list[str]
    """Models that are the same in several settings, and are shown once."""
    known: set[str] = field(default_factory=set)
    """The names of all models that were examined."""

    def figure_name(self, key: str, stage: str | None = None) -> str:
        """What a figure is called in English."""
        for run in self.runs.values():
            for name in [stage] if stage else run.manifests:
                if name in run.manifests and key in run.displays[name].figures:
                    return run.displays[name].figures[key][0]
        from trivium.report.texts import figure_words
        return figure_words(key)[0]


def measure(outcomes: Sequence[Outcome], models: Iterable[str] = ()) -> Measured:
    """Read what runs measured; of the examinations' models those that are named, by default all."""
    wanted, known = set(models), Stages()
    methods: dict[tuple[str, str, str], Method] = {}
    found = Measured([], {}, {}, {}, [])
    for one in outcomes:
        made = [artifact for artifact in one.artifacts.values() if artifact.kind != "report"]
        if not made:
            continue
        setting, seed = one.run.setting, one.run.seed
        found.runs[setting, seed] = collected(one.run.label, made, known)
        for artifact in made:
            if artifact.kind == "evaluate":
                order = list(getattr(one.run.recipe.stages.get(artifact.name), "models", {}))
                order = [str(artifact.summary.get("baseline")), *order]
                for method in sorted(examined(artifact, setting, seed, methods, found.clusters),
                                     key=lambda method: place_of(method.model, order)):
                    methods.setdefault((setting, artifact.name, method.model), method)
            else:
                own = {key: value for key, value in artifact.summary.items()
                       if is_number(value) or is_known_rate(value)}
                found.stages.setdefault(artifact.name, {}).setdefault(setting, {})[seed] = own
    found.known = {method.model for method in methods.values()}
    named = [method for method in methods.values() if not wanted or method.model in wanted]
    found.methods, found.merged = told_apart(named)
    return found


def place_of(model: str, order: Sequence[str]) -> int:
    """Where a model stands: the one that others are compared with first, then as in the recipe, the best of its
    samples behind each."""
    known = BEST_OF.sub("", model)
    return order.index(known) if known in order else len(order)


def examined(artifact: Artifact, setting: str, seed: int, methods: dict[tuple[str, str, str], Method],
             clusters: dict[Item, Hashable]) -> Iterator[Method]:
    """The models of one examination, with what it says of them added."""
    folders = artifact.manifest["inputs"]
    of_exam: dict[str, Method] = {}
    for name, figures in artifact.summary.get("models", {}).items():
        method = methods.get((setting, artifact.name, name)) or Method(setting, artifact.name, name)
        method.digests[seed] = str(folders.get(f"models.{name}", folders.get(name, {})).get("digest", ""))
        method.figures[seed] = flat_figures(figures)
        of_exam[name] = method
    for name, tasks in artifact.summary.get("tasks", {}).items():
        method = of_exam.setdefault(name, methods.get((setting, artifact.name, name))
                                    or Method(setting, artifact.name, name))
        method.figures.setdefault(seed, {}).update(
            {f"{task} {key}": value for task, result in tasks.items() for key, value in flat_figures(result).items()})
    if (artifact.folder / "answers.jsonl").is_file():
        add_answers(artifact, seed, of_exam, clusters)
    if (artifact.folder / "tasks.jsonl").is_file():
        for _, row in read_rows(artifact.folder / "tasks.jsonl"):
            if row.get("model") in of_exam and is_number(row.get("score")) and "where" in row:
                item = (artifact.name, row["task"], str(row["where"]))
                clusters[item] = (row["task"], str(row.get("cluster", row["where"])))
                score(of_exam[row["model"]], str(row["task"]), seed, item, row["score"])
    yield from of_exam.values()


def flat_figures(figures: Any) -> dict[str, Any]:
    """The numbers and rates of a model."""
    return {key: value for key, value in figures.items() if is_number(value) or is_known_rate(value)}


def score(method: Method, test: str, seed: int, item: Item, value: Any) -> None:
    """Note what a model scored at a prompt."""
    method.scores.setdefault(test, {}).setdefault(seed, {})[item] = float(value)


def add_answers(artifact: Artifact, seed: int, of_exam: dict[str, Method], clusters: dict[Item, Hashable]) -> None:
    """Note what an examination's models scored at each of its prompts."""
    rows = marked(artifact)
    asked = asked_rows(artifact)
    for row in rows:
        item = (artifact.name, str(row["id"]), json.dumps(row["prompt"], sort_keys=True, ensure_ascii=False))
        clusters[item] = cluster_of(asked.get(row["id"], row))
        for name, method in of_exam.items():
            for test, values in (("right", row.get("right", {})), ("points", row.get("points", {})),
                                 ("loss", row.get("losses", {}))):
                if values.get(name) is not None:
                    score(method, test, seed, item, values[name])
            for label, value in row.get("checked", {}).get(name, {}).items():
                score(method, label, seed, item, value)
            if isinstance(text := row.get("samples", {}).get(name), str):
                method.samples.setdefault(seed, {})[item] = text


def asked_rows(artifact: Artifact) -> dict[Any, Row]:
    """The rows that an examination's prompts were, by their ids, where they are still there."""
    made = artifact.manifest["inputs"].get("prompts")
    if not made:
        return {}
    place = Path(os.path.normpath(artifact.folder / made["path"]))
    for file in (place / PROMPTS, place):
        if file.is_file() and file.suffix == ".jsonl":
            return {row["id"]: row for _, row in read_rows(file) if "id" in row and "prompt" in row}
    return {}


def told_apart(methods: Sequence[Method]) -> tuple[list[Method], list[str]]:
    """The methods with the labels that tables have for them, without those that are the same model with the same
    figures as one of an earlier setting; and the labels of the ones that stand for several settings."""
    settings = {method.setting for method in methods}
    exams = {method.exam for method in methods}
    kept: list[Method] = []
    several: list[Method] = []
    for method in methods:
        twin = next((one for one in kept if one.model == method.model and one.exam == method.exam
                     and all(method.digests.values()) and one.digests == method.digests
                     and one.figures == method.figures and one.scores == method.scores), None)
        if twin is None:
            kept.append(method)
        elif twin not in several:
            several.append(twin)
    for method in kept:
        alone = len(settings) == 1 or method in several
        method.label = method.model if alone else f"{method.setting}: {method.model}"
        if len(exams) > 1:
            method.label += f" ({method.exam})"
    labels = [method.label for method in kept]
    for method in kept:
        if labels.count(method.label) > 1:
            method.label = f"{method.setting}: {method.model}"
    return kept, [method.label for method in several]
