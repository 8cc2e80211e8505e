"""Reads a task's YAML file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trivium.errors import TriviumError, nearest
from trivium.evaluation.tasks.answers import Answers
from trivium.evaluation.tasks.bits import Bits
from trivium.evaluation.tasks.choice import Choice
from trivium.evaluation.tasks.code import Code
from trivium.evaluation.tasks.free import Free
from trivium.evaluation.tasks.instructions import Instructions
from trivium.evaluation.tasks.memorisation import Memorisation
from trivium.evaluation.tasks.refusals import Refusals
from trivium.evaluation.tasks.task import Task
from trivium.evaluation.tasks.unknown import Unknown
from trivium.evaluation.tasks.wins import Wins
from trivium.faults import explain
from trivium.files import read_text, shipped
from trivium.yaml_text import read_yaml

KINDS: dict[str, type[Task]] = {kind.kind: kind
                                for kind in (Choice, Free, Code, Instructions, Answers, Bits, Refusals, Unknown,
                                             Memorisation, Wins)}
"""Every kind of task, by the name that YAML files call it."""


def load_task(path: Path, overrides: Iterable[str] = ()) -> Task:
    """A task's file. ``overrides`` are texts such as ``shots=5``. Raises :class:`TriviumError` that names the file and
    the setting."""
    settings = _overridden(_read(path), overrides)
    for key in ("data", "examples", "stop"):
        if isinstance(settings.get(key), str):
            settings[key] = [settings[key]]
    kind = settings.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        fault = "is missing" if kind is None else f"there is no task of kind {kind!r}"
        raise TriviumError(f"{path}: kind: {fault}{nearest(str(kind), KINDS)}")
    values = {"name": path.stem, **settings}
    try:
        task = KINDS[kind].model_validate(values)
    except ValidationError as error:
        raise TriviumError(explain(error.errors(include_url=False), values, f"{path}: ",
                                   lambda place: KINDS[kind].model_fields)) from error
    if not task.data:
        raise TriviumError(f"{path}: data: name at least one file of rows")
    return task


def _read(path: Path) -> dict[str, Any]:
    text = read_text(shipped(path))
    try:
        settings = read_yaml(text)
    except TriviumError as error:
        raise TriviumError(f"{path}: {error}") from error
    if not isinstance(settings, dict):
        raise TriviumError(f"{path}: a task is a mapping with `kind` and `data`")
    return settings


def _overridden(settings: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise TriviumError(f"--set {override}: write it as setting=value")
        try:
            settings[key] = read_yaml(text)
        except TriviumError as error:
            raise TriviumError(f"--set {override}: {error}") from error
    return settings
