"""Models on tasks: what ``trivium evaluate`` does, and what the stage ``evaluate`` does with its tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from trivium.errors import TriviumError
from trivium.evaluation.model import EvaluatedModel
from trivium.evaluation.statistics import mcnemar, paired_test
from trivium.evaluation.tasks.load import load_task
from trivium.evaluation.tasks.task import Result, Task
from trivium.files import Row, write_rows
from trivium.progress import Progress
from trivium.training.machine import autocast, prepare, resolve_precision
from trivium.training.settings import Precision

LoadedTask = tuple[Path, Task]
"""A task with its YAML file."""


def run_tasks(models: Sequence[Path], tasks: Sequence[Path], against: Path | None = None, overrides: Iterable[str] = (),
              seed: int = 0, answers: Path | None = None, quiet: bool = False,
              precision: Precision = "float32") -> dict[str, Any]:
    """``{model: {task: figures}}``. Where ``against`` names a model, each task's figures have ``p_value``: how likely
    so great a difference is if both do equally well. ``answers`` is a file to write every question to,
    ``precision`` the number format of the products.

    Raises :class:`TriviumError` before any model is read for a task file or a row that is not right, a folder that is
    no model's and a judge that cannot be reached."""
    loaded = load_tasks(tasks, overrides, against is not None)
    for folder in (*models, *([against] if against else [])):
        EvaluatedModel.check(folder)
    for file, task in loaded:
        task.check(file)
    device = prepare()
    results: dict[str, Any] = {}
    rows: list[Row] = []
    with Progress(quiet) as progress, autocast(resolve_precision(precision, device), device):
        opponent = EvaluatedModel.load(against, seed, device=device) if against else None
        theirs: dict[str, Result] = {}
        if opponent:
            progress.stage(str(against))
            theirs = dict(examine(opponent, loaded))
        for folder in models:
            progress.stage(str(folder))
            figures = results[str(folder)] = {}
            for name, result in examine(EvaluatedModel.load(folder, seed, progress.update, device), loaded, opponent):
                figures[name] = result.summary()
                p_value = compare(result, theirs[name]) if name in theirs else None
                if p_value is not None:
                    figures[name]["p_value"] = p_value
                rows += answer_rows(str(folder), result)
    if against:
        own = results.setdefault(str(against), {})
        own.update({name: result.summary() for name, result in theirs.items() if name not in own})
    if answers:
        write_rows(answers, rows)
    return results


def load_tasks(files: Sequence[Path], overrides: Iterable[str] = (), opponent: bool = True) -> list[LoadedTask]:
    """The tasks of YAML files. Raises :class:`TriviumError` for two of one name, and for a win rate where there is no
    ``opponent``."""
    overrides = list(overrides)
    loaded = [(file, load_task(file, overrides)) for file in files]
    names = [task.name for _, task in loaded]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise TriviumError(f"two tasks are called {double!r}; give one of them another `name`")
    if not opponent and (lonely := next((file for file, task in loaded if task.needs_opponent), None)):
        raise TriviumError(f"{lonely}: a win rate needs a model to compare with; name it with --against")
    return loaded


def examine(model: EvaluatedModel, tasks: Iterable[LoadedTask],
            opponent: EvaluatedModel | None = None) -> Iterator[tuple[str, Result]]:
    """``(task's name, result)`` of each task. Without an opponent, tasks that need one are left out."""
    for file, task in tasks:
        if opponent or not task.needs_opponent:
            yield task.name, task.examine(file, model, opponent)


def answer_rows(model: str, result: Result) -> list[Row]:
    """Every question of a result with the model's answer, as the files of answers have them."""
    return [{"model": model, "task": result.task, **row} for row in result.rows]


def compare(first: Result, second: Result) -> float | None:
    """The p-value of "both models do equally well", on the questions that both were asked, which count by their
    clusters; None where scores cannot be compared."""
    theirs = {row["where"]: row["score"] for row in second.rows if has_score(row)}
    both = [row for row in first.rows if has_score(row) and row["where"] in theirs]
    if not both:
        return None
    ours, others = [row["score"] for row in both], [theirs[row["where"]] for row in both]
    clusters = [row.get("cluster", row["where"]) for row in both]
    if len(set(clusters)) == len(both) and all(score in (0.0, 1.0) for score in (*ours, *others)):
        return mcnemar([score == 1.0 for score in ours], [score == 1.0 for score in others])
    return paired_test(ours, others, clusters)


def has_score(row: Row) -> bool:
    """Whether a question can be found again, and has a score."""
    return "where" in row and row.get("score") is not None
