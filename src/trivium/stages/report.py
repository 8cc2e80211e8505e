"""The report: one page that opens from disk, and ``metrics.json`` for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trivium.artifacts import open_artifact
from trivium.errors import TriviumError
from trivium.files import read_rows, write_json, write_text
from trivium.pipeline import Context
from trivium.report.page import render
from trivium.stages.settings import Report

VERSION = 2


def run(settings: Report, context: Context) -> dict[str, object]:
    """Collect what the stages measured."""
    folders: list[Path] = context.inputs["stages"]
    artifacts = {open_artifact(folder).manifest["name"]: open_artifact(folder) for folder in folders}
    manifests = {name: artifact.manifest for name, artifact in artifacts.items()}
    metrics = collect(manifests) | {"wall_seconds": context.wall_seconds()}
    write_json(context.folder / "metrics.json", metrics)
    logs = {name: [row for _, row in read_rows(artifact.folder / "log.jsonl")] for name, artifact in artifacts.items()
            if (artifact.folder / "log.jsonl").is_file()}
    answers = [row for artifact in artifacts.values() if (artifact.folder / "answers.jsonl").is_file()
               for _, row in read_rows(artifact.folder / "answers.jsonl")]
    write_text(context.folder / "index.html", render(context.run_name, metrics, manifests, logs, answers))
    return {"stages": len(manifests)}


def collect(manifests: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What ``metrics.json`` holds besides the wall seconds: peak memory, and every stage's figures under the stage's name."""
    stages: dict[str, dict[str, Any]] = {}
    for name, manifest in manifests.items():
        stages[name] = {"seconds": manifest["seconds"], **manifest["summary"]}
    for manifest in manifests.values():
        if manifest["kind"] == "evaluate":
            _spread(manifest["summary"], stages)
    try:
        json.dumps(stages, allow_nan=False)
    except ValueError as error:
        raise TriviumError("report: a stage's figures are not finite; look at its log.jsonl") from error
    return {"peak_memory_mb": max(manifest["peak_memory_mb"] for manifest in manifests.values()), "stages": stages}


def _spread(evaluation: dict[str, Any], stages: dict[str, dict[str, Any]]) -> None:
    """Put the examination's figures beside the stage that they are about."""
    for name, figures in evaluation["models"].items():
        if name in stages:
            stages[name] |= {key: figures[key] for key in figures if key not in stages[name]}
        elif "sft" in stages and "right_answers" in figures:
            stages["sft"][f"{name}_right_answers"] = figures["right_answers"]
