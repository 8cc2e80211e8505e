"""The contract of a stage: its settings, what it is given when it runs, and what it offers to those who look at it.

This file lies below all stages and below whatever runs them. A stage is one class: its fields are the settings of the
recipe, :meth:`Stage.run` makes the artifact, and everything else that is about the stage stands beside them.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Self, get_type_hints

from pydantic import BaseModel, ConfigDict, Field

from trivium.errors import TriviumError
from trivium.extensions import GROUPS, CodeMarker, check_reference, code_files, file_of, resolve
from trivium.extensions import Code as Code
from trivium.files import Row, write_rows
from trivium.progress import Progress

if TYPE_CHECKING:
    from trivium.stages.cost import Cost, Estimate
    from trivium.stages.outlook import Outlook, Small, Step


class InputMarker:
    """Marks a setting that names an earlier stage, or a path."""

    def is_input(self, text: str) -> bool:
        """Whether a text in such a setting is one. A setting that may name other things too has a marker of its own."""
        return True


Input = Annotated[str, InputMarker()]
"""The name of an earlier stage of the recipe, or the path of an artifact, a file or a folder; where rows that people
judged or wrote are read, ``project:NAME`` too."""

School = Literal["read", "teach", "judge", "exam"]


class Title(NamedTuple):
    """What a stage is called where people read of it."""

    english: str
    chinese: str
    school: School = "read"
    """It reads alone, follows a teacher, is judged by people, or is examined."""


class Figure(NamedTuple):
    """A number that a stage's summary or log may hold, and what people call it."""

    key: str
    english: str
    chinese: str


class Panel(NamedTuple):
    """What the report draws of a stage, and which of its figures come first. Each is a key of the summary or the
    log."""

    headline: str = ""
    """The figure of the summary that stands in large type at the top of the page."""
    beside: tuple[str, ...] = ()
    """Figures of the summary that stand below the headline, to compare it with."""
    curves: tuple[str, ...] = ()
    """What the log holds that is drawn by step, besides the losses and the speed, which are drawn of every stage."""


@dataclass
class Context:
    """What a stage is given besides its settings."""

    run_name: str
    """The recipe's name."""
    name: str
    """The stage's name."""
    seed: int
    """The recipe's seed."""
    inputs: dict[str, Any]
    """The place of each input: a path, or a list or mapping of paths, as in the settings."""
    folder: Path
    """The folder that becomes the artifact."""
    scratch: Path
    """A folder for checkpoints. It is kept between attempts and goes when the artifact is sealed."""
    progress: Progress
    threads: int
    """Processor cores to use."""
    wall_seconds: Callable[[], float] = lambda: 0.0
    """The seconds that the run has taken so far. What was made earlier counts with the time that it took then."""
    stages: Mapping[str, type[Stage]] | None = None
    """Every stage that is known, by its kind: for those that tell of other stages."""

    @property
    def tasks(self) -> Path:
        """A folder for finished pieces of work that digests name, so that attempts with other settings use them too. It
        goes when one of them is sealed."""
        return self.scratch.parents[1] / f"{self.name}-tasks"

    def keep_rows(self, name: str, rows: Iterable[Row]) -> None:
        """Write rows into the artifact; under ``torchrun`` the first process alone does, since it clears the folder
        while the others already read theirs. Nothing is written where a stage is only looked at."""
        if self.folder.is_dir() and os.environ.get("RANK", "0") == "0":
            write_rows(self.folder / name, rows)


