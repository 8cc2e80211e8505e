"""What the examinations say of models: wins, right answers, further tasks, and the answers themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trivium.files import Row
from trivium.report import texts
from trivium.report.formats import is_known_rate, is_rate
from trivium.report.gather import Gathered
from trivium.report.texts import TASK_FIGURES, Pair, task_figure_words

SHOWN_PROMPTS = 4
"""Prompts of each task whose answers are shown."""
ROW_LIMIT = 2000
"""Most characters of an answer that are shown."""
OTHER_COLOUR = 7
"""The colour of what is there for comparison alone."""


def evaluations(found: Gathered) -> list[tuple[str, dict[str, Any]]]:
    """The examinations: the name of each and its manifest."""
    return [(name, manifest) for name, manifest in found.manifests.items() if manifest["kind"] == "evaluate"]


def baseline_of(manifest: Mapping[str, Any]) -> str:
    """The model that an examination compares with."""
    return str(manifest["summary"].get("baseline") or manifest["settings"].get("baseline") or "sft")


def own_stage(found: Gathered, manifest: Mapping[str, Any], model: str) -> bool:
    """Whether a model is what the stage of its name made; others are there for comparison."""
    return model in found.manifests and Path(manifest["settings"].get("models", {}).get(model, "")).name == model


def model_order(found: Gathered) -> dict[str, int]:
    """Every model that was examined and its colour: the baseline first, then as in the run, what is only there for
    comparison last."""
    order: dict[str, int] = {}
    places = {name: place for place, name in enumerate(found.manifests)}
    for _, manifest in evaluations(found):
        baseline, models = baseline_of(manifest), manifest["summary"]["models"]
        own = [name for name in models if name == baseline or own_stage(found, manifest, name)]
        own.sort(key=lambda name: (name != baseline, places.get(name, 0)))
        for place, name in enumerate(own):
            order.setdefault(name, place % OTHER_COLOUR)
        for name in sorted(models, key=lambda name: (models[name].get("best_of", 0), name)):
            order.setdefault(name, OTHER_COLOUR)
    return order


def wins(found: Gathered) -> list[dict[str, Any]]:
    """The figure of InstructGPT: win rates against the baseline, with intervals; the baseline itself has half by
    definition."""
    made = []
    for name, manifest in evaluations(found):
        base, models = baseline_of(manifest), manifest["summary"]["models"]
        rows = []
        for model in model_order(found):
            figures = models.get(model, {})
            rate = figures.get(f"win_rate_vs_{base}")
            if model == base and figures:
                rows.append({"model": model, "rate": None, "controlled": None, "length": figures.get("mean_length"),
                             "kl": None})
            elif is_known_rate(rate):
                rows.append({
                    "model": model, "rate": rate, "controlled": figures.get(f"length_controlled_win_rate_vs_{base}"),
                    "length": figures.get("mean_length"), "kl": figures.get("kl")
                })
        if any(row["rate"] for row in rows):
            made.append({"stage": name, "base": base, "rows": rows, "judge": manifest["summary"].get("judge", "")})
    return made


def by_task(found: Gathered) -> list[dict[str, Any]]:
    """Right answers of every model in every family of tasks, beside the baseline's."""
    made = []
    for name, manifest in evaluations(found):
        examined, base = manifest["summary"]["models"], baseline_of(manifest)
        models = {model: examined[model] for model in model_order(found)
                  if "right_by_task" in examined.get(model, {})}
        if not models:
            continue
        tasks = dict.fromkeys(task for figures in models.values() for task in figures["right_by_task"])
        rows = [(task, {model: figures["right_by_task"].get(task) for model, figures in models.items()})
                for task in tasks]
        rows.append(("", {model: figures["right_answers"] for model, figures in models.items()}))
        differences = {model: figures[f"right_difference_vs_{base}"] for model, figures in models.items()
                       if is_rate(figures.get(f"right_difference_vs_{base}"))}
        made.append({"stage": name, "base": base if base in models else "", "models": list(models), "rows": rows,
                     "differences": differences})
    return made


def measured(found: Gathered) -> list[dict[str, Any]]:
    """What was measured on held-out rows besides wins and the world's right answers: the loss of the right answers, and
    the checkers; of each model, beside what it has more than the baseline."""
    made = []
    for name, manifest in evaluations(found):
        base, examined = baseline_of(manifest), manifest["summary"]["models"]
        models = {model: examined[model] for model in model_order(found) if model in examined}
        keys = dict.fromkeys(key for figures in models.values() for key, figure in figures.items()
                             if is_known_rate(figure) and "_vs_" not in key and key != "right_answers")
        rows = []
        for key in keys:
            rates = {model: figures[key] for model, figures in models.items() if key in figures}
            more = {model: figures.get(f"{key}_difference_vs_{base}") for model, figures in models.items()}
            rows.append((texts.measured_words(key), rates,
                         {model: figure for model, figure in more.items() if is_known_rate(figure)}))
        if rows:
            shown = [model for model in models if any(model in rates for _, rates, _ in rows)]
            made.append({"stage": name, "base": base, "models": shown, "rows": rows})
    return made


Rates = list[tuple[str, dict[str, Any]]]
"""Models, each with a rate."""


def further_tasks(found: Gathered) -> list[tuple[str, list[tuple[Pair, float | None, Rates]]]]:
    """Further tasks of the examinations: of each ``(task, [(figure, chance, [(model, rate)])])``."""
    made: dict[str, dict[str, Rates]] = {}
    chances: dict[str, float] = {}
    colours = model_order(found)
    for _, manifest in evaluations(found):
        examined = manifest["summary"].get("tasks", {})
        for model in sorted(examined, key=lambda model: colours.get(model, len(examined))):
            for task, figures in examined[model].items():
                if isinstance(figures.get("chance"), float):
                    chances[task] = figures["chance"]
                for key, figure in figures.items():
                    if is_known_rate(figure):
                        made.setdefault(task, {}).setdefault(key, []).append((model, figure))
    places = {key: place for place, key in enumerate(TASK_FIGURES)}
    return [(task, [(task_figure_words(key), chances.get(task) if key.startswith("accuracy") else None, figures[key])
                    for key in sorted(figures, key=lambda key: places.get(key, len(places)))])
            for task, figures in made.items()]


def points_of(row: Row, model: str) -> list[tuple[Pair, float]]:
    """What the checkers say of a model's answer to a prompt."""
    return [(texts.measured_words(label), value) for label, value in row.get("checked", {}).get(model, {}).items()]


def prompts(found: Gathered) -> list[tuple[str, list[Row]]]:
    """The first prompts of each task with all answers: chosen by their order alone, not by how they turned out."""
    order = list(model_order(found))
    made: dict[str, list[Row]] = {}
    for row in found.answers:
        rows = made.setdefault(str(row.get("task") or ""), [])
        if len(rows) < SHOWN_PROMPTS * (1 if row.get("task") else 6):
            answers = [(model, row["answers"][model][:ROW_LIMIT], row.get("right", {}).get(model),
                        points_of(row, model)) for model in order if model in row["answers"]]
            truth, reference = row.get("truth", {}), row.get("answer", "")
            rows.append({"prompt": row["prompt"], "answers": answers, "truth": ", ".join(truth.get("answers", [])[:1]),
                         "reference": (" / ".join(map(str, reference)) if isinstance(reference, list)
                                       else str(reference))[:ROW_LIMIT]})
    return sorted(made.items())
