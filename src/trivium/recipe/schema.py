"""The settings of every kind of stage, as they are listed: the frozen surface of recipes.

``schema.json`` beside this file holds what the built-in stages' classes say, so that it can be shown without importing
PyTorch. A test compares the two. After a change of settings: ``python -m trivium.recipe.schema``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter

from trivium.files import read_json, write_text
from trivium.model.config import EncoderConfig, EncoderDecoderConfig, VisionConfig
from trivium.recipe.load import Header
from trivium.recipe.rounds import Rounds
from trivium.stages.registry import BUILT_IN, built_in

PLACE = Path(__file__).with_name("schema.json")


def describe(settings: type[BaseModel]) -> dict[str, Any]:
    """``{"about", "schema", "defaults"}`` of a class of settings."""
    schema = settings.model_json_schema()
    for shape in (EncoderConfig, EncoderDecoderConfig, VisionConfig):
        _inherit(schema.get("$defs", {}).get(shape.__name__, {}), shape)
    return {"about": (settings.__doc__ or "").splitlines()[0], "schema": _untitled(schema),
            "defaults": settings.model_construct().model_dump(mode="json", warnings=False)}


def _inherit(schema: dict[str, Any], shape: type) -> None:
    """Describe the fields of a dataclass that it inherits: pydantic reads docstrings in the class itself alone."""
    for base in shape.__mro__[1:-1]:
        for name, known in TypeAdapter(base).json_schema()["properties"].items():
            if "description" in known:
                schema.get("properties", {}).get(name, {}).setdefault("description", known["description"])


def _untitled(schema: Any) -> Any:
    """A schema without the titles that only repeat names."""
    if isinstance(schema, dict):
        return {key: _untitled(value) for key, value in schema.items() if key != "title" or not isinstance(value, str)}
    return [_untitled(value) for value in schema] if isinstance(schema, list) else schema


def describe_all() -> dict[str, dict[str, Any]]:
    """What there is to say of a recipe's head, of every built-in stage, and of rounds."""
    stages = {kind: built_in(kind) for kind in BUILT_IN}
    kinds: dict[str, type[BaseModel]] = {"recipe": Header, **stages, "rounds": Rounds}
    return {name: describe(settings) for name, settings in kinds.items()}


def described() -> dict[str, dict[str, Any]]:
    """The same as it was written down."""
    known: dict[str, dict[str, Any]] = read_json(PLACE)
    return known


if __name__ == "__main__":
    write_text(PLACE, json.dumps(describe_all(), indent=1, ensure_ascii=False) + "\n")
