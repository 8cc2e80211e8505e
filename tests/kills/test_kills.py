"""Runs that are killed come to what undisturbed runs come to, file by file. A few kills at half-written files are in
every test run; the others take minutes. ``python tests/kills/kill.py --help`` says how to make a thousand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("kill.py")


def kill(*words):
    done = subprocess.run([sys.executable, str(SCRIPT), *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["different"] == 0 and found["files_compared"] > 0
    return found


def test_kills_while_files_are_half_written():
    """In float32."""
    assert kill("--kills", 3, "--seed", 4, "--only", "pretrain", "--half-written", 1)["kills"] >= 1


@pytest.mark.long
@pytest.mark.parametrize("way", ["fork", "command"])
def test_kills_at_any_instant_of_every_stage(way, precision):
    assert kill("--kills", 40 if way == "fork" else 20, "--seed", 7, "--way", way, "--precision", precision)["kills"]


@pytest.mark.long
def test_kills_in_stages_of_data_encoders_and_pictures(precision):
    """All kinds but `selfinstruct`, for which so small a model writes nothing of use."""
    assert kill("--recipe", "others", "--kills", 30, "--seed", 5, "--precision", precision)["kills"] >= 30


@pytest.mark.long
@pytest.mark.skipif(subprocess.run(["unshare", "-rm", "true"], check=False).returncode != 0,
                    reason="this system lets nobody have a file system of their own")
def test_disks_that_fill_up_and_fail(precision):
    assert len(kill("--kills", 18, "--seed", 3, "--way", "disk", "--precision", precision)["by"]) >= 3
