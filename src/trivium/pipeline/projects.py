"""What stages take from feedback projects (``preferences: project:NAME``): rows as they are when the run starts.

All files of a run are written before its first stage begins, so two stages of a run learn from the same judgements, and
none changes while it is read. They lie in a folder that their digest names: judgements that came since make another
digest, and with it another key of the stages that read them.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trivium import remote
from trivium.artifacts import digest_path
from trivium.errors import TriviumError, extra
from trivium.files import disk_errors, write_rows
from trivium.recipe.load import PROJECT_FILES, Recipe
from trivium.stage import Stage

EXPORTS = {"comparisons": "rankings", "demonstrations": "demonstrations", "thumbs": "thumbs"}
"""The export of a project that is written as the file of that name."""

NEEDED = {"comparisons": "nobody has ranked anything in it yet", "thumbs": "nobody has given a thumb or a rating in it "
          "yet", "demonstrations": "nobody has written an answer in it yet"}


def taken(recipe: Recipe, wanted: Iterable[str]) -> dict[str, str]:
    """Write what the ``wanted`` stages take from projects; where each lies, for :attr:`Recipe.projects`."""
    stages = {name: recipe.stages[name] for name in recipe.stages if name in set(wanted)}
    named = dict.fromkeys(place for stage in stages.values() for place in named_by(stage))
    if named and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TriviumError(f"{next(iter(named))[1]}: several processes may find different judgements in a project; "
                           "write them to files first: trivium feedback export PROJECT --to FOLDER")
    return {f"{setting} {reference}": str(take(setting, reference, recipe.folder)) for setting, reference in named}


def named_by(stage: Stage) -> Iterable[tuple[str, str]]:
    """``(setting, reference)`` of every project that a stage names."""
    for where, reference in stage.references():
        if remote.project_of(reference) is not None:
            yield where.partition(".")[0], reference


def place_of(setting: str, reference: str, folder: Path, projects: Mapping[str, str]) -> Path:
    """Where the rows lie that a run has taken from a project; without a run, those of now."""
    known = projects.get(f"{setting} {reference}")
    return Path(known) if known else take(setting, reference, folder)


def take(setting: str, reference: str, folder: Path) -> Path:
    """Write what a setting takes from a project now, below a run's ``folder``; the folder that it lies in. Raises
    :class:`TriviumError` where there is no such project, or nothing in it."""
    project = remote.project_of(reference)
    assert project is not None
    with extra("annotate"):
        from trivium.feedback.exports import export
        from trivium.feedback.store import Store
    kept = folder / ".work" / "projects"
    aside = kept / f".{os.getpid()}.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    with disk_errors(kept), Store(project) as store:
        aside.mkdir(parents=True)
        for number, name in enumerate(PROJECT_FILES[setting]):
            file = aside / f"{name}.jsonl"
            write_rows(file, export(store, EXPORTS[name]))
            if not file.stat().st_size:
                if not number:
                    raise TriviumError(f"{reference}: {NEEDED[name]}")
                file.unlink()
    state = kept / digest_path(aside)[:16]
    called = project.rstrip("/").rpartition("/")[2].partition("?")[0]
    place = state / (re.sub(r"[^\w.-]+", "_", called).strip(".") or "project")  # what the stage says of it
    if place.exists():
        shutil.rmtree(aside)
    else:
        state.mkdir(exist_ok=True)
        os.rename(aside, place)
    return place


def laid_out(recipe: Recipe, folder: Path) -> Recipe:
    """A recipe that names files below ``folder`` where it names projects, to be tried on a sample."""
    stages = {}
    for name, stage in recipe.stages.items():
        changed = {setting: _with_places(getattr(stage, setting), setting, folder) for setting, _ in named_by(stage)}
        stages[name] = stage.model_copy(update=changed) if changed else stage
    return recipe.model_copy(update={"stages": stages})


def _with_places(value: Any, setting: str, folder: Path) -> Any:
    if isinstance(value, list):
        return [_with_places(one, setting, folder) for one in value]
    if isinstance(value, dict):
        return {name: _with_places(one, setting, folder) for name, one in value.items()}
    return str(take(setting, value, folder)) if remote.project_of(value) is not None else value
