"""How stages are shown that are not built in."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

import trivium
from trivium.cli.app import app
from trivium.errors import TriviumError
from trivium.report.gather import gather
from trivium.report.page import render
from trivium.stages.registry import BUILT_IN, Stages

PLUGIN = r'''
import json
from typing import ClassVar

from trivium.stage import Figure, Panel, Stage, Title


class Forest(Stage):
    """Grows trees."""

    kind: ClassVar[str] = "forest"
    title: ClassVar[Title] = Title("growing a forest", "种树", "teach")
    figures: ClassVar[tuple[Figure, ...]] = (Figure("mean_height", "height of a tree (m)", "树高（米）"),
                                             Figure("survived", "trees that survived", "成活率"))
    panel: ClassVar[Panel] = Panel(headline="mean_height", beside=("survived",), curves=("mean_height",))
    years: int = 5
    seeds: int = 40

    def run(self, context):
        heights = [0.75 * year for year in range(self.years)]
        with open(context.folder / "log.jsonl", "w") as file:
            for step, height in enumerate(heights):
                file.write(json.dumps({"step": step, "mean_height": height, "rain": 3.0}) + "\n")
        survived = {"value": 0.6, "low": 0.5, "high": 0.7, "n": self.seeds}
        return {"mean_height": heights[-1] + 0.125, "survived": survived, "edited": ["stage.forest.py"],
                "precision": "bf16-weights"}
'''
RECIPE = (
    "name: {name}\nplugins: [forest.py]\nstages:\n  grove: {{kind: forest, years: {years}}}\n  report: {{stages: "
    "[grove]}}\n"
)


def run(name, years=7):
    with open("recipe.yaml", "w", encoding="utf-8") as file:
        file.write(RECIPE.format(name=name, years=years))
    return trivium.run("recipe.yaml")


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "forest.py").write_text(PLUGIN, encoding="utf-8")
    return tmp_path


def check_page(page):
    card = re.search(r'<div class="card .*?</dl></div>', page, re.DOTALL)[0]
    for words in ("growing a forest", "种树", "4.625", "height of a tree (m)", "树高（米）", "trees that survived",
                  "成活率", "60.0 %"):
        assert words in card, words
    school = page[page.index("It follows a teacher"):page.index('id="curves"')]
    assert "growing a forest" in school and "bfloat16, weights too" in school and "bfloat16（含权重）" in school
    assert 'id="c-grove-mean_height-t">height of a tree (m)<' in page and 'id="c-grove-rain-t"' not in page
    table = page[page.index("What every stage measured"):page.index('id="lineage"')]
    assert "trees that survived" in table and "成活率" in table and "mean height" not in table
    assert "went on with code that had been edited in the meantime (stage.forest.py)" in page
    assert "继续时代码已被修改（stage.forest.py）" in page
    changed = page[page.index('id="settings"'):]
    assert "years: 7" in changed and "seeds" not in changed


def test_a_plugins_stage_is_shown_like_a_built_in_one(plugin):
    check_page((run("trees")["report"].folder / "index.html").read_text(encoding="utf-8"))


def test_a_run_is_shown_again_without_its_plugin(plugin):
    run("trees")
    (plugin / "forest.py").unlink()
    said = CliRunner().invoke(app, ["report", "runs/trees"])
    assert said.exit_code == 0, said.output
    check_page((plugin / "runs/trees/report.html").read_text(encoding="utf-8"))


def test_compare_calls_a_plugins_figures_by_their_names(plugin):
    run("trees"), run("older", 9)
    said = CliRunner().invoke(app, ["compare", "runs/trees", "runs/older"])
    assert re.search(r"height of a tree \(m\) +4\.625 → 6\.125", said.stdout) and "years: 7 → 9" in said.stdout


def test_compare_shows_that_code_was_edited(plugin):
    def digest(name):
        manifest = json.loads((plugin / "runs" / name / "grove/manifest.json").read_text())
        return manifest["inputs"]["stage.forest.py"]["digest"]

    run("trees")
    with open(plugin / "forest.py", "a") as file:
        file.write("\n# The same trees by other words.\n")
    run("older")
    before, after = digest("trees"), digest("older")
    assert before != after
    said = CliRunner().invoke(app, ["compare", "runs/trees", "runs/older"])
    assert f"input stage.forest.py: {before[:12]} → {after[:12]}" in said.stdout
    said = CliRunner().invoke(app, ["compare", "runs/trees", "runs/older", "--json"])
    assert json.loads(said.stdout)["stages"]["grove"]["inputs"] == {"stage.forest.py": [before, after]}


def test_a_stage_that_nobody_knows_is_shown_by_its_kind(plugin):
    run("trees")
    place = plugin / "runs/trees/grove/manifest.json"
    manifest = json.loads(place.read_text())
    del manifest["display"]
    place.write_text(json.dumps(manifest))
    found = gather(plugin / "runs/trees", Stages())
    assert found.title("grove") == ("forest", "forest") and found.displays["grove"].title.school == "judge"
    assert "mean height" in render(found)


def test_a_stage_that_cannot_be_shown_ends_the_run_before_it_begins(plugin):
    (plugin / "forest.py").write_text(
        PLUGIN.replace('Figure("survived", "trees that survived", "成活率")', '("survived",)'), encoding="utf-8")
    with pytest.raises(TriviumError, match="kind 'forest' cannot be shown"):
        run("trees")
    assert not (plugin / "runs/trees/grove").exists()


@pytest.mark.parametrize("kind", BUILT_IN)
def test_every_built_in_stage_has_a_title_and_names_in_both_languages(kind):
    stage = Stages()[kind]
    assert stage.title and stage.title.english != stage.title.chinese
    named = {figure.key for figure in stage.figures}
    assert len(named) == len(stage.figures) and all(figure.english and figure.chinese for figure in stage.figures)
