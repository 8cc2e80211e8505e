"""Rounds: a stage of kind ``rounds`` in a recipe stands for the same few stages again and again, each time from the
model that the time before made (Llama 2 and 3 collected preferences in five and six rounds)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trivium.errors import TriviumError, nearest
from trivium.stage import Stage


class Rounds(BaseModel):
    """Repeat some stages, each round from the model that the round before made.

    A round's stages are called ROUNDS-N-STAGE. In their settings the name of a stage of the same round means that one,
    and `previous` the model that the round begins with. After them the name of the whole means the last round's model.
    A stage that takes `count` prompts passes over those of earlier rounds, so that each round has fresh ones."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, protected_namespaces=())

    count: int = Field(6, ge=1)
    """Rounds."""
    model: str
    """The model that the first round begins with."""
    last: str
    """The stage of a round whose model the next round begins with."""
    stages: dict[str, dict[str, Any]]
    """The stages of a round, in order."""


def unroll(stages: dict[str, Any], explain: Any, known: Mapping[str, type[Stage]]) -> dict[str, Any]:
    """A recipe's unparsed stages with every ``rounds`` written out. Raises :class:`TriviumError`."""
    written: dict[str, Any] = {}
    final: dict[str, str] = {}
    for name, settings in stages.items():
        if not (isinstance(settings, dict) and settings.get("kind", name) == "rounds"):
            written[name] = _rename(settings, final)
            continue
        settings = {key: value for key, value in settings.items() if key != "kind"}
        try:
            rounds = Rounds.model_validate(settings)
        except ValidationError as error:
            raise TriviumError(explain(error, f"stages.{name}.", Rounds, settings)) from error
        if rounds.last not in rounds.stages:
            raise TriviumError(
                f"stages.{name}.last: a round has no stage {rounds.last!r}{nearest(rounds.last, rounds.stages)}")
        previous = final.get(rounds.model, rounds.model)
        for number in range(1, rounds.count + 1):
            own = {inner: f"{name}-{number}-{inner}" for inner in rounds.stages}
            for inner, inside in rounds.stages.items():
                stage = _rename(copy.deepcopy(inside), own | {"previous": previous} | final)
                stage.setdefault("kind", inner)
                if takes_fresh_prompts(known, stage["kind"]) and isinstance(stage.get("count"), int) \
                        and isinstance(stage.get("skip", 0), int):
                    stage["skip"] = stage.get("skip", 0) + (number - 1) * stage["count"]
                written[own[inner]] = stage
            previous = own[rounds.last]
        final[name] = previous
    return written


def _rename(value: Any, names: dict[str, str]) -> Any:
    """Every text that is one of ``names``, at any depth, as what it stands for; a stage's `kind` and all keys stay as
    they are."""
    if isinstance(value, dict):
        return {key: item if key == "kind" else _rename(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_rename(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value


def takes_fresh_prompts(known: Mapping[str, type[Stage]], kind: str) -> bool:
    """Whether a kind of stage takes ``count`` prompts and can ``skip`` some."""
    return isinstance(kind, str) and kind in known and {"count", "skip"} <= known[kind].model_fields.keys()
