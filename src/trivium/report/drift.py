"""Rewards and right answers against the drift of the policy from where it began, in KL."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from trivium.report import draw
from trivium.report.draw import Series
from trivium.report.examined import baseline_of, evaluations, model_order, own_stage
from trivium.report.formats import is_number, is_rate
from trivium.report.gather import Gathered
from trivium.report.texts import figure_words, words


def drift(found: Gathered) -> list[Markup]:
    """Reward against KL, for every stage whose log has both, and points by the judge against KL, for all models that
    were examined."""
    drawn = [logged(found, key) for key in ("score", "watched_gold")]
    drawn += [rewarded_and_watched(found, stage) for stage in found.logs]
    drawn += [examined(found, name, manifest, key) for name, manifest in evaluations(found)
              for key in ("mean_points", "right_answers")]
    return [chart for chart in drawn if chart]


def logged(found: Gathered, key: str) -> Markup:
    """A logged quantity of all stages against the KL."""
    colours = model_order(found)
    lines = [Series(stage, points, colours.get(stage, place), True) for place, stage in enumerate(found.logs, 1)
             if (points := found.points(stage, "kl", key))]
    return draw.line_chart(words(f"drift_of_{key}"), figure_words("kl"), figure_words(key), lines,
                           key={"score": "drift-log", "watched_gold": "drift-watch"}[key], smooth=False)


def rewarded_and_watched(found: Gathered, stage: str) -> Markup:
    """What a stage is rewarded for beside what a judge says that it does not learn from; empty where it did not look
    at both several times."""
    keys = ("watched_score", "watched_gold")
    looks = [Series(figure_words(key), points, place, True) for place, key in enumerate(keys, 1)
             if len(points := gained(found, stage, key)) > 1]
    if len(looks) < len(keys):
        return Markup("")
    return draw.line_chart(words("drift_of_both", stage=stage), figure_words("kl"), words("gain"), looks,
                           key=f"drift-watch-{stage}", smooth=False)


def gained(found: Gathered, stage: str, key: str) -> list[tuple[float, float]]:
    """(KL, gain since the first look of the watch in deviations of its answers) of a quantity that the watch logs with
    its spread."""
    points = found.points(stage, "kl", key)
    spread = next((row[f"{key}_spread"] for row in found.logs[stage] if row.get(f"{key}_spread")), None)
    return [(kl, (value - points[0][1]) / spread) for kl, value in points] if spread else []


def examined(found: Gathered, name: str, manifest: dict[str, Any], key: str) -> Markup:
    """A figure of all models that an examination looked at against their KL; empty for fewer than two of them."""
    base, colours = baseline_of(manifest), model_order(found)
    places: dict[str, tuple[float, float]] = {}
    for model, figures in manifest["summary"]["models"].items():
        value = figures[key]["value"] if is_rate(figures.get(key)) else figures.get(key)
        kl = 0.0 if model == base else figures.get("kl")
        placed = model == base or "best_of" in figures or own_stage(found, manifest, model)
        if placed and is_number(value) and is_number(kl):
            places[model] = (float(kl), float(value))
    if len(places) < 2:
        return Markup("")
    lines = [Series(model, [places[model]], colours[model], True)
             for model in sorted(places, key=lambda model: colours[model])]
    return draw.line_chart(words(f"drift_of_{key}"), figure_words("kl"), figure_words(key), lines,
                           key=f"drift-{name}-{key}", smooth=False,
                           labels={point: model for model, point in places.items()})
