"""Recipes: a YAML file that names the stages and their settings."""

from __future__ import annotations

import copy
import glob
import math
import re
import sys
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trivium import faults, remote, yaml_text
from trivium.errors import TriviumError, nearest
from trivium.files import read_text, shipped
from trivium.recipe.rounds import unroll
from trivium.stage import Stage
from trivium.stages.registry import Stages, free_stage

PROJECT_FILES = {
    "preferences": ("comparisons",), "comparisons": ("comparisons",), "demonstrations": ("demonstrations",),
    "thumbs": ("thumbs",), "feedback": ("thumbs", "comparisons")}
"""What a feedback project gives to a setting that names it (``project:NAME``): files of rows."""


class Header(BaseModel):
    """A recipe's settings besides its stages."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    name: str
    """The name of the run; results go to `out`/`name`."""
    seed: int = 0
    """Everything random follows from it."""
    seeds: dict[str, int] = {}
    """Seeds of single stages by name, where they are not `seed`: with `{world: 0}` runs of many seeds have one world.
    """
    threads: int | None = Field(None, ge=1)
    """Processor cores to use; null takes all."""
    out: str = "runs"
    """The folder of all runs."""
    pool: str | None = None
    """A folder of runs. What one of them has finished of the same settings, inputs and seed is used (its files are
    linked) instead of made again; null looks in this run's own folder alone."""
    plugins: list[str] = []
    """Python files whose stages the recipe may name: see docs/extend.md."""
    publish: str | None = None
    """A URL (s3://, gs://, hdfs://) below which every finished stage is copied to, too, as `name`/STAGE; null copies
    nothing."""


class Recipe(Header):
    """A parsed recipe: its stages in order, each under its name."""

    stages: dict[str, Stage]
    """The stages in the order in which they run."""
    projects: dict[str, str] = {}
    """Where a run has put what it took from each feedback project, by ``SETTING project:NAME``."""

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return Path(self.out) / self.name

    def seed_of(self, stage: str) -> int:
        """The seed of a stage."""
        return self.seeds.get(stage, self.seed)


def load_recipe(path: str | Path, overrides: Iterable[str] = (), stages: Mapping[str, type[Stage]] | None = None,
                only: Iterable[str] = (), free: Iterable[str] = ()) -> Recipe:
    """Read a recipe and apply ``overrides`` such as ``pretrain.epochs=2``.

    Files from elsewhere must exist where the stages that ``only`` names need them (all, when it names none). ``stages``
    are those that may be named; by default the built-in ones, those of installed packages and those of the recipe's
    plugins. Further kinds in ``free`` take any settings. Raises :class:`TriviumError` with the dotted place of the
    first fault."""
    path = shipped(Path(path))
    try:
        raw = read_yaml(read_text(path))
    except TriviumError as error:
        raise error if str(error).startswith(str(path)) else TriviumError(f"{path}: {error}") from error
    return parse_recipe(raw, path, overrides, stages, only, free)


def parse_recipe(raw: Any, path: Path, overrides: Iterable[str] = (), stages: Mapping[str, type[Stage]] | None = None,
                 only: Iterable[str] = (), free: Iterable[str] = (),
                 own: Mapping[str, type[Stage]] | None = None) -> Recipe:
    """A recipe that was read, or written by a program, as :func:`load_recipe` gives it. ``path`` names it in errors;
    ``own`` are classes of a program's own, beside those that may be named anyway."""
    if not isinstance(raw, dict) or not isinstance(raw.get("stages"), dict):
        raise TriviumError(f"{path}: a recipe is a mapping with `name` and `stages`")
    # no stage shares an anchor's value
    raw["stages"] = {name: copy.deepcopy(settings) for name, settings in raw["stages"].items()}
    for override in overrides:
        apply(raw, override)
    raw["stages"] = _found(raw["stages"])
    try:
        head = {key: value for key, value in raw.items() if key != "stages"}
        top = Header.model_validate(head)
        known = Stages(map(Path, top.plugins), own) if stages is None else stages
        known = ChainMap({kind: free_stage(kind)
                          for kind in free if kind not in known}, known)  # type: ignore[arg-type]
        raw["stages"] = unroll(raw["stages"], explain, known)
        parsed: dict[str, Stage] = {}
        for name, settings in raw["stages"].items():
            if settings is not None and settings is not False:
                parsed[str(name)] = _within(str(name), parse_stage(str(name), settings, known), parsed)
    except ValidationError as error:
        raise TriviumError(f"{path}: {explain(error, '', Header, head, (*Header.model_fields, 'stages'))}") from error
    except TriviumError as error:
        raise TriviumError(f"{path}: {error}") from error
    if not is_name(top.name):
        raise TriviumError(f"{path}: name: {faults.shown(top.name)} cannot be a folder's name")
    for place in ("out", "pool"):
        if "\0" in (getattr(top, place) or ""):
            raise TriviumError(f"{path}: {place}: {faults.shown(getattr(top, place))} cannot be a folder's name")
    for stage in top.seeds:
        if stage not in raw["stages"]:
            raise TriviumError(f"{path}: seeds.{stage}: the recipe has no such stage{nearest(stage, raw['stages'])}")
    if top.publish is not None:
        if not remote.url_of(top.publish):
            raise TriviumError(f"{path}: publish: no URL; name one such as s3://bucket/folder")
        _check_url(f"{path}: publish", top.publish)
    wanted = needed(parsed, only)
    check_references(path, parsed, raw["stages"].keys(), wanted)
    return Recipe.model_construct(**top.model_dump(), stages=parsed)


