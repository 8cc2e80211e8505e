"""The stage that examines models: what it is made from."""

from __future__ import annotations

import pytest

import trivium
from trivium.artifacts import lineage

CHECKS = "def longer(row, responses):\n    return [1.0 * len(one) for one in responses]\n"


@pytest.fixture
def recipe(models, tmp_path, monkeypatch):
    """A recipe with nothing but an examination by a function of one's own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checks.py").write_text(CHECKS)
    (tmp_path / "recipe.yaml").write_text(f"""
name: exam
stages:
  evaluate:
    models: {{sft: {models["chat"]}}}
    prompts: {models["world"]}
    checkers: {{long: "checks.py:longer", right: world}}
    limit: 4
    max_new_tokens: 6
""")
    return tmp_path / "recipe.yaml"


def test_an_edit_of_a_checker_is_a_new_examination(recipe):
    first = trivium.run(recipe)["evaluate"]
    assert [where for where in first.manifest["inputs"] if where.startswith("checkers")] == ["checkers.long.checks.py"]
    assert trivium.run(recipe)["evaluate"].digest == first.digest
    (recipe.parent / "checks.py").write_text(CHECKS.replace("1.0", "10.0"))
    assert any(changed for *_, changed in lineage(first.folder))
    second = trivium.run(recipe)["evaluate"]
    assert second.manifest["key"] != first.manifest["key"]
    lengths = [one.summary["models"]["sft"]["long"]["value"] for one in (first, second)]
    assert lengths[1] == pytest.approx(10 * lengths[0]) and lengths[0] > 0
    assert not any(changed for *_, changed in lineage(second.folder))
