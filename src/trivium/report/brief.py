"""What came of a stage, in a few words for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trivium.artifacts import Artifact
from trivium.files import read_rows
from trivium.report.display import display_of
from trivium.report.formats import interval, is_known_rate, is_number, is_share, number, percent
from trivium.report.texts import figure_words
from trivium.stage import Stage

MOST = 4
"""Figures that are said of a stage."""


def brief(artifact: Artifact, stages: Mapping[str, type[Stage]]) -> str:
    """The losses at the beginning and the end of a stage's training and its main figures; empty for a stage that has
    none."""
    if artifact.kind == "evaluate":
        return "; ".join(examined(artifact.summary))
    said = [*losses(artifact), *figures(artifact, stages)][:MOST]
    return ", ".join(said).replace(", … ", "; ")


def losses(artifact: Artifact) -> Iterator[str]:
    """The training loss and the held-out loss, before and after."""
    log = artifact.folder / "log.jsonl"
    rows = [row for _, row in read_rows(log)] if log.is_file() else []
    for name, key, first in (("loss", "loss", "loss"),
                             ("held-out loss", "validation_loss", "validation_loss_before")):
        after = [row[key] for row in rows if is_number(row.get(key))]
        before = [row[first] for row in rows if is_number(row.get(first))]
        if first == key:  # of a batch each: the means of the first and the last tenth
            share = max(1, len(after) // 10)
            before, after = before[:share], after[-share:]
        if after and (len(rows) > 1 or first != key):
            now = sum(after) / len(after) if first == key else after[-1]
            yield f"{name} {sum(before) / len(before):.3f} → {now:.3f}" if before else f"{name} {now:.3f}"


def figures(artifact: Artifact, stages: Mapping[str, type[Stage]]) -> Iterator[str]:
    """The figure that the report shows first and those beside it, and all rates of the summary."""
    shown, summary = display_of(artifact.manifest, stages), artifact.summary
    first = [key for key in (shown.panel.headline, *shown.panel.beside) if key in summary]
    for key in dict.fromkeys([*first, *(key for key, value in summary.items() if is_known_rate(value))]):
        words = (shown.figures.get(key) or figure_words(key))[0]
        if is_known_rate(summary[key]) or is_number(summary[key]):
            yield f"{words} {figure(summary[key])}"


def figure(value: Any) -> str:
    """A number, or a rate with its interval."""
    if not is_known_rate(value):
        return number(value)
    if is_share(value):
        return f"{percent(value['value'])} [{interval(value)}]"
    return f"{number(value['value'])} [{number(value['low'])}, {number(value['high'])}]"


def examined(summary: Mapping[str, Any]) -> Iterator[str]:
    """Of every model that was examined, the baseline first: how often it is right, how often its answers are preferred,
    the loss of the right answers, and what checkers say, where models are compared by them."""
    models = summary.get("models", {})
    compared = {key.partition("_difference_vs_")[0] for found in models.values() for key in found
                if "_difference_vs_" in key} - {"answer_bits_per_byte"}
    for name, found in sorted(models.items(), key=lambda item: item[0] != summary.get("baseline")):
        said = [f"{key.replace('_', ' ')} {figure(found[key])}" for key in found if is_known_rate(found[key])
                and (key == "right_answers" or key in compared or key.startswith("win_rate"))][:MOST]
        if said:
            yield f"{name}: {', '.join(said)}"
