"""Recipes: overrides, stages left out, and faults that are named in one line."""

from __future__ import annotations

import pytest

from test_pipeline import RECIPE, STAGES
from trivium.errors import TriviumError
from trivium.recipe.load import load_recipe, parse_stage
from trivium.stages.registry import BUILT_IN, Stages


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path / "recipe.yaml"


def test_overrides_are_yaml_and_stages_need_no_prefix(recipe):
    loaded = load_recipe(recipe, ["write.word='[1]'", "stages.write.times=3", "seed=7"], STAGES)
    assert loaded.stages["write"].word == "[1]" and loaded.stages["write"].times == 3 and loaded.seed == 7
    assert list(loaded.stages["join"].references()) == [("parts.0", "write"), ("named.b", "other")]
    assert STAGES["write"].input_fields() == ["source"] and STAGES["join"].input_fields() == ["parts", "named"]


@pytest.mark.parametrize("override", ["join=null", "stages.join=null", "join=false"])
def test_a_stage_set_to_null_is_left_out(recipe, override):
    assert list(load_recipe(recipe, [override], STAGES).stages) == ["write", "other"]


def test_null_leaves_a_stage_out_and_nothing_means_its_defaults(tmp_path):
    (tmp_path / "recipe.yaml").write_text("name: x\nstages:\n  write:\n  join: null\n")
    assert list(load_recipe(tmp_path / "recipe.yaml", (), STAGES).stages) == ["write"]


def test_an_unknown_key_in_the_file_itself(tmp_path):
    (tmp_path / "recipe.yaml").write_text("name: x\nstages: {write: {wrod: y}}\n")
    with pytest.raises(TriviumError, match=r"recipe.yaml: stages.write.wrod: unknown setting; did you mean 'word'"):
        load_recipe(tmp_path / "recipe.yaml", (), STAGES)


def test_every_shipped_recipe_keeps_its_stages():
    from pathlib import Path
    recipe = load_recipe(Path(__file__).parents[1] / "recipes/quickstart.yaml")
    assert "tokens" in recipe.stages and "dpo" in recipe.stages


@pytest.mark.parametrize(("override", "message"), [
    ("write.wrod=x", "stages.write.wrod: unknown setting; did you mean 'word'"),
    ("write.times=many", 'stages.write.times is "many"; it must be a whole number'),
    ("writ.word=x", "unknown 'writ'; did you mean 'write'"),
    ("sead=1", "did you mean 'seed'"),
    ("seed=x", 'seed is "x"; it must be a whole number'),
    ("write.word", "name.of.setting=value"),
    ("stages.third.kind=jion", "no stage of kind 'jion'; did you mean 'join'"),
    ("join.parts.0=wrote", "did you mean 'write'"),
    ("write.source=join", "does not come before"),
    ("write.source=./nothing", "no such file"),
    ("write.source=pages/*.html", r"stages.write.source: pages/\*.html: matches no file in "),
    ("other=false", "is left out"),
    ("name=../x", "folder's name"),
    ("threads=0", "threads is 0; it must be at least 1"),
])
def test_faults_in_a_recipe_are_named(recipe, override, message):
    with pytest.raises(TriviumError, match=message):
        load_recipe(recipe, [override], STAGES)


def test_files_must_be_there_for_the_stages_that_are_to_run(recipe):
    (recipe.parent / "page.html").write_text("a page")
    assert load_recipe(recipe, ["write.source='*.html'"], STAGES).stages["write"].source == "*.html"
    with pytest.raises(TriviumError, match="no such file"):
        load_recipe(recipe, ["write.source=./nothing"], STAGES, only=["join"])  # it is made from write
    assert load_recipe(recipe, ["write.source=./nothing"], STAGES, only=["other"]).stages["write"].source == "./nothing"
    with pytest.raises(TriviumError, match="does not come before"):  # what the recipe itself says must hold
        load_recipe(recipe, ["write.source=join"], STAGES, only=["other"])


