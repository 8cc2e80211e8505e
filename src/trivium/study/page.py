"""A study's page: its tables, and the curves of all settings laid over one another. It needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from trivium.files import write_text
from trivium.report import draw
from trivium.report.curves import FIRST as LOSSES
from trivium.report.draw import Series, thinned
from trivium.report.texts import both, words
from trivium.study.results import Measured
from trivium.study.settings import Plan
from trivium.study.writing import cell, chosen, model_figures, small

MOST_LINES = 8
"""Settings that one drawing holds: the page has so many colours."""

Points = list[tuple[float, float]]


def write_page(path: Path, plan: Plan, found: dict[str, Any], measured: Measured) -> None:
    """Write the page, whole or not at all."""
    write_text(path, render(plan, found, measured))


def render(plan: Plan, found: dict[str, Any], measured: Measured) -> str:
    """The page as HTML."""
    folder = files("trivium.report")
    style, script = (folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    template = files("trivium.study").joinpath("page.html").read_text(encoding="utf-8")
    made = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    made.globals |= {"t": both, "cell": cell, "small": small}
    figures = plan.study.figures
    tests, keys = model_figures(found, figures)
    return made.from_string(template).render(
        found=found, style=Markup(style), script=Markup(script), tests=tests, keys=keys,
        stages={stage: (shown, settings) for stage, settings in found["stages"].items()
                if (shown := chosen(list(settings.values()), figures, differing=True))},
        curves=curves(plan, measured), kl=kl_charts(measured, tests))


def curves(plan: Plan, measured: Measured) -> dict[str, list[Markup]]:
    """For every stage that logged, its curves by step: a line a setting, the mean of its seeds."""
    made: dict[str, list[Markup]] = {}
    for stage in dict.fromkeys(stage for run in measured.runs.values() for stage in run.logs):
        runs = [run for run in measured.runs.values() if stage in run.logs]
        keys = dict.fromkeys((*LOSSES, *(key for run in runs for key in run.displays[stage].panel.curves)))
        charts = []
        for key in keys:
            series = lines_of(plan, measured, stage, key)
            if any(len(one.points) > 1 for one in series):
                title = runs[0].figure(key, stage)
                charts.append(draw.line_chart(title, words("step"), title, series, key=f"c-{stage}-{key}",
                                              smooth=False))
        if charts:
            made[stage] = charts
    return made


def lines_of(plan: Plan, measured: Measured, stage: str, key: str) -> list[Series]:
    """A line for each setting, the first so many; settings whose seeds all logged the same as an earlier one's share
    its line."""
    lines: list[Series] = []
    for setting in plan.settings:
        found = [run.points(stage, "step", key) for (name, _), run in measured.runs.items() if name == setting]
        points = mean_of([one for one in found if one])
        twin = next((place for place, one in enumerate(lines) if one.points == points), None)
        if twin is not None:
            both_names = f"{lines[twin].name}, {setting}"
            lines[twin] = Series(both_names, points, lines[twin].colour)
        elif points and len(lines) < MOST_LINES:
            lines.append(Series(setting, points, len(lines)))
    return lines


def mean_of(runs: Sequence[Points]) -> Points:
    """The mean of several runs at the steps that all of them have."""
    if not runs:
        return []
    at = [dict(points) for points in runs]
    steps = sorted(set(at[0]).intersection(*at[1:]))
    return thinned([(step, sum(one[step] for one in at) / len(at)) for step in steps])


def kl_charts(measured: Measured, tests: Sequence[str]) -> list[Markup]:
    """Each test's score by the KL from the start, a point for every model that has one."""
    charts = []
    for test in tests:
        families: dict[str, Points] = {}
        for method in measured.methods:
            kls = method.means("kl")
            scores = method.scores.get(test, {})
            seeds = [seed for seed in kls if seed in scores]
            if seeds:
                kl = sum(kls[seed] for seed in seeds) / len(seeds)
                score = sum(sum(scores[seed].values()) / len(scores[seed]) for seed in seeds) / len(seeds)
                families.setdefault(method.family, []).append((kl, score))
        series = [Series(family, sorted(points), number % MOST_LINES, True)
                  for number, (family, points) in enumerate(families.items())]
        if series:
            charts.append(draw.line_chart((f"{test} by KL", f"{test} 与 KL"), ("KL from the start (nats)",
                                          "与起点的 KL（奈特）"), (test, test), series, key=f"kl-{test}", smooth=False))
    return charts
