"""A study's file: which recipes come of it, and which faults are told before anything is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from trivium.errors import TriviumError
from trivium.objectives.policy_presets import OBJECTIVES
from trivium.objectives.preference import PREFERENCE_LOSSES
from trivium.study.settings import PLAIN, plan_study

RECIPE = """
name: small
stages:
  world: {size: {animals: 4, foods: 4, people: 4, places: 4, documents_bytes: 60000}}
  corpus: {documents: [world]}
  tokenizer: {vocab_size: 600}
  tokens:
  pretrain: {steps: 4}
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    def written(text):
        (tmp_path / "study.yaml").write_text(f"name: trial\nrecipe: recipe.yaml\n{text}")
        return tmp_path / "study.yaml"

    return written


def test_every_setting_with_every_seed(write):
    plan = plan_study(write("""
seeds: [3, 1]
set: {pretrain.length: 64}
settings: {plain: {}, long: {pretrain.steps: 9}}
grid: {tokenizer.vocab_size: [500, 700], pretrain.optimization.learning_rate: [1e-5, 0.5]}
"""))
    assert len(plan.settings) == 8 and len(plan.runs) == 16
    assert all(run.recipe.stages["pretrain"].length == 64 for run in plan.runs)
    (name,) = [name for name, given in plan.settings.items()
               if given == {"pretrain.steps": 9, "tokenizer.vocab_size": 500,
                            "pretrain.optimization.learning_rate": "1e-5"}]
    assert name == "long,tokenizer.vocab_size=500,pretrain.optimization.learning_rate=1e-5"
    run = next(run for run in plan.runs if run.setting == name)
    stage = run.recipe.stages["pretrain"]
    assert (stage.steps, stage.optimization.learning_rate) == (9, 1e-5)
    assert str(run.recipe.folder) == f"runs/trial/{name}/seed-3" and run.recipe.pool == "runs/trial"
    first = next(iter(plan.settings))
    assert [(run.setting, run.seed) for run in plan.runs[:2]] == [(first, 3), (first, 1)]


def test_shared_stages_have_one_seed_with_all_that_they_are_made_from(write):
    plan = plan_study(write("seeds: [1, 2]\nshared: [tokenizer]\nshared_seed: 7\n"))
    for run in plan.runs:
        assert run.setting == PLAIN
        assert {name: run.recipe.seed_of(name) for name in run.recipe.stages} == {
            "world": 7, "corpus": 7, "tokenizer": 7, "tokens": run.seed, "pretrain": run.seed}


def test_a_stage_that_the_recipe_gives_a_seed_keeps_it(write, tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE + "seeds: {corpus: 5}\n")
    (run,) = plan_study(write("seeds: [1]\nshared: [tokens]\n")).runs
    assert [run.recipe.seed_of(name) for name in run.recipe.stages] == [0, 5, 0, 0, 1]


@pytest.mark.parametrize("study, runs", [("town", 3), ("deduplication", 6), ("overoptimisation", 36),
                                         ("preference-losses", 51), ("policy-objectives", 21)])
def test_the_studies_that_come_with_it_can_be_read(study, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    left_by_the_quickstart = ("world", "corpus", "tokenizer", "tokens", "pretrain", "preferences", "reward", "sft")
    for name in left_by_the_quickstart:
        (tmp_path / "runs/quickstart" / name).mkdir(parents=True)
    plan = plan_study(Path("recipes/studies") / f"{study}.yaml")
    assert len(plan.runs) == runs and not plan.same
    if study == "overoptimisation":
        assert [plan.runs[-1].recipe.seed_of(f"fooled-{n}") for n in (1, 2, 3)] == [0, 2, 3]
    if study == "preference-losses":
        losses = {name for name, loss in PREFERENCE_LOSSES.items() if loss.file is None}
        assert {run.recipe.stages["dpo"].loss for run in plan.runs} == losses == set(plan.settings)
    if study == "policy-objectives":
        assert {run.recipe.stages["grpo"].objective for run in plan.runs} == set(OBJECTIVES) == set(plan.settings)


def test_the_recipe_may_lie_beside_the_study(write, tmp_path, monkeypatch):
    file = write("seeds: [0]\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert plan_study(file).runs[0].file.samefile(tmp_path / "recipe.yaml")


def test_settings_that_give_the_same_recipe_are_run_once(write):
    plan = plan_study(write("settings: {a: {}, b: {pretrain.steps: 4}, c: {pretrain.steps: 5}}\n"))
    assert plan.same == {"b": "a"} and {run.setting for run in plan.runs} == {"a", "c"}


def test_a_setting_may_leave_a_stage_out_or_bring_one(write):
    plan = plan_study(write("""
seeds: [0]
settings:
  less: {pretrain: null}
  more: {stages.again: {kind: pretrain, model: {hidden_size: 32}}}
"""))
    stages = {run.setting: list(run.recipe.stages) for run in plan.runs}
    only = plan_study(write("seeds: [0]\nonly: [pretrain, tokens]\nsettings: {less: {pretrain: null}, all: {}}\n"))
    assert {run.setting: run.only for run in only.runs} == {"less": ["tokens"], "all": ["pretrain", "tokens"]}
    assert stages["less"] == ["world", "corpus", "tokenizer", "tokens"]
    assert stages["more"] == ["world", "corpus", "tokenizer", "tokens", "pretrain", "again"]


def test_values_that_are_no_names_of_folders(write):
    plan = plan_study(write(f"seeds: [0]\ngrid: {{pretrain.model: [{{hidden_size: 32}}, a/b, {'x' * 300}]}}\n"
                            .replace("a/b", "{hidden_size: 64}").replace("x" * 300, "{hidden_size: 96}")))
    assert len(plan.settings) == 3 and not any(set(name) & {"/", "\0"} for name in plan.settings)


@pytest.mark.parametrize("text, said", [
    ("settings: {low: {pretrain.stepz: 2}}", r"study.yaml: low: .*pretrain\.stepz.*did you mean 'steps'"),
    ("settings: {low: {pretrian.steps: 2}}", r"study.yaml: low: pretrian.steps=2: unknown 'pretrian'; did you mean "
                                             "'pretrain'"),
    ("grid: {tokenizer.vocab: [2]}", r"tokenizer\.vocab=2: .*did you mean 'vocab_size'"),
    ("set: {pretrain.steps: many}", r"study.yaml: recipe.yaml: stages\.pretrain\.steps"),
    ("shared: [wurld]", "shared: the recipe has no stage 'wurld'; did you mean 'world'"),
    ("seeds: [1, 1]", "seeds: one stands there twice"),
    ("seeds: []", "seeds"),
    ("sead: 3", "did you mean 'seeds'"),
    ("grid: {pretrain.steps: []}", r"grid\.pretrain\.steps: no values"),
    ("settings: {a/b: {}}", 'settings: "a/b" cannot be a folder.s name'),
    ("only: [pretrian]", "did you mean 'pretrain'"),
    ("tests: 3", "tests"),
    ("models: [a", "study.yaml: line"),
])
def test_faults_are_told_with_their_place(write, text, said):
    with pytest.raises(TriviumError, match=said):
        plan_study(write(text + "\n"))


def test_a_study_without_a_recipe(tmp_path):
    (tmp_path / "study.yaml").write_text("name: a\nrecipe: nowhere.yaml\n")
    with pytest.raises(TriviumError, match=r"nowhere\.yaml"):
        plan_study(tmp_path / "study.yaml")
    (tmp_path / "study.yaml").write_text("[]\n")
    with pytest.raises(TriviumError, match="a study is a mapping"):
        plan_study(tmp_path / "study.yaml")