def test_files_that_are_no_recipe(tmp_path):
    with pytest.raises(TriviumError, match="no such file"):
        load_recipe(tmp_path / "none.yaml", stages=STAGES)
    (tmp_path / "bad.yaml").write_text("name: x\nstages: [1, {")
    with pytest.raises(TriviumError, match="line .*not valid YAML"):
        load_recipe(tmp_path / "bad.yaml", stages=STAGES)
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff")
    with pytest.raises(TriviumError, match="byte 6: not valid UTF-8"):
        load_recipe(tmp_path / "latin.yaml", stages=STAGES)


ROUNDS = """
name: r
stages:
  world:
  sft: {model: world}
  rounds:
    count: 3
    model: sft
    last: tune
    stages:
      select: {model: previous, reward: world, count: 10}
      tune: {kind: sft, model: previous, demonstrations: select}
  evaluate: {models: {first: rounds-1-tune, rounds: rounds}, baseline: first}
"""


def test_rounds_begin_where_the_one_before_ended(tmp_path):
    (tmp_path / "r.yaml").write_text(ROUNDS)
    stages = load_recipe(tmp_path / "r.yaml", ["rounds.stages.select.samples=5"]).stages
    assert list(stages)[2:-1] == [f"rounds-{n}-{inner}" for n in (1, 2, 3) for inner in ("select", "tune")]
    assert [stages[f"rounds-{n}-select"].model for n in (1, 2, 3)] == ["sft", "rounds-1-tune", "rounds-2-tune"]
    assert [stages[f"rounds-{n}-select"].skip
            for n in (1, 2, 3)] == [0, 10, 20] and stages["rounds-2-select"].samples == 5
    assert stages["rounds-2-tune"].demonstrations == "rounds-2-select"
    assert stages["evaluate"].models == {"first": "rounds-1-tune", "rounds": "rounds-3-tune"}


@pytest.mark.parametrize("change, message", [("rounds.last=tuna", "no stage 'tuna'; did you mean 'tune'"),
                                             ("rounds.count=0", "stages.rounds.count"),
                                             ("rounds.cuont=2", "stages.rounds.cuont: unknown setting"),
                                             ("rounds.stages.tune.epohcs=2", "stages.rounds-1-tune.epohcs")])
def test_faults_in_rounds_are_named(tmp_path, change, message):
    (tmp_path / "r.yaml").write_text(ROUNDS)
    with pytest.raises(TriviumError, match=message):
        load_recipe(tmp_path / "r.yaml", [change])


def test_a_report_without_stages_is_of_all_that_stand_before_it(tmp_path):
    (tmp_path / "r.yaml").write_text(
        "name: r\nstages:\n  world:\n  first: {kind: report}\n  tokenizer: {corpus: world}\n  report:\n"
        "  named: {kind: report, stages: [world]}\n")
    stages = load_recipe(tmp_path / "r.yaml").stages
    assert [stages[name].stages for name in ("first", "report", "named")] == [
        ["world"], ["world", "tokenizer"], ["world"]]
    (tmp_path / "r.yaml").write_text("name: r\nstages:\n  report:\n  world:\n")
    with pytest.raises(TriviumError, match="stages.report.stages: no stage stands before"):
        load_recipe(tmp_path / "r.yaml")


NEEDED = {"filter": {"sought": ["a"], "other": ["b"]}, "labels": {"tables": ["a"]}, "pairs": {"numbers": 9},
          "selfinstruct": {"seeds": "a", "model": "sft"}, "evaluate": {"models": {"a": "sft"}}}
SAID = [("pretrain", {"from": "base", "adapter": {"rank": 2}}), ("grpo", {"objective": "dapo"}),
        ("imports", {"comparisons": {"mine": "a.csv"}, "sources": {"mine": {"columns": {"prompt": "q"}}}}),
        ("ppo", {"reward": {"a": {"models": ["x", "y"]}, "b": {"model": "z", "weight": 2}}}),
        ("dpo", {"loss": "apo_zero"}), ("reward", {"loss": "davidson"}),
        ("evaluate", {"models": {"a": "sft"}, "base": "pretrain", "shots": 2})]


@pytest.mark.parametrize(("kind", "settings"), [*((kind, NEEDED.get(kind, {})) for kind in BUILT_IN), *SAID])
def test_a_stage_with_every_setting_written_out_is_the_same(kind, settings):
    stage = parse_stage(kind, settings, Stages())
    assert parse_stage(kind, stage.model_dump(mode="json"), Stages()) == stage
