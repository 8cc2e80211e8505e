"""What the tests of stages have in common: a context to run in, and small settings."""

from __future__ import annotations

import json

from trivium.progress import Progress
from trivium.stage import Context

FEW = {"iterations": 2, "episodes": 8, "max_new_tokens": 6, "rows": 4, "length": 128, "precision": "float32"}


def context(school, folder, **inputs):
    folder.mkdir(parents=True, exist_ok=True)
    said = []
    progress = Progress(quiet=True)
    progress.say = said.append
    places = {"model": school / "sft", "reward": school / "reward", "prompts": school / "world"} | inputs
    return Context("r", "practice", 0, places, folder, folder / "scratch", progress, 1), said


def lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
