"""Recipes as the form shows them: templates by task, the settings of every stage, and a setting changed in the text."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import yaml

from trivium.errors import TriviumError
from trivium.recipe.load import apply, read_yaml
from trivium.recipe.schema import described

TEMPLATES = {"fine-tune": "studio/templates/fine-tune.yaml", "align": "studio/templates/align.yaml",
             "whole": "recipes/quickstart.yaml", "clean": "studio/templates/clean.yaml"}
"""The tasks that a run may begin with, and the package's file for each."""


@cache
def templates() -> list[dict[str, str]]:
    """``[{"name", "text"}]``: a recipe for each task."""
    package = resources.files("trivium")
    return [{"name": name, "text": package.joinpath(file).read_text(encoding="utf-8")}
            for name, file in TEMPLATES.items()]


def form(text: str) -> list[dict[str, Any]]:
    """The stages of a recipe, each with ``name``, ``kind``, what it is for (``about``), and its ``settings``: ``name``,
    ``about``, the ``schema`` of its values, its ``default`` and the ``value`` that the recipe gives. Those of a group
    stand as ``group.setting``. Raises :class:`TriviumError` for what is no recipe."""
    raw = recipe_of(text)
    known = described()
    shown = []
    for name, given in raw["stages"].items():
        given = given if isinstance(given, dict) else {}
        kind = str(given.get("kind", name))
        about = known.get(kind, {"about": "", "schema": {}, "defaults": {}})
        shown.append({"name": str(name), "kind": kind, "about": about["about"],
                      "settings": list(settings(about["schema"], about["schema"].get("$defs", {}), about["defaults"],
                                                given))})
    return shown


def settings(schema: dict[str, Any], groups: dict[str, Any], defaults: dict[str, Any], given: dict[str, Any],
             prefix: str = "") -> list[dict[str, Any]]:
    """The settings that a schema describes; those inside groups have dotted names."""
    found: list[dict[str, Any]] = []
    needed = schema.get("required", ())
    for name, about in schema.get("properties", {}).items():
        reference = str(about.get("$ref", "")).rpartition("/")[2]
        group = groups.get(reference, {})
        value = given.get(name)
        if group.get("properties") and isinstance(defaults.get(name), dict):
            found += settings(group, groups, defaults[name], value if isinstance(value, dict) else {},
                              f"{prefix}{name}.")
            continue
        shape = {key: part for key, part in (group | about).items() if key in
                 ("type", "enum", "const", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "anyOf")}
        found.append({"name": prefix + name, "about": " ".join(str(about.get("description", "")).split()),
                      "schema": shape, "default": defaults.get(name), "needed": name in needed,
                      "value": value, "given": name in given})
    return found


def changed(text: str, setting: str, value: str | None) -> str:
    """A recipe's text with one setting given, ``stage.setting``, as YAML writes its value; None takes it out. Comments
    go: the text is written anew. Raises :class:`TriviumError`."""
    raw = recipe_of(text)
    if value is None:
        *place, last = setting.split(".")
        inside: Any = raw["stages"]
        for part in place:
            inside = inside.get(part) if isinstance(inside, dict) else None
        if isinstance(inside, dict):
            inside.pop(last, None)
    else:
        apply(raw, f"stages.{setting}={value}")
    return yaml.safe_dump(raw, sort_keys=False, allow_unicode=True, width=100)


def recipe_of(text: str) -> dict[str, Any]:
    """A recipe's mapping. Raises :class:`TriviumError`."""
    raw = read_yaml(text)
    if not isinstance(raw, dict) or not isinstance(raw.get("stages"), dict):
        raise TriviumError("a recipe is a mapping with `name` and `stages`")
    return raw