def _found(settings: Any) -> Any:
    """Settings in which the package's own files, such as ``recipes/checks.py:right``, are named where they lie, and
    models of the package index (``pypi:NAME``) are where they were fetched to."""
    if isinstance(settings, dict):
        return {name: _found(value) for name, value in settings.items()}
    if isinstance(settings, list):
        return [_found(value) for value in settings]
    if isinstance(settings, str) and re.fullmatch(r"pypi:[\w.=+!-]+", settings):
        from trivium.model.fetch import fetched
        return str(fetched(settings, lambda text: print(text, file=sys.stderr, flush=True)))
    if isinstance(settings, str) and settings.startswith("recipes/"):
        file, colon, name = settings.partition(":")
        return f"{shipped(Path(file))}{colon}{name}"
    return settings


def read_yaml(text: str) -> Any:
    """A recipe's YAML. A stage with nothing after its name (``tokens:``) has all defaults; one that is set to ``null``
    is left out."""
    root, loader = yaml_text.compose(text)
    for key, stages in root.value if isinstance(root, yaml.MappingNode) else []:
        if key.value == "stages" and isinstance(stages, yaml.MappingNode):
            stages.value = [
                (name, yaml.MappingNode("tag:yaml.org,2002:map", [], node.start_mark, node.end_mark)
                 if isinstance(node, yaml.ScalarNode) and node.value == "" and node.style is None else node)
                for name, node in stages.value
            ]
    return yaml_text.construct(root, loader)


