"""The settings as they are listed are those that the classes have."""

from __future__ import annotations

from trivium.recipe.schema import describe_all, described
from trivium.stages.registry import BUILT_IN, built_in


def test_the_listed_settings_are_those_of_the_classes():
    assert described() == describe_all(), "settings have changed: python -m trivium.recipe.schema writes them down"


def test_every_built_in_stage_is_found_under_its_kind():
    for kind in BUILT_IN:
        stage = built_in(kind)
        assert stage.kind == kind and stage.title and stage.title.chinese


def test_every_setting_is_described():
    for kind, known in described().items():
        schema = known["schema"]
        for name, shape in {**schema.get("$defs", {}), kind: schema}.items():
            silent = [field for field, one in shape.get("properties", {}).items()
                      if not one.keys() & {"description", "$ref"}]
            assert not silent, f"{kind}, {name}: {silent}"
