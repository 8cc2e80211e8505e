"""Every block of docs/extend.md, run in one folder from top to bottom."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from trivium.artifacts import open_artifact

PAGE = Path(__file__).parents[1] / "docs/extend.md"
BLOCK = re.compile(r"(?:<!-- file: (?P<file>\S+) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The folder after all blocks: files are written and commands run in the page's order."""
    place = tmp_path_factory.mktemp("page")
    for block in BLOCK.finditer(PAGE.read_text(encoding="utf-8")):
        if block["file"]:
            (place / block["file"]).write_text(block["text"], encoding="utf-8")
        elif block["kind"] == "sh":
            for line in block["text"].strip().splitlines():
                program, *arguments = shlex.split(line)
                start = [sys.executable, "-m", "trivium.cli"] if program == "trivium" else [sys.executable]
                done = subprocess.run([*start, *arguments], cwd=place, capture_output=True, text=True, check=False,
                                      env=os.environ | {"OMP_NUM_THREADS": "1"})
                assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
                (place / f"{'_'.join(arguments[:2]).replace('/', '-')}.out").write_text(done.stdout)
    return place


def test_every_example_of_the_page_runs(folder):
    made = {path.parent.relative_to(folder / "runs").as_posix() for path in folder.glob("runs/*/*/manifest.json")}
    assert made >= {
        "robust/dpo", "simple/dpo", "rl/grpo", "rl/ppo", "examine/evaluate", "imported/imports", "letters/corpus",
        "judged/ai_feedback", "tuned/sft", "counted/lengths", "counted/report", "written/sft"
    }


@pytest.mark.parametrize(("stage", "files"), [("robust/dpo", {"robust.py"}), ("simple/dpo", {"losses.py"}),
                                              ("rl/grpo", {"rewards.py"}), ("rl/ppo", {"rewards.py"}),
                                              ("examine/evaluate", {"rewards.py"}), ("imported/imports", {"rows.py"}),
                                              ("letters/corpus", {"mails.py"}), ("judged/ai_feedback", {"judges.py"}),
                                              ("tuned/sft", {"lion.py"}), ("counted/lengths", {"lengths.py"})])
def test_the_code_of_each_example_is_part_of_its_artifact(folder, stage, files):
    inputs = open_artifact(folder / "runs" / stage).manifest["inputs"]
    assert {Path(made["path"]).name for made in inputs.values() if made["path"].endswith(".py")} == files


def test_what_the_examples_made_is_what_they_say(folder):
    assert open_artifact(folder / "runs/imported/imports").summary["demonstrations"] == 2
    assert open_artifact(folder / "runs/letters/corpus").summary["kept"] == 1
    log = (folder / "runs/rl/ppo/log.jsonl").read_text()
    assert '"score_helpful"' in log and '"score_short"' in log and '"score_polite"' in log
    assert "lengths of answers" in (folder / "runs/counted/report/index.html").read_text(encoding="utf-8")