class Stage(BaseModel):
    """One step of the curriculum. Its fields are its settings; those of type :data:`Input`, or lists and mappings of
    it, are its inputs. They may stand in nested pydantic models too."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, protected_namespaces=(), frozen=True)
    kind: ClassVar[str]
    """What recipes call it."""
    version: ClassVar[int] = 1
    """Raised whenever other numbers come out of the same settings and inputs: artifacts of an older version are made
    anew."""
    title: ClassVar[Title | None] = None
    """What people call it; None takes its kind."""
    figures: ClassVar[tuple[Figure, ...]] = ()
    """Names of the numbers that only this stage has, for the report."""
    panel: ClassVar[Panel] = Panel()
    """What the report draws of it and puts first."""
    every_process: ClassVar[bool] = False
    """Whether all processes run it under ``torchrun``, rather than the first one alone."""
    streams: ClassVar[frozenset[str]] = frozenset()
    """Inputs whose URLs the stage reads itself. What other inputs name by URL is fetched before."""
    unlearned: ClassVar[frozenset[str]] = frozenset()
    """Settings that change nothing of what the stage makes: another value finds the same artifact. So does another
    ``threads``."""

    threads: int | None = Field(None, ge=1)
    """Processor cores that the stage uses; null: all that the recipe has. Stages that leave cores free run side by
    side, each in a process of its own, as soon as what they are made from is there."""

    def run(self, context: Context) -> dict[str, Any]:
        """Make the artifact in ``context.folder``, and return the summary that its manifest is to hold."""
        raise TriviumError(f"a stage of kind {self.kind!r} cannot be run")

    def training_data(self, context: Context) -> Any:
        """``(batches, tokenizer)``: what :meth:`run` learns from, for ``trivium inspect batch``.

        Raises :class:`TriviumError` for a stage that has none to look at."""
        raise TriviumError(f"a stage of kind {self.kind!r} has no batches of its own to look at")

    def cost(self, estimate: Estimate) -> Cost | None:
        """How long the stage will take, for ``trivium estimate``; None where that cannot be said."""
        return None

    def outlook(self, estimate: Estimate) -> Outlook | None:
        """What the stage will leave, for the stages that come after it; None where none of them asks."""
        return None

    def sample(self, estimate: Estimate) -> Small | None:
        """The stage as it is run for the sample of the data from which times are predicted; None for a stage that
        makes no data, or that takes long even for little of it."""
        return None

    def stand_in(self, estimate: Estimate) -> Path | None:
        """A folder like the artifact that the stage will leave, with random weights; None where nothing is like it,
        and for a stage whose model has the shape of the one that it starts from."""
        return None

    def training_step(self, estimate: Estimate, processes: int) -> Step | None:
        """What each of so many processes holds and goes through in an update, for ``trivium estimate memory``; None
        where that cannot be said. Nothing of the run needs to be there, and ``estimate`` has no sample."""
        return None

    @classmethod
    def input_fields(cls) -> list[str]:
        """The names of the settings that are inputs."""
        return cls._marked(InputMarker)

    @classmethod
    def _marked(cls, marker: type) -> list[str]:
        return [name for name, field in cls.model_fields.items()
                if any(isinstance(part, marker) for part in (*_parts(field.annotation), *field.metadata))]

    def learned(self) -> dict[str, Any]:
        """The settings that decide what the stage makes, its inputs aside."""
        mixed = set(self.input_fields()) & set(self._marked(CodeMarker))
        plain = set(self.input_fields()) - mixed
        learned = self.model_dump(mode="json", exclude={*plain, *self.unlearned, "threads"})
        for name in mixed:
            if learned[name] is None:
                del learned[name]
        for place in reversed(list(self._inputs())):  # so that places in lists stay what they were
            if place.path[0] in learned:
                _take_out(learned, place.path)
        return learned

    def settled(self, inputs: Mapping[str, Any]) -> Self:
        """The stage with every setting that was left open and that depends on its ``inputs`` alone, such as a learning
        rate that depends on the size of a model. It is called before anything else is done; ``inputs`` are the places
        as in :attr:`Context.inputs`."""
        return self

    def within(self, earlier: Mapping[str, Stage]) -> Stage:
        """The stage with those defaults decided that depend on the recipe's ``earlier`` stages. Raises
        :class:`TriviumError` that begins with the setting where they cannot be."""
        return self

    def decided(self) -> dict[str, Any]:
        """What was decided before the stage, such as its number format, for its summary."""
        return {}

    def check_processes(self, processes: int) -> None:
        """Raise :class:`TriviumError` where so many processes cannot share the work."""

    def references(self) -> Iterator[tuple[str, str]]:
        """``(where, reference)`` for every input that is given, such as ``("models.sft", "sft")``."""
        for place in self._inputs():
            yield place.where, place.text

    def _inputs(self) -> Iterator[Marked]:
        for place in _marked_texts(self):
            if any(isinstance(marker, InputMarker) and marker.is_input(place.text) for marker in place.markers):
                yield place

    def code(self) -> Iterator[tuple[str, Path]]:
        """``(where, file)`` for every file of the user's own code that the stage runs: the one that defines it, those
        that its settings name, and what they import from beside them."""
        for kind in type(self).__mro__:
            module = sys.modules.get(kind.__module__)
            if issubclass(kind, Stage) and not is_built_in(kind) and getattr(module, "__file__", None):
                yield from code_files("stage", Path(str(module.__file__)))  # type: ignore[union-attr]
        for place in _marked_texts(self):
            if any(isinstance(marker, CodeMarker) for marker in place.markers):
                # a name may stand for other things elsewhere: the bytes of all of them belong to the key
                for reference in dict.fromkeys(resolve(place.text, group) for group in GROUPS):
                    if (file := file_of(reference)) is not None:
                        yield from code_files(place.where, file)


def not_default(settings: BaseModel) -> set[str]:
    """The settings that say something else than their defaults. A recipe that has every setting written out, as a
    report has it, says no more than a short one."""
    return {name for name in settings.model_fields_set
            if getattr(settings, name) != type(settings).model_fields[name].get_default(call_default_factory=True)}


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Within it, a :class:`TriviumError` refuses the setting that is being validated."""
    try:
        yield
    except TriviumError as error:
        raise ValueError(str(error)) from error


