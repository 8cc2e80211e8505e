"""Every stage that a recipe may name: the built-in ones, those of installed packages, and those of plugins.

A stage's file is imported when somebody asks for its kind, as most of them need PyTorch, which takes seconds to load.
An installed package offers stages under the entry-point group ``trivium.stages``; a plugin is a file whose classes
derive from :class:`~trivium.stage.Stage`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path

from pydantic import ConfigDict

from trivium.errors import TriviumError
from trivium.extensions import installed, load_module
from trivium.stage import Input, Stage

GROUP = "trivium.stages"
"""The entry points of installed packages that offer stages."""

SCHOOLS = ("data", "pretraining", "finetuning", "preferences", "reinforcement", "results")
"""The folders of the built-in stages, in the order in which they are listed."""

KIND = re.compile(r'^    kind: ClassVar\[str\] = "(\w+)"', re.MULTILINE)


def built_in_modules() -> dict[str, str]:
    """The module of every built-in stage by its kind, read from the files' text, as importing them takes seconds."""
    return {kind: f"{__package__}.{school}.{file.stem}"
            for school in SCHOOLS for file in sorted((Path(__file__).parent / school).glob("*.py"))
            for kind in KIND.findall(file.read_text(encoding="utf-8"))}


BUILT_IN = built_in_modules()
"""The module of each kind of stage that Trivium brings, in the order in which they are listed."""


def built_in(kind: str) -> type[Stage]:
    """The built-in stage of a kind. Raises ``KeyError`` where there is none."""
    module = import_module(BUILT_IN[kind])
    return next(value for value in vars(module).values()
                if isinstance(value, type) and issubclass(value, Stage) and vars(value).get("kind") == kind)


class Stages(Mapping[str, type[Stage]]):
    """Stages by kind. ``plugins`` are files; ``own`` are classes of the caller. Later ones may not take the kind of
    earlier ones."""

    def __init__(self, plugins: Iterable[Path] = (), own: Mapping[str, type[Stage]] | None = None) -> None:
        self.known: dict[str, type[Stage]] = dict(own or {})
        self.packaged = installed(GROUP)
        origins: dict[str, str] = {kind: f"the package of {entry.value}" for kind, entry in self.packaged.items()}
        origins |= dict.fromkeys(self.known, "this program") | dict.fromkeys(BUILT_IN, "Trivium")
        for file in plugins:
            for stage in defined_in(file):
                if origins.setdefault(stage.kind, str(file)) != str(file):
                    raise TriviumError(f"{file}: there is a stage of kind {stage.kind!r} already, of "
                                       f"{origins[stage.kind]}; give the plugin's another `kind`")
                self.known[stage.kind] = stage

    def __getitem__(self, kind: str) -> type[Stage]:
        if kind not in self.known:
            self.known[kind] = packaged_stage(
                kind, self.packaged[kind].load) if kind in self.packaged and kind not in BUILT_IN else built_in(kind)
        return self.known[kind]

    def __contains__(self, kind: object) -> bool:
        return kind in self.known or kind in self.packaged or kind in BUILT_IN

    def __iter__(self) -> Iterator[str]:
        yield from dict.fromkeys((*BUILT_IN, *self.packaged, *self.known))

    def __len__(self) -> int:
        return len(list(iter(self)))


def packaged_stage(kind: str, load: object) -> type[Stage]:
    """The stage that an installed package offers. Raises :class:`TriviumError` where it cannot be loaded, or is no
    stage."""
    try:
        found = load()  # type: ignore[operator]
    except (Exception, SystemExit) as error:
        raise TriviumError(f"the installed stage {kind!r} cannot be loaded: {type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Stage)):
        raise TriviumError(f"the installed stage {kind!r} is no class that derives from trivium.stage.Stage")
    return found


def defined_in(file: Path) -> list[type[Stage]]:
    """The stages that a plugin's file defines itself. Raises :class:`TriviumError` for a class that would be none, as
    it has no ``kind: ClassVar[str]`` and no other class derives from it."""
    module = load_module(file)
    classes = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Stage)
               and value.__module__ == module.__name__]
    for one in classes:
        if "kind" in one.model_fields or not (hasattr(one, "kind") or any(
                other is not one and issubclass(other, one) for other in classes)):
            raise TriviumError(f"{file}: the stage {one.__name__} needs a line `kind: ClassVar[str] = \"...\"`")
    return [one for one in classes if "kind" in vars(one)]


class FreeStage(Stage):
    """A stage of the caller's own function: any settings, and ``inputs`` that map names to earlier stages or paths."""

    model_config = ConfigDict(extra="allow")
    inputs: dict[str, Input] = {}
    """Earlier stages or paths, each under a name."""


def free_stage(kind: str) -> type[Stage]:
    """A stage of that kind that takes any settings."""
    return type("FreeStage", (FreeStage,), {"kind": kind, "__module__": __name__, "__doc__": FreeStage.__doc__})
