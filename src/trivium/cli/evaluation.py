"""``trivium evaluate``: models on tasks, and what came of it as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from trivium.errors import TriviumError
from trivium.evaluation.examine import Examinee, Result, compare, examine
from trivium.evaluation.tasks import Wins, load_task
from trivium.files import write_rows
from trivium.progress import Progress
from trivium.training.machine import prepare


def run_tasks(models: Sequence[Path], tasks: Sequence[Path], against: Path | None = None, overrides: Iterable[str] = (),
              seed: int = 0, answers: Path | None = None, quiet: bool = False) -> dict[str, Any]:
    """``{model: {task: figures}}``. Where ``against`` names a model, each task's figures have ``p_value``: how likely
    so great a difference is if both do equally well. Raises :class:`TriviumError` before any model is read for a task
    file that is not right."""
    loaded = [(path, load_task(path, overrides)) for path in tasks]
    names = [task.name for _, task in loaded]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise TriviumError(f"two tasks are called {double!r}; give one of them another `name`")
    if against is None and (lonely := next((path for path, task in loaded if isinstance(task, Wins)), None)):
        raise TriviumError(f"{lonely}: a win rate needs a model to compare with; name it with --against")
    device = prepare()
    found: dict[str, Any] = {}
    rows = []
    with Progress(quiet) as progress:
        other = Examinee.load(against, seed, device=device) if against else None
        theirs: dict[str, Result] = {}
        for path, task in loaded if other and against else []:
            if not isinstance(task, Wins):
                progress.stage(str(against))
                theirs[task.name] = examine(task, path, other)  # type: ignore[arg-type]
        for folder in models:
            progress.stage(str(folder))
            examinee = Examinee.load(folder, seed, progress.update, device)
            found[str(folder)] = {}
            for path, task in loaded:
                result = examine(task, path, examinee, other)
                figures = result.summary()
                if task.name in theirs and (p_value := compare(result, theirs[task.name])) is not None:
                    figures["p_value"] = p_value
                found[str(folder)][task.name] = figures
                rows += [{"model": str(folder), "task": task.name, **row} for row in result.rows]
        if against:
            found.setdefault(str(against), {}).update(
                {name: result.summary()
                 for name, result in theirs.items() if name not in found.get(str(against), {})})
    if answers:
        write_rows(answers, rows)
    return found


def told(results: dict[str, Any]) -> str:
    """The results as lines for people."""
    lines = []
    for model, tasks in results.items():
        lines.append(model)
        for task, figures in tasks.items():
            asked = ", ".join(f"{key} {value}" for key, value in figures.get("asked", {}).items())
            lines.append(f"  {task} ({figures['kind']}{', ' + asked if asked else ''})")
            for name, figure in figures.items():
                if name in ("kind", "asked", "classification"):
                    continue
                if name == "groups":
                    lines += [f"      {group:40} {shown(part)}" for group, part in figure.items()]
                else:
                    lines.append(f"    {name.replace('_', ' '):42} {shown(figure)}")
            for label, row in figures.get("classification", {}).get("classes", {}).items():
                lines.append(
                    f"      class {label:36} precision {row['precision']:.3f}  recall {row['recall']:.3f}  F1 "
                    f"{row['f1']:.3f}  n = {row['n']}"
                )
    return "\n".join(lines)


def shown(figure: Any) -> str:
    """A figure with its interval."""
    if isinstance(figure, dict):
        if figure["value"] is None:
            return "–"
        return f"{figure['value']:.4g} [{figure['low']:.4g}, {figure['high']:.4g}], n = {figure['n']}"
    return f"{figure:.4g}" if isinstance(figure, float) else str(figure)
