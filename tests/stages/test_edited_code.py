"""A reward function that was edited: the stage is run again, and a killed run goes on and says so."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

import trivium
from trivium.progress import Progress

RECIPE = """
name: r
stages:
  grpo: {{model: {school}/sft, prompts: {school}/world, {reward}, iterations: {iterations}, episodes: 4, samples: 3,
         max_new_tokens: 6, rows: 4, length: 64, precision: float32}}
"""
FUNCTION = """
import time


def score(row, responses):
    time.sleep({seconds})
    return [{sign} * float(len(text)) for text in responses]
"""


def write(tmp_path, sign, seconds=0.0):
    (tmp_path / "checks.py").write_text(FUNCTION.format(sign=sign, seconds=seconds))


def written(school, tmp_path, reward, iterations=2):
    (tmp_path / "r.yaml").write_text(RECIPE.format(school=school, reward=reward.format(tmp_path),
                                                   iterations=iterations))
    return tmp_path / "r.yaml"


@pytest.mark.parametrize("reward", ["checker: '{0}/checks.py:score'", "reward: '{0}/checks.py:score'",
                                    "reward: {{mine: {{function: '{0}/checks.py:score'}}}}"])
def test_an_edited_function_is_another_stage(school, tmp_path, reward):
    recipe = written(school, tmp_path, reward)
    write(tmp_path, 1)
    first = trivium.run(recipe, out=str(tmp_path / "out"))["grpo"]
    assert trivium.run(recipe, out=str(tmp_path / "out"))["grpo"].digest == first.digest
    named = {where: made["path"] for where, made in first.manifest["inputs"].items() if where.endswith("checks.py")}
    assert len(named) == 1 and next(iter(named.values())).endswith("checks.py")
    write(tmp_path, -1)
    second = trivium.run(recipe, out=str(tmp_path / "out"))["grpo"]
    assert second.digest != first.digest and second.manifest["key"] != first.manifest["key"]
    write(tmp_path, 1)
    assert trivium.run(recipe,
                       out=str(tmp_path / "out"))["grpo"].digest == first.digest  # the superseded one is found again


def test_a_killed_run_goes_on_with_an_edited_function_and_says_so(school, tmp_path):
    recipe = written(school, tmp_path, "checker: '{0}/checks.py:score'", iterations=6)
    write(tmp_path, 1, 0.2)
    run = subprocess.Popen(
        [sys.executable, "-m", "trivium.cli.app", "run",
         str(recipe), "--quiet", "--set", f"out={tmp_path}/out"])
    deadline = time.monotonic() + 120
    while not (done := list(
        (tmp_path / "out").glob("r/.work/grpo-*/scratch/step-00000002.json"))) and time.monotonic() < deadline:
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert done
    write(tmp_path, -1)
    said = []
    progress = Progress(quiet=True)
    progress.say = said.append
    artifact = trivium.run(recipe, out=str(tmp_path / "out"), progress=progress)["grpo"]
    assert any(text.startswith("goes on with code that was edited since it began: checker.checks.py") for text in said)
    assert artifact.manifest["summary"]["edited"] == ["checker.checks.py"]
    log = [json.loads(line)["score"] for line in (artifact.folder / "log.jsonl").read_text().splitlines()]
    assert len(log) == 6 and log[0] > 0 and log[-1] < 0
