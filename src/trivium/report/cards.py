"""The cards at the top of the page: of each stage that has one, the headline, and what to compare it with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trivium.report.examined import OTHER_COLOUR, baseline_of, evaluations, model_order, own_stage
from trivium.report.formats import (
    has_interval,
    interval,
    is_known_rate,
    is_number,
    is_rate,
    is_share,
    number,
    percent,
    signed,
)
from trivium.report.gather import Gathered
from trivium.report.texts import Pair


@dataclass(frozen=True)
class Card:
    """One stage's headline."""

    stage: str
    words: Pair
    """What the headline is."""
    big: str
    range: str = ""
    """Its interval, where it has one."""
    more: tuple[tuple[Pair, str], ...] = ()
    """What to compare it with."""
    colour: int = OTHER_COLOUR


def cards(found: Gathered) -> list[Card]:
    """What each stage gave, the good news and the bad in one card."""
    made = (headline(found, stage) or examined(found, stage) for stage in found.manifests)
    return [card for card in made if card]


def headline(found: Gathered, stage: str) -> Card | None:
    """The figure that the stage itself puts first. A stage that took no step has none."""
    panel, figures = found.displays[stage].panel, found.metrics["stages"][stage]
    value = figures.get(panel.headline)
    if not (is_number(value) or is_known_rate(value)) or figures.get("steps") == 0:
        return None
    return Card(stage, found.figure(panel.headline, stage), large(value), range_of(value),
                tuple((found.figure(key, stage), small(figures[key])) for key in panel.beside
                      if is_number(figures.get(key)) or is_rate(figures.get(key))))


def examined(found: Gathered, stage: str) -> Card | None:
    """What an examination says of the model that a stage made: how often it wins, else how often it is right."""
    if not any(stage in manifest["summary"]["models"] and own_stage(found, manifest, stage)
               for _, manifest in evaluations(found)):
        return None
    figures = found.metrics["stages"][stage]
    win = next((key for key in figures if key.startswith("win_rate_vs_")), "")
    right = figures.get("right_answers")
    more: list[tuple[Pair, str]] = []
    if is_known_rate(figures.get(win)):
        key = win
        if is_rate(right):
            share = percent(right["value"]) + against_baseline(found, stage)
            more.append((found.figure("right_answers", stage), share))
        if "kl" in figures:
            more.append((found.figure("kl", stage), number(figures["kl"])))
    elif is_known_rate(right):
        key = "right_answers"
        more += [(found.figure(other, stage), percent(figures[other]["value"]))
                 for other in ("base_right_answers", "untrained_right_answers") if is_rate(figures.get(other))]
    else:
        return None
    return Card(stage, found.figure(key, stage), large(figures[key]), range_of(figures[key]), tuple(more),
                model_order(found)[stage])


def against_baseline(found: Gathered, model: str) -> str:
    """How much more or less right a model is than the baseline, in points."""
    for _, manifest in evaluations(found):
        figures, base = manifest["summary"]["models"], baseline_of(manifest)
        if model in figures and model != base and is_rate(figures.get(base, {}).get("right_answers")):
            change = figures[model]["right_answers"]["value"] - figures[base]["right_answers"]["value"]
            return f" ({signed(change * 100)})"
    return ""


def large(value: Any) -> str:
    """A figure as a headline: a share in whole per cent, other numbers with three decimals."""
    if is_rate(value):
        return percent(value["value"], 0) if is_share(value) else number(value["value"])
    return f"{value:.3f}" if isinstance(value, float) and abs(value) < 1000 else number(value)


def small(value: Any) -> str:
    """A figure below a headline."""
    if is_rate(value):
        return percent(value["value"]) if value["value"] is None or is_share(value) else number(value["value"])
    return number(value)


def range_of(value: Any) -> str:
    """A headline's interval, where it has one."""
    if not is_rate(value):
        return ""
    if not has_interval(value):
        return ""
    return interval(value) if is_share(value) else f"{number(value['low'])} – {number(value['high'])}"
