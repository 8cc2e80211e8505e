"""A study's file: which recipe is run under which settings and seeds."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trivium import faults, yaml_text
from trivium.errors import TriviumError, nearest
from trivium.files import digest_json, read_text, shipped
from trivium.recipe.load import Recipe, explain, is_name, load_recipe, needed

PLAIN = "as-it-is"
"""What a recipe's own settings are called where a study varies nothing but the seed."""


class Study(BaseModel):
    """A study: a recipe, what is varied, and seeds."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)

    name: str
    """What it is called; the runs go to `out`/`name`/SETTING/seed-N."""
    recipe: str
    """The recipe's file, from the working folder or from beside the study's file."""
    seeds: list[int] = Field([0, 1, 2], min_length=1)
    """Each setting is run once with each of these seeds."""
    set: dict[str, Any] = {}
    """Settings of the recipe that hold in all runs, by dotted path, such as `{pretrain.steps: 100}`."""
    settings: dict[str, dict[str, Any]] = {}
    """What is compared: by a name of your own the settings that it has, by dotted path. `{}` is the recipe as it is;
    `{dpo: null}` leaves a stage out."""
    grid: dict[str, list[Any]] = {}
    """Values by dotted path: every combination of them is a setting. With `settings` too, each of those in each."""
    shared: list[str] = []
    """Stages that have one seed in all runs, and those that they are made from: such as the data, where only training
    is to vary. They are made once, as is whatever else several runs have in common."""
    shared_seed: int = 0
    """The seed of `shared`, but for stages to which the recipe's `seeds` give one of their own."""
    only: list[str] = []
    """Stages to run, with what they need; none means all."""
    models: list[str] = []
    """The examinations' models that are compared, by name; none means all."""
    tests: list[str] = []
    """What is tested between models: `right`, `points`, `loss`, a checker's or a task's name, or a figure, which is
    paired by seeds alone; none means all that is known of each prompt."""
    figures: list[str] = []
    """The figures that the printed tables show; none means those that differ, the most telling first. Files have all.
    """
    threads: int | None = Field(None, ge=1)
    """Processor cores of each run; null divides all among the runs that go on at once."""
    out: str = "runs"
    """The folder of all runs."""

    @property
    def folder(self) -> Path:
        """Where its runs lie."""
        return Path(self.out) / self.name


@dataclass
class Run:
    """A recipe under one setting, with one seed."""

    setting: str
    seed: int
    file: Path
    overrides: list[str]
    recipe: Recipe
    only: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        """What it is called where people read of it."""
        return f"{self.setting} seed {self.seed}"


@dataclass
class Plan:
    """All runs of a study."""

    study: Study
    settings: dict[str, dict[str, Any]]
    """What each setting sets."""
    runs: list[Run]
    """All seeds of the first setting first, side by side: what other settings have in common with it is then there."""
    same: dict[str, str]
    """Settings that give the same recipe as an earlier one, which is run in their place."""


def read_study(path: Path) -> Study:
    """A study's file. Raises :class:`TriviumError` with the place of the first fault."""
    path = shipped(path)
    try:
        raw = yaml_text.read_yaml(read_text(path))
    except TriviumError as error:
        raise error if str(error).startswith(str(path)) else TriviumError(f"{path}: {error}") from error
    if not isinstance(raw, dict):
        raise TriviumError(f"{path}: a study is a mapping with `name` and `recipe`")
    try:
        study = Study.model_validate(raw)
    except ValidationError as error:
        raise TriviumError(f"{path}: {explain(error, '', Study, raw)}") from error
    if not is_name(study.name):
        raise TriviumError(f"{path}: name: {faults.shown(study.name)} cannot be a folder's name")
    if len(set(study.seeds)) < len(study.seeds):
        raise TriviumError(f"{path}: seeds: one stands there twice; each seed counts once")
    for name in study.settings:
        if not is_name(name):
            raise TriviumError(f"{path}: settings: {faults.shown(name)} cannot be a folder's name")
    for name, values in study.grid.items():
        if not values:
            raise TriviumError(f"{path}: grid.{name}: no values; give it a list, or leave it out")
    return study


