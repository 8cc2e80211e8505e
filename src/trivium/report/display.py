"""What a stage is called, what its figures are called, and which of them are shown.

A stage's class says so. A run may hold stages whose classes are not at hand, such as those of a plugin: of these the
manifest says it, where it stands under ``display``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trivium.report.texts import SCHOOLS, Pair
from trivium.stage import Figure, Panel, Stage, Title, display


@dataclass(frozen=True)
class Display:
    """How one stage is shown."""

    title: Title
    figures: Mapping[str, Pair]
    """The names of the figures that are its own."""
    panel: Panel
    defaults: Mapping[str, Any]
    """Its settings where a recipe gives none."""


def display_of(manifest: Mapping[str, Any], stages: Mapping[str, type[Stage]]) -> Display:
    """How the stage of a manifest is shown: as the manifest says, else as the class of its kind says, else by its
    kind's name alone."""
    kind = manifest["kind"]
    told = manifest.get("display") or (display(stages[kind]) if kind in stages else {})
    title = Title(**told["title"]) if told.get("title") else Title(kind.replace("_", " "), kind.replace("_", " "),
                                                                   "judge")
    if title.school not in SCHOOLS:
        title = title._replace(school="judge")
    figures = {figure.key: (figure.english, figure.chinese)
               for figure in (Figure(**one) for one in told.get("figures", ()))}
    return Display(title, figures, Panel(**told.get("panel", {})), told.get("defaults", {}))
