"""Runs a lesson through the pipeline: its folder is an artifact, a finished one is found again, a killed one goes on."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trivium.artifacts import Artifact
from trivium.errors import TriviumError, nearest
from trivium.pipeline import run
from trivium.recipe import Recipe, apply, parse_stage
from trivium.recipe_base import Stage

LESSONS = {"line": "Line", "animals": "Animals", "digits": "Digits", "next-word": "NextWord"}
"""The lessons in their order, each with the class of its settings."""

VERSION = 1


def run_lesson(name: str, overrides: Iterable[str] = (), out: Path = Path("runs"), seed: int = 0, quiet: bool = False) -> Artifact:
    """Run a lesson. ``overrides`` are texts such as ``"steps=50"``. Its page is ``OUT/lessons/NAME/index.html``, its figures
    ``numbers.json``. Raises :class:`TriviumError`."""
    if name not in LESSONS:
        raise TriviumError(f"there is no lesson {name!r}{nearest(name, LESSONS)}")
    module = importlib.import_module(f"trivium.lessons.{name.replace('-', '_')}")
    kind: type[Stage] = getattr(module, LESSONS[name])
    raw: dict[str, Any] = {"stages": {name: {}}}
    for override in overrides:
        apply(raw, f"stages.{name}.{override}")
    stage = parse_stage(name, raw["stages"][name], {name: kind})
    for where, reference in stage.references():
        if not Path(reference).exists():
            raise TriviumError(f"lesson {name}: {where}: {reference}: no such file or folder")
    recipe = Recipe.model_construct(name="lessons", seed=seed, threads=None, out=str(out), stages={name: stage})
    return run(recipe, quiet=quiet, runners={name: (module.run, VERSION)})[name]