def apply(raw: dict[str, Any], override: str) -> None:
    """Set one value of an unparsed recipe, as in ``stages.pretrain.epochs=2`` or, shorter, ``pretrain.epochs=2``.
    ``dpo=null`` leaves a stage out."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise TriviumError(f"--set {override}: write it as name.of.setting=value")
    try:
        value = yaml_text.read_yaml(text)
    except TriviumError as error:
        raise TriviumError(f"--set {override}: {error}") from error
    parts = key.split(".")
    if key == "stages":
        raise TriviumError(f"--set {override}: name a stage and one of its settings, as in stages.pretrain.epochs=2")
    if parts[0] in raw["stages"] and parts[0] not in Header.model_fields:
        parts = ["stages", *parts]
    elif parts[0] not in Header.model_fields and parts[0] != "stages":
        raise TriviumError(
            f"--set {override}: unknown {parts[0]!r}{nearest(parts[0], [*raw['stages'], *Header.model_fields])}")
    place: Any = raw
    for part in parts[:-1]:
        if isinstance(place, list):
            place = place[_index(part, place, override)]
        else:
            if place.get(part) is None:
                place[part] = {}
            place = place[part]
        if not isinstance(place, (dict, list)):
            raise TriviumError(f"--set {override}: {part!r} holds a value, not further settings")
    if isinstance(place, list):
        place[_index(parts[-1], place, override)] = value
    else:
        place[parts[-1]] = value


def _index(part: str, place: list[Any], override: str) -> int:
    if part.isdigit() and int(part) < len(place):
        return int(part)
    raise TriviumError(f"--set {override}: {part!r} is no place in a list of {len(place)}")


LONGEST_NAME = 200
"""Bytes of a name of a run or a stage: file systems take 255, and folders of work add to the name."""


def is_name(name: str) -> bool:
    """Whether a folder can be called so."""
    return bool(name) and not name.startswith(".") and not {"/", "\0"} & set(name) and (
        len(name.encode("utf-8", "surrogateescape")) <= LONGEST_NAME)


def parse_stage(name: str, settings: Any, stages: Mapping[str, type[Stage]]) -> Stage:
    """One stage's settings; its class is named by ``kind``, or by the stage's own name."""
    if not is_name(name) or name == "superseded":
        raise TriviumError(f"stages: {faults.shown(name)} cannot be a stage's name, as results go to a folder of that "
                           "name")
    if not isinstance(settings, dict):
        raise TriviumError(f"stages.{name}: a mapping of settings was expected, not {settings!r}")
    settings = dict(settings)
    kind = settings.pop("kind", name)
    if not isinstance(kind, str) or kind not in stages:
        raise TriviumError(f"stages.{name}: there is no stage of kind {kind!r}{nearest(str(kind), stages)}")
    try:
        stage = stages[kind].model_validate(settings)
    except ValidationError as error:
        raise TriviumError(explain(error, f"stages.{name}.", stages[kind], settings)) from error
    except TriviumError as error:  # of a group of settings, which it names
        group = str(error).partition(":")[0] in stages[kind].model_fields
        raise TriviumError(f"stages.{name}{'.' if group else ': '}{error}") from error
    for place, fault in wrong_numbers(settings, stage):
        raise TriviumError(f"stages.{name}.{'.'.join(map(str, place))} {fault}")
    return stage


def _within(name: str, stage: Stage, earlier: Mapping[str, Stage]) -> Stage:
    """A stage with the defaults that depend on earlier ones."""
    try:
        return stage.within(earlier)
    except TriviumError as error:
        raise TriviumError(f"stages.{name}.{error}") from error


def wrong_numbers(given: Any, parsed: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Numbers that no setting means: yes and no that were read as 1 and 0, what is not finite, and what fits no 64
    bits; each with its place and what is wrong."""
    if isinstance(given, dict):
        for name, value in given.items():
            inside = parsed.get(name) if isinstance(parsed, dict) else getattr(parsed, str(name), None)
            yield from wrong_numbers(value, inside, (*place, name))
    elif isinstance(given, list) and isinstance(parsed, (list, tuple)):
        for number, (value, inside) in enumerate(zip(given, parsed)):
            yield from wrong_numbers(value, inside, (*place, number))
    elif isinstance(given, bool) and isinstance(parsed, (int, float)) and not isinstance(parsed, bool):
        yield place, f"is {faults.shown(given)}; it must be a number"
    elif isinstance(parsed, float) and not math.isfinite(parsed):
        yield place, f"is {faults.shown(parsed)}; it must be a finite number"
    elif isinstance(parsed, (int, float)) and abs(parsed) >= 2**63:
        yield place, f"is {faults.shown(parsed)}; no computer counts so far"


def explain(error: ValidationError, prefix: str, model: type, values: Any, known: Iterable[str] = ()) -> str:
    """The first fault that pydantic found in ``values``, as one line in plain words. ``known`` are all names at the
    top, where they are more than those of ``model``."""
    return faults.explain(error.errors(include_url=False), values, prefix,
                          lambda place: [*(known if known and not place else _known_at(model, place)),
                                         *_below(model, place)])


def _below(model: Any, place: Sequence[int | str]) -> list[str]:
    """The settings inside the groups of settings at ``place``, such as ``optimization.learning_rate``."""
    return [f"{group}.{name}" for group in _known_at(model, place)
            for inner in _models_in(_annotations(_model_at(model, place)).get(group)) for name in _annotations(inner)]


def _known_at(model: Any, place: Iterable[int | str]) -> list[str]:
    """The settings that exist at ``place`` inside a stage's settings."""
    return list(_annotations(_model_at(model, place)))


def _model_at(model: Any, place: Iterable[int | str]) -> Any:
    """The class of the settings at ``place``."""
    for part in place:
        if str(part) in _annotations(model):  # else it is a key of a mapping, or a number in a list
            model = next(_models_in(_annotations(model)[str(part)]), None)
    return model