def check_code(stage: Stage) -> None:
    """Raise :class:`TriviumError` for a setting that names code of the user's own where there is none."""
    for place in _marked_texts(stage):
        if any(isinstance(marker, CodeMarker) for marker in place.markers):
            check_reference(place.where, place.text)


def is_built_in(stage: type[Stage]) -> bool:
    """Whether a stage comes with Trivium, rather than from a plugin, an installed package or the caller."""
    return stage.__module__.startswith("trivium.")


def display(stage: type[Stage]) -> dict[str, Any]:
    """What a report needs to know of a stage, as JSON: its title, its figures' names, its panel, and its settings'
    defaults. The manifest of a stage that is not built in holds it, so that runs can be read without their plugins.

    Raises :class:`TriviumError` where one of them is not of the shape that it has in :class:`Stage`."""
    try:
        return {
            "title": Title(*stage.title)._asdict() if stage.title else None,
            "figures": [Figure(*figure)._asdict() for figure in stage.figures], "panel": Panel(*stage.panel)._asdict(),
            "defaults": stage.model_construct().model_dump(mode="json", warnings=False)
        }
    except (TypeError, ValueError) as error:
        raise TriviumError(f"a stage of kind {stage.kind!r} cannot be shown: its title, figures and panel are a Title, "
                           f"a tuple of Figures and a Panel ({error})") from error


def nested(stage: Stage, places: dict[str, Path]) -> dict[str, Any]:
    """Places in the shape of the settings: a path, or lists and mappings of paths, for each setting that is an input or
    holds one. Settings of other kinds inside them are left out."""
    names = dict.fromkeys([*stage.input_fields(), *(where.partition(".")[0] for where, _ in stage.references())])
    shaped = {name: _places_in(getattr(stage, name), name, places) for name in names}
    return {name: value for name, value in shaped.items() if value is not None}


def _places_in(value: Any, where: str, places: dict[str, Path]) -> Any:
    """The places of a setting's value; None where it has none."""
    if isinstance(value, (list, tuple)):
        return [_places_in(item, f"{where}.{number}", places) for number, item in enumerate(value)]
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, dict):
        inside = {key: _places_in(item, f"{where}.{key}", places) for key, item in value.items()}
        return {key: item for key, item in inside.items() if item not in (None, {}, [])}
    return places.get(where) if isinstance(value, str) else None


class Marked(NamedTuple):
    """A text in a marked setting."""

    path: tuple[str | int, ...]
    text: str
    markers: tuple[Any, ...]

    @property
    def where(self) -> str:
        """Its place, such as ``reward.helpful.model``."""
        return ".".join(map(str, self.path))


def _marked_texts(settings: Any, path: tuple[str | int, ...] = ()) -> Iterator[Marked]:
    """Every text in a marked setting of a model or a dataclass and of those inside it."""
    if isinstance(settings, BaseModel):
        annotations = {name: (field.annotation, *field.metadata) for name, field in type(settings).model_fields.items()}
    else:
        annotations = {name: (hint,) for name, hint in get_type_hints(type(settings), include_extras=True).items()
                       if name in settings.__dataclass_fields__}
    for name, parts in annotations.items():
        markers = tuple(marker for part in parts for marker in _parts(part)
                        if isinstance(marker, (InputMarker, CodeMarker)))
        yield from _texts((*path, name), getattr(settings, name), markers)


def _texts(path: tuple[str | int, ...], value: Any, markers: tuple[Any, ...]) -> Iterator[Marked]:
    """The texts in a setting's value, each with its place."""
    if isinstance(value, BaseModel) or is_dataclass(value):
        yield from _marked_texts(value, path)
    elif isinstance(value, str):
        if markers:
            yield Marked(path, value, markers)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts((*path, key), item, markers)
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _texts((*path, number), item, markers)


def _take_out(values: Any, path: tuple[str | int, ...]) -> None:
    """Remove what stands at a place within nested mappings and lists."""
    for part in path[:-1]:
        values = values[part]
    del values[path[-1]]


def _parts(annotation: Any) -> Iterator[Any]:
    """An annotation's type arguments and metadata, at any depth."""
    yield annotation
    yield from getattr(annotation, "__metadata__", ())
    for part in getattr(annotation, "__args__", ()):
        yield from _parts(part)
