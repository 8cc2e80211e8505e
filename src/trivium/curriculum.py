"""Recipes in Python: a step is a value that the next one takes.

::

    curriculum = trivium.Curriculum("mine", seed=1)
    world = curriculum.add("world")
    corpus = curriculum.add("corpus", documents=[world])
    model = curriculum.add("sft", name="tutor", model="./base", demonstrations=world)
    artifacts = curriculum.run()

The same checks hold as for a recipe's file, and :meth:`Curriculum.yaml` writes that file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from trivium.artifacts import Artifact
from trivium.errors import TriviumError
from trivium.pipeline.run import run
from trivium.recipe.load import Recipe, parse_recipe
from trivium.stage import Stage


@dataclass(frozen=True)
class Step:
    """A step of a curriculum, to be given to those that are made from it."""

    name: str
    curriculum: Curriculum


class Curriculum:
    """A recipe that a program writes. Stages are kinds by name, or classes of the program's own."""

    def __init__(self, name: str, seed: int = 0, threads: int | None = None, out: str | Path = "runs",
                 plugins: list[str] | None = None) -> None:
        self.head: dict[str, Any] = {"name": name, "seed": seed, "threads": threads, "out": str(out),
                                     "plugins": plugins or []}
        self.stages: dict[str, dict[str, Any]] = {}
        self.classes: dict[str, type[Stage]] = {}

    def add(self, stage: str | type[Stage], *, name: str | None = None, **settings: Any) -> Step:
        """Add a stage under ``name`` (its kind, unless given) with its settings, in which a :class:`Step` stands for
        what it makes. Raises :class:`TriviumError` for a name that is taken and for a step of another curriculum."""
        kind = stage if isinstance(stage, str) else stage.kind
        if not isinstance(stage, str):
            self.classes[kind] = stage
        name = name or kind
        if name in self.stages:
            raise TriviumError(f"{name}: the curriculum has a step of that name already; give this one another `name`")
        self.stages[name] = {**({"kind": kind} if kind != name else {}), **self._named(name, settings)}
        return Step(name, self)

    def _named(self, name: str, value: Any) -> Any:
        """A setting with steps as their names and settings' classes as mappings, at any depth."""
        if isinstance(value, Step):
            if value.curriculum is not self:
                raise TriviumError(f"{name}: the step {value.name!r} belongs to another curriculum")
            return value.name
        if isinstance(value, BaseModel):
            return value.model_dump(mode="json")
        if isinstance(value, dict):
            return {key: self._named(name, item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._named(name, item) for item in value]
        return str(value) if isinstance(value, Path) else value

    def recipe(self) -> Recipe:
        """The recipe, checked. Raises :class:`TriviumError` as for a recipe's file."""
        return parse_recipe({**self.head, "stages": dict(self.stages)}, Path(self.head["name"]), own=self.classes)

    def yaml(self) -> str:
        """The recipe's file. A class of the program's own can be named in it by a plugin's file only."""
        raw = {key: value for key, value in self.head.items() if value not in (None, [])}
        return yaml.safe_dump({**raw, "stages": self.stages}, sort_keys=False, allow_unicode=True, width=100)

    def run(self, only: Iterable[str] = (), quiet: bool = True) -> dict[str, Artifact]:
        """Run the recipe, as :func:`trivium.run` does; the artifacts by step."""
        return run(self.recipe(), only=only, quiet=quiet)