def _models_in(annotation: Any) -> Iterator[Any]:
    """The classes of settings in an annotation, at any depth."""
    if is_dataclass(annotation) or hasattr(annotation, "model_fields"):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _models_in(part)


def _annotations(model: Any) -> dict[str, Any]:
    if hasattr(model, "model_fields"):
        return {name: field.annotation for name, field in model.model_fields.items()}
    if is_dataclass(model):
        from typing import get_type_hints
        hints = get_type_hints(model)
        return {field.name: hints[field.name] for field in fields(model)}
    return {}


def needed(stages: Mapping[str, Stage], only: Iterable[str]) -> set[str]:
    """The stages ``only`` names and those they are made from; all when it names none."""
    todo = list(only) or list(stages)
    found: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in stages:
            raise TriviumError(f"--only {name}: the recipe has no such stage{nearest(name, stages)}")
        if name not in found:
            found.add(name)
            todo += [reference for _, reference in stages[name].references() if reference in stages]
    return found


def check_references(path: Path, stages: Mapping[str, Stage], written: Iterable[str], wanted: Iterable[str]) -> None:
    """Every input must name an earlier stage or, in the stages that are ``wanted``, something that exists."""
    earlier: list[str] = []
    for name, stage in stages.items():
        for where, reference in stage.references():
            place = f"{path}: stages.{name}.{where}"
            if not reference.strip():
                raise TriviumError(f"{place}: is empty; name an earlier stage, a file or a folder")
            if (project := remote.project_of(reference)) is not None:
                _check_project(place, where.partition(".")[0], project, name in wanted)
                continue
            if "://" in reference and (url := remote.url_of(reference)):
                _check_url(place, url)
                continue
            if reference in earlier or (_exists(reference) and reference not in stages):
                continue
            if reference in stages:
                raise TriviumError(f"{place}: stage {reference!r} does not come before {name!r}; move it up")
            if reference in written:
                raise TriviumError(f"{place}: stage {reference!r} is left out; leave {name!r} out too")
            here = "" if Path(reference).is_absolute() else f" in {Path.cwd()}"
            if glob.has_magic(reference):
                if name in wanted and next(glob.iglob(reference, recursive=True), None) is None:
                    raise TriviumError(f"{place}: {reference}: matches no file{here}")
            elif module := _module(reference):
                raise TriviumError(f"{place}: {reference}: there is no module {module!r} that can be imported; "
                                   "MODULE:NAME names code of an installed package, FILE.py:NAME that of a file")
            elif "/" in reference or "." in reference:
                if name in wanted:
                    raise TriviumError(f"{place}: {reference}: no such file or folder{here}" + (
                        "; no model is downloaded: name the folder that it lies in" if where == "model" else ""))
            else:
                raise TriviumError(
                    f"{place}: no earlier stage and no file is called "
                    f"{reference!r}{nearest(reference, earlier) if earlier else ''}"
                )
        earlier.append(name)


def _check_project(place: str, setting: str, project: str, wanted: bool) -> None:
    """Refuse a project that gives nothing to the setting at ``place``, and one that is wanted and not there."""
    if setting not in PROJECT_FILES:
        raise TriviumError(f"{place}: a feedback project holds nothing that `{setting}` takes; it can be named under "
                           f"{', '.join(PROJECT_FILES)}")
    if "://" in project:
        if "@" in (host := project.split("://")[1].split("/")[0]) and ":" in host.rpartition("@")[0]:
            raise TriviumError(f"{place}: the URL holds a password, which would be stored with the results; leave it "
                               "out, and set PGPASSWORD or write it into ~/.pgpass")
    elif wanted and not _exists(f"{project}/feedback.sqlite"):
        raise TriviumError(f"{place}: {project or 'nothing'}: no feedback project; name its folder, or make one with "
                           "`trivium annotate FOLDER`")


def _check_url(place: str, url: str) -> None:
    try:
        remote.check(url)
    except TriviumError as error:
        raise TriviumError(f"{place}: {error}") from error


def _module(reference: str) -> str:
    """The module that ``MODULE:NAME`` names; empty for any other text."""
    module, _, name = reference.rpartition(":")
    return module if name.isidentifier() and all(part.isidentifier() for part in module.split(".")) else ""


def _exists(reference: str) -> bool:
    """Whether something lies at a path; nothing does where it cannot be one."""
    try:
        return Path(reference).exists()
    except (OSError, ValueError):  # too long a name, or one with a null byte
        return False
