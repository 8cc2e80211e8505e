"""What stages logged on their way: curves, and samples of what they said."""

from __future__ import annotations

from markupsafe import Markup

from trivium.files import Row
from trivium.report import draw
from trivium.report.draw import Series, thinned
from trivium.report.examined import ROW_LIMIT
from trivium.report.gather import Gathered
from trivium.report.texts import words

FIRST, LAST = ("loss", "validation_loss"), ("tokens_per_second",)
"""What is drawn of every stage that logs it, before and after the curves of its own."""
SHOWN_SAMPLES = 5
"""Samples of a stage's way that are shown, the first and the last among them."""


def curves(found: Gathered) -> dict[str, list[Markup]]:
    """The drawings of every stage that logged."""
    drawn = {stage: curves_of(found, stage) for stage in found.logs}
    return {stage: charts for stage, charts in drawn.items() if charts}


def curves_of(found: Gathered, stage: str) -> list[Markup]:
    """The drawings of one stage, by step. Losses seen and held out stand in one drawing where both were logged."""
    seen, heldout = (found.points(stage, "step", key) for key in FIRST)
    together = len(seen) > 1 and len(heldout) > 1
    charts = []
    if together:  # where the lines part, it learns its rows by heart
        lines = [Series(words("training"), thinned(seen)), Series(words("held_out"), heldout, 1, True)]
        if "best_step" in found.manifests.get(stage, {}).get("summary", ()):
            lines.append(Series(words("kept"), [min(heldout, key=lambda point: point[1])], 2))
        charts.append(draw.line_chart(words("losses"), words("step"), found.figure("loss", stage), lines,
                                      key=f"c-{stage}-losses", smooth=False))
    for key in dict.fromkeys((*(() if together else FIRST), *found.displays[stage].panel.curves, *LAST)):
        points = found.points(stage, "step", key)
        if len(points) > 1:
            charts.append(draw.line_chart(found.figure(key, stage), words("step"), found.figure(key, stage),
                                          [Series(stage, points)], key=f"c-{stage}-{key}"))
    return charts


def samples(found: Gathered) -> dict[str, list[Row]]:
    """For every stage that practised, what the policy said along the way: some logged samples, evenly apart."""
    chosen: dict[str, list[Row]] = {}
    for name, rows in found.logs.items():
        said = [row for row in rows if isinstance(row.get("sample"), str) and isinstance(row.get("sample_prompt"), str)]
        if said:
            places = sorted({round(i * (len(said) - 1) / (SHOWN_SAMPLES - 1)) for i in range(SHOWN_SAMPLES)})
            chosen[name] = [said[i] | {key: said[i][key][:ROW_LIMIT] for key in ("sample", "sample_prompt")}
                            for i in places]
    return chosen
