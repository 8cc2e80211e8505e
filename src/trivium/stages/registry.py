"""Every stage that a recipe may name: the built-in ones, those of installed packages, and those of plugins.

A stage's file is imported when somebody asks for its kind, as most of them need PyTorch, which takes seconds to load.
An installed package offers stages under the entry-point group ``trivium.stages``; a plugin is a file whose classes
derive from :class:`~trivium.stage.Stage`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pydantic import ConfigDict

from trivium.errors import TriviumError
from trivium.extensions import installed, load_module
from trivium.stage import Input, Stage

GROUP = "trivium.stages"
"""The entry points of installed packages that offer stages."""

BUILT_IN = (
    "world", "imports", "selfinstruct", "filter", "corpus", "tokenizer", "tokens", "pretrain",
    "sft", "preferences", "reward", "ppo", "grpo", "dpo", "kto", "select",
    "ai_feedback", "revise", "labels", "encode", "classify", "pairs", "spans", "translate",
    "pictures", "vision", "see", "evaluate", "report",
)
"""The kinds of the built-in stages, in the order in which they are listed."""


def built_in(kind: str) -> type[Stage]:
    """The built-in stage of a kind."""
    stage: type[Stage]
    match kind:
        case "world":
            from trivium.stages.data.world import World as stage
        case "imports":
            from trivium.stages.data.imports import Imports as stage
        case "selfinstruct":
            from trivium.stages.finetuning.selfinstruct import SelfInstruct as stage
        case "filter":
            from trivium.stages.data.filter import Filter as stage
        case "corpus":
            from trivium.stages.data.corpus import Corpus as stage
        case "tokenizer":
            from trivium.stages.data.tokenizer import Tokenizer as stage
        case "tokens":
            from trivium.stages.data.tokens import Tokens as stage
        case "pretrain":
            from trivium.stages.pretraining.pretrain import Pretrain as stage
        case "sft":
            from trivium.stages.finetuning.sft import Sft as stage
        case "preferences":
            from trivium.stages.preferences.preferences import Preferences as stage
        case "reward":
            from trivium.stages.preferences.reward import Reward as stage
        case "ppo":
            from trivium.stages.reinforcement.ppo import Ppo as stage
        case "grpo":
            from trivium.stages.reinforcement.grpo import Grpo as stage
        case "dpo":
            from trivium.stages.preferences.dpo import Dpo as stage
        case "kto":
            from trivium.stages.preferences.kto import Kto as stage
        case "select":
            from trivium.stages.preferences.select import Select as stage
        case "ai_feedback":
            from trivium.stages.preferences.ai_feedback import AiFeedback as stage
        case "revise":
            from trivium.stages.preferences.revise import Revise as stage
        case "labels":
            from trivium.stages.data.labels import Labels as stage
        case "encode":
            from trivium.stages.pretraining.encode import Encode as stage
        case "classify":
            from trivium.stages.finetuning.classify import Classify as stage
        case "pairs":
            from trivium.stages.data.pairs import Pairs as stage
        case "spans":
            from trivium.stages.pretraining.spans import Spans as stage
        case "translate":
            from trivium.stages.finetuning.translate import Translate as stage
        case "pictures":
            from trivium.stages.data.pictures import Pictures as stage
        case "vision":
            from trivium.stages.pretraining.vision import Vision as stage
        case "see":
            from trivium.stages.finetuning.see import See as stage
        case "evaluate":
            from trivium.stages.results.evaluate import Evaluate as stage
        case "report":
            from trivium.stages.results.report import Report as stage
        case _:
            raise KeyError(kind)
    return stage


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