def settings_of(study: Study) -> dict[str, dict[str, Any]]:
    """By name what each setting of a study sets: its settings, each with every combination of the grid."""
    combinations: list[dict[str, Any]] = [dict(zip(study.grid, values, strict=True))
                                          for values in itertools.product(*study.grid.values())]
    made: dict[str, dict[str, Any]] = {}
    for (name, given), combined in itertools.product((study.settings or {"": {}}).items(), combinations):
        parts = [*([name] if name else []), *(f"{path}={_short(value)}" for path, value in combined.items())]
        label = ",".join(parts) or PLAIN
        if not is_name(label) or label in made or label.startswith("."):
            label = f"{name or 'grid'}-{digest_json(combined)[:10]}"
        made[label] = {**given, **combined}
    return made


def _short(value: Any) -> str:
    """A value as part of a folder's name."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.replace("/", "_").replace("\0", "_").replace('"', "").replace(" ", "")


def plan_study(path: Path, overrides: Iterable[str] = ()) -> Plan:
    """All runs of a study's file; ``overrides`` hold in all of them. Every recipe is read before any is run.

    Raises :class:`TriviumError` for a fault in the study, and for one in a recipe with the setting that brings it."""
    study, extra = read_study(path), list(overrides)
    file = recipe_file(study, shipped(path))
    base = load_recipe(file)
    for stage in study.shared:
        if stage not in base.stages:
            raise TriviumError(f"{path}: shared: the recipe has no stage {stage!r}{nearest(stage, base.stages)}")
    settings = settings_of(study)
    runs: dict[str, list[Run]] = {}
    same: dict[str, str] = {}
    seen: dict[str, str] = {}
    for name, given in settings.items():
        made = list(_runs(study, path, file, name, given, extra))
        first = seen.setdefault(digest_json([content(run.recipe) for run in made]), name)
        if first != name:
            same[name] = first
        else:
            runs[name] = made
    in_turn = [run for together in zip(*runs.values(), strict=True) for run in together]
    order = sorted(in_turn, key=lambda run: run.setting != next(iter(runs)))
    return Plan(study, settings, order, same)


def _runs(study: Study, path: Path, file: Path, setting: str, given: Mapping[str, Any],
          extra: list[str]) -> Iterator[Run]:
    """A setting's runs, one a seed."""
    left_out = {key.removeprefix("stages.") for key, value in {**study.set, **given}.items() if value is None}
    only = [name for name in study.only if name not in left_out]
    place = [f"out={json.dumps(str(study.folder / setting))}", f"pool={json.dumps(str(study.folder))}"]
    for seed in study.seeds:
        words = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in {**study.set, **given}.items()]
        words += [*extra, *place, f"name=seed-{seed}", f"seed={seed}"]
        try:
            recipe = load_recipe(file, words, only=only)
            fixed = [name for name in study.shared if name in recipe.stages]
            if fixed:
                seeds = dict.fromkeys(sorted(needed(recipe.stages, fixed)), study.shared_seed) | recipe.seeds
                words.append(f"seeds={json.dumps(seeds, ensure_ascii=False)}")
                recipe = load_recipe(file, words, only=only)
        except TriviumError as error:
            where = "" if setting == PLAIN else f"{setting}: "
            raise TriviumError(f"{path}: {where}{str(error).replace('--set ', '')}") from error
        yield Run(setting, seed, file, words, recipe, only)


def recipe_file(study: Study, path: Path) -> Path:
    """The file of a study's recipe."""
    given = shipped(Path(study.recipe))
    beside = path.parent / study.recipe
    if not given.exists() and beside.exists():
        return beside
    return given


def content(recipe: Recipe) -> dict[str, Any]:
    """All that decides what a recipe makes."""
    return {"seed": recipe.seed, "seeds": recipe.seeds,
            "stages": {name: {"kind": stage.kind, **stage.model_dump(mode="json", exclude={"threads"})}
                       for name, stage in recipe.stages.items()}}
