"""Studies that are run: side by side, failing, killed in the middle, changed between two runs. The stages are a
plugin's, so that what was made, and how often, can be counted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TRIVIUM = [sys.executable, "-m", "trivium.cli.app"]
PLUGIN = '''
"""Stages that note when they run."""
import json, os, time
from pathlib import Path
from typing import ClassVar
from trivium.errors import TriviumError
from trivium.randomness import python
from trivium.stage import Input, Stage

NOTES = Path(__file__).with_name("notes")


def note(what, context, settings):
    with open(NOTES, "a") as file:
        row = [what, context.name, context.seed, getattr(settings, "level", None), os.getpid()]
        file.write(json.dumps(row) + "\\n")


class Draw(Stage):
    """Draws numbers."""

    kind: ClassVar[str] = "draw"
    seconds: float = 0.0

    def run(self, context):
        note("begin", context, self)
        time.sleep(self.seconds)
        (context.folder / "numbers").write_text(str(python(context.seed, "draw").random()))
        note("end", context, self)
        return {"drawn": 1}


class Lift(Stage):
    """Adds a level to what was drawn."""

    kind: ClassVar[str] = "lift"
    source: Input
    level: float = 0.0
    seconds: float = 0.0
    broken: bool = False

    def run(self, context):
        note("begin", context, self)
        time.sleep(self.seconds)
        if self.broken:
            raise TriviumError("the crane is out of order")
        value = float((context.inputs["source"] / "numbers").read_text()) + self.level
        rows = [{"step": step, "loss": value / (step + 1)} for step in range(3)]
        (context.folder / "log.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
        note("end", context, self)
        return {"height": value}


def register(registry):
    registry.stage(Draw)
    registry.stage(Lift)
'''
RECIPE = """
name: small
plugins: [plugin.py]
stages:
  draw:
  lift: {source: draw}
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "plugin.py").write_text(PLUGIN)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def begin(place, text, *words):
    (place / "study.yaml").write_text(f"name: trial\nrecipe: recipe.yaml\nthreads: 1\n{text}")
    return subprocess.Popen([*TRIVIUM, "study", "study.yaml", *words], cwd=place, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, start_new_session=True)


def study(place, text, *words):
    process = begin(place, text, *words)
    out, errors = process.communicate(timeout=120)
    return process.returncode, out, errors


def notes(place, what="end"):
    file = place / "notes"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [tuple(row[1:]) for row in rows if row[0] == what]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.long
def test_a_study_runs_what_is_missing_and_makes_once_what_runs_share(place):
    text = "seeds: [1, 2]\ngrid: {lift.level: [0, 10]}\n"
    code, out, errors = study(place, text, "--json", "--jobs", "2")
    assert code == 0, errors
    found = json.loads(out)
    one, ten = (found["stages"]["lift"][f"lift.level={level}"]["height"] for level in (0, 10))
    assert ten["value"] == pytest.approx(one["value"] + 10) and set(one["by_seed"]) == {"1", "2"}
    assert sorted(row[:2] for row in notes(place)) == [("draw", 1), ("draw", 2)] + [("lift", 1)] * 2 + [("lift", 2)] * 2
    assert not found["lacking"] and 'id="c-lift-loss-t"' in (place / "runs/trial/study.html").read_text()
    code, out, errors = study(place, text, "--csv", "t.csv", "--latex", "t.tex")
    assert code == 0 and len(notes(place)) == 6 and "begins" not in errors
    assert "height" in (place / "t.csv").read_text() and "height" in (place / "t.tex").read_text()
    # the study is changed: a seed more, a setting less
    code, out, _ = study(place, "seeds: [1, 2, 3]\ngrid: {lift.level: [0]}\n")
    assert code == 0 and len(notes(place)) == 8
    assert "not shown, as the study does not name them any more: runs/trial/lift.level=10/seed-1" in out
    code, out, _ = study(place, "seeds: [1, 2, 3]\nshared: [draw]\ngrid: {lift.level: [0]}\n", "--no-run")
    assert code == 2  # nothing of it is there, and nothing was run
    assert len(notes(place)) == 8


@pytest.mark.long
def test_a_run_that_fails_lets_the_others_go_on(place):
    text = "seeds: [1, 2]\nsettings: {bad: {lift.broken: true}, good: {}, none: {lift: null}}\n"
    code, out, errors = study(place, text, "--jobs", "2")
    assert code == 2 and "2 runs of 6 failed" in errors and "Traceback" not in errors
    assert "lacks bad seed 1: lift (the crane is out of order)" in out and "lacks good" not in out
    assert len([row for row in notes(place) if row[0] == "lift"]) == 2
    assert len([row for row in notes(place) if row[0] == "draw"]) == 2
    text = text.replace("bad: {lift.broken: true}", "bad: {lift.level: 4}")
    code, out, errors = study(place, text)
    assert code == 0 and "lacks" not in out
    assert len([row for row in notes(place) if row[0] == "lift"]) == 4


@pytest.mark.long
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT])
def test_a_study_that_is_killed_leaves_nobody_behind_and_goes_on(place, kind):
    text = "seeds: [1, 2]\nset: {lift.seconds: SECONDS}\nsettings: {a: {}, b: {lift.level: 1}}\n"
    process = begin(place, text.replace("SECONDS", "60"), "--jobs", "2")
    for _ in range(600):
        if len([row for row in notes(place, "begin") if row[0] == "lift"]) == 2:
            break
        time.sleep(0.1)
    workers = {row[-1] for row in notes(place, "begin")}
    assert len(workers) == 2 and all(map(alive, workers))
    if kind == signal.SIGINT:  # as the keyboard sends it: to the whole group
        os.killpg(process.pid, kind)
        assert process.wait(60) == 130 and "goes on from here" in process.stderr.read()
    else:
        process.kill()
        process.wait()
    for _ in range(100):
        if not any(map(alive, workers)):
            break
        time.sleep(0.1)
    assert not any(map(alive, workers))
    process.stdout.close()
    process.stderr.close()
    draws = len([row for row in notes(place) if row[0] == "draw"])
    code, _out, errors = study(place, text.replace("SECONDS", "0"))
    assert code == 0, errors
    assert len([row for row in notes(place) if row[0] == "draw"]) == draws == 2
    assert len([row for row in notes(place) if row[0] == "lift"]) == 4


@pytest.mark.long
def test_two_studies_do_not_write_one_folder(place):
    text = "seeds: [1]\nset: {draw.seconds: 6}\n"
    first = begin(place, text)
    for _ in range(600):
        if notes(place, "begin"):
            break
        time.sleep(0.1)
    code, _, errors = study(place, text)
    assert code == 2 and "another run is writing here" in errors
    first.communicate(timeout=60)
    assert first.returncode == 0 and len([row for row in notes(place) if row[0] == "draw"]) == 1
