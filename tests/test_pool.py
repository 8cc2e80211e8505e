"""Runs of one pool: what is made once, whose seed is whose, and what a second run waits for."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from trivium.artifacts import lineage, open_artifact
from trivium.errors import TriviumError
from trivium.pipeline import pool as pool_module
from trivium.pipeline.run import current, run
from trivium.recipe.load import load_recipe

SIZE = "{animals: 4, foods: 4, people: 4, places: 4, documents_bytes: 60000, demonstrations: 20, "\
       "preference_prompts: 8, evaluation_prompts: 8}"
RECIPE = f"""
name: one
out: OUT
pool: OUT
stages:
  world: {{size: {SIZE}}}
  corpus: {{documents: [world], settings: {{language: {{enabled: false}}}}}}
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("OUT", str(tmp_path / "runs")))
    return tmp_path / "recipe.yaml"


def inode(folder: Path) -> int:
    return next(file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != "manifest.json"
                ).stat().st_ino


def test_what_another_run_of_the_pool_has_made_is_linked_and_whole(recipe, tmp_path):
    first = run(recipe)
    before = (first["world"].folder / "manifest.json").read_bytes()
    second = run(recipe, [f"out={tmp_path}/runs/deeper", "name=two", "corpus.settings.book_characters=30000"])
    assert inode(second["world"].folder) == inode(first["world"].folder)
    assert second["world"].digest == first["world"].digest
    assert second["corpus"].manifest["key"] != first["corpus"].manifest["key"]
    assert (first["world"].folder / "manifest.json").read_bytes() == before
    for made in second.values():
        open_artifact(made.folder, verify=True)
        assert not any(changed for *_, changed in lineage(made.folder))
    third = run(recipe, ["name=three"])  # the corpus too, whose input is this run's own world
    assert inode(third["corpus"].folder) == inode(first["corpus"].folder)
    assert {place for _, _, place, *_ in lineage(third["corpus"].folder)} >= {tmp_path / "runs/three/world"}
    alone = run(recipe, ["name=alone", "pool=null"])
    assert inode(alone["world"].folder) != inode(first["world"].folder)
    assert alone["world"].digest == first["world"].digest


def test_inputs_from_elsewhere_are_named_from_the_new_place(recipe, tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("The old mill stands by the river.\n" * 9)
    words = [f"corpus.documents=[{tmp_path}/texts]", "world=null", "corpus.settings.rules=[]"]
    run(recipe, words)
    second = run(recipe, [*words, f"out={tmp_path}/runs/far", "name=two"])
    made = second["corpus"].manifest["inputs"]["documents.0"]
    assert os.path.samefile(second["corpus"].folder / made["path"], tmp_path / "texts")


def test_a_damaged_artifact_of_the_pool_is_refused(recipe):
    first = run(recipe, only=["world"])
    victim = next(file for file in first["world"].folder.glob("*.jsonl"))
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(TriviumError, match="digest mismatch"):
        run(recipe, ["name=two"], only=["world"])


def test_files_are_copied_where_there_are_no_links(recipe, monkeypatch):
    first = run(recipe, only=["world"])

    def no_link(*_):
        raise OSError(pool_module.errno.EXDEV, "no")

    monkeypatch.setattr(pool_module.os, "link", no_link)
    second = run(recipe, ["name=two"], only=["world"])
    assert inode(second["world"].folder) != inode(first["world"].folder)
    assert open_artifact(second["world"].folder, verify=True).digest == first["world"].digest


def test_of_two_runs_one_makes_it_and_the_other_waits(recipe, tmp_path):
    said: list[str] = []
    with pool_module.alone("runs", "k" * 64, said.append):
        went = threading.Event()

        def wait() -> None:
            with pool_module.alone("runs", "k" * 64, said.append):
                went.set()

        other = threading.Thread(target=wait)
        other.start()
        time.sleep(0.3)
        assert not went.is_set() and said == ["waits for another run, which makes the same"]
    other.join(5)
    assert went.is_set()


def test_a_stage_may_have_a_seed_of_its_own(recipe):
    fixed = ["seeds.world=0"]
    first = run(recipe, [*fixed, "seed=1"])
    second = run(recipe, [*fixed, "seed=2", "name=two"])
    assert first["world"].digest == second["world"].digest
    assert [made["world"].manifest["seed"] for made in (first, second)] == [0, 0]
    assert [made["corpus"].manifest["seed"] for made in (first, second)] == [1, 2]
    with pytest.raises(TriviumError, match=r"seeds\.wrld: the recipe has no such stage; did you mean 'world'"):
        load_recipe(recipe, ["seeds.wrld=0"])


def test_current_is_what_is_finished_as_the_recipe_is_now(recipe):
    assert current(load_recipe(recipe)) == {}
    made = run(recipe)
    assert {name: one.digest for name, one in current(load_recipe(recipe)).items()} == {
        name: one.digest for name, one in made.items()}
    assert current(load_recipe(recipe, ["corpus.settings.book_characters=30000"])).keys() == {"world"}
    assert current(load_recipe(recipe, ["seed=5"])) == {}
    assert current(load_recipe(recipe), ["world"]).keys() == {"world"}
