"""Projects named in recipes, and what a run leaves open brought back to people."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from annotating import items

from trivium.artifacts import lineage, seal
from trivium.errors import TriviumError
from trivium.feedback.disagreements import against_people, of_run, unclear
from trivium.feedback.exports import export
from trivium.feedback.store import Store
from trivium.files import write_rows
from trivium.pipeline import one_stage
from trivium.pipeline.run import run
from trivium.planning.this_machine import predict
from trivium.recipe.load import load_recipe

RECIPE = """
name: trial
stages:
  imports: {comparisons: [project:PROJECT], demonstrations: {own: project:PROJECT}, thumbs: [project:PROJECT]}
  again: {kind: imports, comparisons: [project:PROJECT]}
"""


@pytest.fixture
def recipe(tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.replace("PROJECT", str(project)))
    return file


def judged(store: Store, count: int, name: str = "anna") -> None:
    """So many comparisons more."""
    person = store.person(name)
    number = person.id if person else store.add_person(name)
    for _ in range(count):
        task = store.next_work(number)
        assert task
        store.judge(task.id, number, [[0], [1, 2]], [7, 2, 2])


def written(store: Store, name: str = "anna") -> None:
    person = store.person(name)
    assert person
    task = store.next_work(person.id, "write")
    assert task
    store.write(task.id, person.id, [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hi."}])


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_new_judgements_make_the_stages_anew_and_nothing_else_does(store: Store, recipe: Path, project: Path) -> None:
    store.add_items(items(40))
    judged(store, 20)
    written(store)
    first = run(recipe)
    made = first["imports"].folder
    texts = {row["id"]: row["responses"] for row in export(store, "rankings")}
    assert sorted(row["responses"] for row in rows(made / "comparisons.jsonl")) == sorted(texts.values())
    assert [row["messages"][-1]["content"] for row in rows(made / "demonstrations.jsonl")] == ["Hi."]
    assert len(rows(made / "thumbs.jsonl")) == len(list(export(store, "thumbs"))) == 60
    inputs = first["imports"].manifest["inputs"]
    assert inputs["comparisons.0"]["path"] == inputs["demonstrations.own"]["path"] == f"project:{project}"
    assert inputs["comparisons.0"]["digest"] == first["again"].manifest["inputs"]["comparisons.0"]["digest"]
    assert [str(place) for _, _, place, _, changed in lineage(made) if not changed][1:] == [f"project:{project}"] * 3
    assert run(recipe)["imports"].digest == first["imports"].digest  # nothing was said since
    written(store)
    second = run(recipe)
    assert len(rows(made / "demonstrations.jsonl")) == 1  # the same question, answered alike: one row
    assert second["imports"].manifest["created"] > first["imports"].manifest["created"]
    assert second["again"].manifest["created"] == first["again"].manifest["created"]  # it reads comparisons alone
    judged(store, 1)
    third = run(recipe)
    assert third["again"].digest != second["again"].digest
    assert len(rows(third["again"].folder / "comparisons.jsonl")) == 21


def test_nothing_changes_underneath_a_run(store: Store, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add_items(items(40))
    judged(store, 20)
    written(store)
    sealed = one_stage.seal

    def while_it_runs(*given: Any, **more: Any) -> Any:
        judged(store, 1)  # after the first stage, before the second reads
        return sealed(*given, **more)
    monkeypatch.setattr(one_stage, "seal", while_it_runs)
    made = run(recipe, ["threads=1"])
    assert len(rows(made["imports"].folder / "comparisons.jsonl")) == 20
    assert len(rows(made["again"].folder / "comparisons.jsonl")) == 20
    monkeypatch.undo()
    recipe.write_text(recipe.read_text())
    assert len(list(export(store, "rankings"))) == 22


def test_stages_side_by_side_take_the_same(store: Store, recipe: Path) -> None:
    """Workers are other processes: they take what the run has taken."""
    store.add_items(items(20))
    judged(store, 20)
    recipe.write_text(recipe.read_text().replace("comparisons: [", "threads: 1, comparisons: ["))
    recipe.write_text(recipe.read_text().replace("demonstrations: {own: project:" + str(store.project) + "}, ", ""))
    made = run(recipe, ["threads=2"])
    assert (made["imports"].manifest["inputs"]["comparisons.0"]["digest"]
            == made["again"].manifest["inputs"]["comparisons.0"]["digest"])


def test_times_are_predicted_of_what_is_in_the_project(store: Store, recipe: Path) -> None:
    store.add_items(items(20))
    judged(store, 20)
    written(store)
    assert predict(load_recipe(recipe))["not_predicted"] == []


@pytest.mark.parametrize(("old", "new", "reason"), [
    ("kind: imports, comparisons: [project:PROJECT]", "kind: sft, model: project:PROJECT",
     "holds nothing that `model` takes; it can be named under preferences"),
    ("again: {kind: imports, comparisons: [project:PROJECT]}",
     "again: {kind: imports, comparisons: [project:nowhere]}", "stages.again.comparisons.0: nowhere: no feedback"),
    ("again: {kind: imports, comparisons: [project:PROJECT]}",
     "again: {kind: imports, comparisons: ['project:postgresql://me:secret@there/name']}", "holds a password"),
])
def test_what_cannot_be_is_said_before_anything_runs(store: Store, recipe: Path, project: Path, old: str, new: str,
                                                     reason: str) -> None:
    recipe.write_text(RECIPE.replace(old, new).replace("PROJECT", str(project)))
    with pytest.raises(TriviumError, match=reason.replace("(", r"\(")) as raised:
        load_recipe(recipe)
    assert "secret" not in str(raised.value)


def test_an_empty_project_and_several_processes_are_refused(store: Store, recipe: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TriviumError, match="nobody has written an answer in it yet"):
        run(recipe)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TriviumError, match="trivium feedback export PROJECT"):
        run(recipe)


def test_a_reward_model_against_people_by_hand() -> None:
    scores = {"a": 1.0, "b": 3.0, "c": -1.0}
    ranked = [{"id": "x", "prompt": [{"role": "user", "content": "?"}], "responses": ["a", "b", "c"],
               "ranking": ranking} for ranking in ([[0], [1], [2]], [[1], [0], [2]], [[2, 0], [1]], [[0, 1, 2]])]
    found = list(against_people(ranked, lambda messages: scores[messages[-1]["content"]], "reward"))
    # 1: b over a by 2. 2: as people say. 3: b over a by 2, over c by 4. 4: no preference.
    assert [doubt.weight for doubt in found] == pytest.approx([1 / (1 + math.exp(-2)), 1 / (1 + math.exp(-4))])
    assert found[0].item["scores"] == [[1.0, 3.0, -1.0]] and found[0].item["id"] == "x"


def exam(folder: Path) -> Any:
    """Answers of three models, of which four prompts leave something open between the first two."""
    asked = [("same", ("x", "x", "y"), (2, 2, 2)), ("equal", ("x", "y", "z"), (4, 4, 9)),
             ("clear", ("x", "y", "z"), (8, 2, 8)), ("untold", ("x", "y", "z"), None), ("empty", ("", "y", "z"), None)]
    folder.mkdir(parents=True)
    write_rows(folder / "answers.jsonl", [
        {"id": name, "prompt": [{"role": "user", "content": f"{name}?"}], "answers": dict(zip("abc", texts)),
         "samples": dict(zip("abc", texts)), "points": dict(zip("abc", points)) if points else {}}
        for name, texts, points in asked])
    return seal(folder, kind="evaluate", name="evaluate", key="k" * 64, seed=0,
                settings={"models": {"a": "a", "b": "b", "c": "c"}}, inputs={}, summary={}, seconds=1.0,
                peak_memory_mb=1.0)


def test_answers_that_no_rubric_tells_apart(tmp_path: Path, store: Store) -> None:
    made = exam(tmp_path / "run" / "evaluate")
    assert [(doubt.item["prompt"][0]["content"], doubt.weight) for doubt in unclear(made)] == [
        ("equal?", 0.5), ("untold?", 0.25)]
    assert [doubt.item["prompt"][0]["content"] for doubt in unclear(made, ["a", "c"])] == [
        "same?", "clear?", "untold?"]
    with pytest.raises(TriviumError, match="no model 'd'"):
        list(unclear(made, ["a", "d"]))
    with pytest.raises(TriviumError, match="two models can be compared; 1 are named"):
        list(unclear(made, ["a"]))
    found = of_run(tmp_path / "run", lambda folder: lambda messages: 0.0, most=1)
    assert [item["prompt"][0]["content"] for item in found] == ["equal?"] and found[0]["models"] == ["a", "b"]
    assert store.add_items(found).added == 1
    with pytest.raises(TriviumError, match="no run with a reward model or an examination"):
        of_run(tmp_path / "nothing", lambda folder: lambda messages: 0.0)


def test_what_people_have_judged_is_asked_again(store: Store) -> None:
    store.change_settings(overlap=1, known_share=0, repeat_share=0)
    store.add_items(items(2))
    judged(store, 1)
    berta = store.add_person("berta")
    outcome = store.add_items(items(2), again=True)
    assert (outcome.added, outcome.known_already, outcome.again) == (0, 2, 1)
    done = []
    while task := store.next_work(berta):
        store.judge(task.id, berta, [[0], [1], [2]], [7, 2, 1])
        done.append(task.item)
    assert sorted(done) == ["item-0", "item-1"]
    store.settle("item-0", berta, [[0], [1], [2]])
    assert store.add_items(items(1), again=True).again == 0  # the lead's word stands
    with Store(store.project) as other, other.state() as state:
        assert state.items["item-0"].people + state.items["item-1"].people == 2
