"""Runs a lesson through the pipeline: its folder is an artifact, a finished one is found again, a killed one goes
on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trivium.artifacts import Artifact
from trivium.errors import TriviumError, nearest
from trivium.pipeline.run import run
from trivium.recipe.load import Recipe, apply, parse_stage
from trivium.stage import Stage

LESSONS = ("line", "animals", "digits", "next-word")
"""The lessons in their order."""


def lesson(name: str) -> type[Stage]:
    """The stage that gives a lesson, its file imported on demand. Raises :class:`TriviumError` where there is none of
    that name."""
    stage: type[Stage]
    match name:
        case "line":
            from trivium.lessons.line import Line as stage
        case "animals":
            from trivium.lessons.animals import Animals as stage
        case "digits":
            from trivium.lessons.digits import Digits as stage
        case "next-word":
            from trivium.lessons.next_word import NextWord as stage
        case _:
            raise TriviumError(f"there is no lesson {name!r}{nearest(name, LESSONS)}")
    return stage


def run_lesson(name: str, overrides: Iterable[str] = (), out: Path = Path("runs"), seed: int = 0,
               quiet: bool = False) -> Artifact:
    """Run a lesson. ``overrides`` are texts such as ``"steps=50"``. Its page is ``OUT/lessons/NAME/index.html``, its
    figures ``numbers.json``. Raises :class:`TriviumError`."""
    kind = lesson(name)
    raw: dict[str, Any] = {"stages": {name: {}}}
    for override in overrides:
        apply(raw, f"stages.{name}.{override}")
    stage = parse_stage(name, raw["stages"][name], {name: kind})
    for where, reference in stage.references():
        if not Path(reference).exists():
            raise TriviumError(f"lesson {name}: {where}: {reference}: no such file or folder")
    recipe = Recipe.model_construct(name="lessons", seed=seed, threads=None, out=str(out), stages={name: stage})
    return run(recipe, quiet=quiet)[name]
