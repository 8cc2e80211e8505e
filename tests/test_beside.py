"""Stages side by side, in real worker processes."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from trivium.artifacts import covered, open_artifact, span_of
from trivium.errors import TriviumError
from trivium.pipeline.run import run
from trivium.pipeline.workers import Worker, as_told
from trivium.recipe.load import load_recipe, parse_stage
from trivium.stages.registry import Stages

RECIPE = """
name: beside
stages:
  first:
    kind: world
    threads: 1
    size: &size
      animals: 4
      foods: 4
      people: 4
      places: 4
      documents_bytes: 500000
      demonstrations: 200
      preference_prompts: 50
      evaluation_prompts: 20
  second: {kind: world, threads: 1, size: *size}
  corpus: {documents: [first, second], settings: {language: {enabled: false}}}
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # two cores, whatever the machine has and the environment says
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_two_stages_run_at_once_and_make_what_they_make_one_after_another(recipe):
    together = run(recipe)
    (first, end), (second, other_end) = (span_of(together[name].manifest) for name in ("first", "second"))
    assert max(first, second) < min(end, other_end)
    assert together["corpus"].manifest["inputs"].keys() >= {"documents.0", "documents.1"}
    alone = run(recipe, ["name=alone", "first.threads=null", "second.threads=null"])
    assert {name: artifact.digest
            for name, artifact in together.items()} == {name: artifact.digest
                                                        for name, artifact in alone.items()}
    stamps = {name: os.stat(artifact.folder).st_mtime_ns for name, artifact in together.items()}
    again = run(recipe, ["second.threads=null"])  # how many cores is no part of what is made
    assert {name: os.stat(artifact.folder).st_mtime_ns for name, artifact in again.items()} == stamps


@pytest.mark.parametrize("file", ["quickstart", "checked"])
def test_a_worker_reads_every_stage_as_the_run_has_it(tmp_path, monkeypatch, file):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checked.yaml").write_text("""
name: checked
stages:
  world:
  evaluate: {models: {one: world}, threads: 1, checkers: {right: number}}
  ppo: {model: world, prompts: world, reward: {a: {models: [world, world], combine: worst}}, threads: 1}
""")
    recipe = load_recipe("recipes/quickstart.yaml" if file == "quickstart" else "checked.yaml")
    told = json.loads(json.dumps(as_told(recipe)))
    known = Stages(())
    assert {name: parse_stage(name, settings, known) for name, settings in told["stages"].items()} == recipe.stages


def test_a_stage_that_fails_ends_the_run_with_its_message(recipe, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"nothing": 1}\n')
    recipe.write_text(RECIPE + "  bad: {kind: sft, threads: 1, model: first, demonstrations: second}\n")
    with pytest.raises(TriviumError, match=r"config\.json"):
        run(recipe)
    assert open_artifact(tmp_path / "runs/beside/second").kind == "world"


def test_killed_workers_go_with_the_run(recipe, tmp_path):
    command = [
        sys.executable, "-c",
        "import os; os.sched_getaffinity = lambda pid: {0, 1}; from trivium.pipeline.run import run; "
        "run('recipe.yaml', ['first.size.documents_bytes=3000000', 'second.size.documents_bytes=3000000'])"
    ]
    process = subprocess.Popen(command)
    work = tmp_path / "runs/beside/.work"
    while len([path for path in work.glob("*-*") if path.is_dir()]) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with open(work / "lock") as lock:
        for _ in range(100):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                time.sleep(0.02)
        else:
            pytest.fail("a worker outlives its run")
    assert not (tmp_path / "runs/beside/corpus").exists()
    assert run(recipe)["corpus"].summary["kept"] > 0


def test_a_worker_leaves_the_keyboard_to_the_run(tmp_path):
    """Ctrl-C goes to all processes at once; a worker that is just starting would end with a traceback of its own."""
    with open(tmp_path / "lock", "w") as lock:
        worker = Worker(lock)
        try:
            for _ in range(20):
                worker.process.send_signal(signal.SIGINT)
                time.sleep(0.1)
            assert worker.process.poll() is None
        finally:
            worker.end()


def test_covered_seconds():
    assert covered([]) == 0
    assert covered([(10.0, 14.0), (12.0, 13.0), (13.0, 20.0), (30.0, 31.0)]) == 11
