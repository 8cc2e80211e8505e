"""What a report is made of: the manifests, logs and answers of a run's stages."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from trivium.artifacts import MANIFEST, Artifact, open_artifact, span_of
from trivium.errors import TriviumError
from trivium.files import Row, read_json, read_rows
from trivium.report import texts
from trivium.report.display import Display, display_of
from trivium.report.formats import is_number
from trivium.stage import Stage
from trivium.status import logs_of, read_status, rows_so_far


@dataclass
class Gathered:
    """Everything that the page shows."""

    name: str
    stages: Mapping[str, type[Stage]]
    """Every kind of stage that is known."""
    metrics: dict[str, Any]
    """What metrics.json holds."""
    manifests: dict[str, dict[str, Any]]
    """By stage, in the order of the run."""
    logs: dict[str, list[Row]] = field(default_factory=dict)
    answers: list[Row] = field(default_factory=list)
    """Prompts with every model's answer; ``right`` says of each whether it is, where that is known."""
    under_way: dict[str, str] = field(default_factory=dict)
    """What a stage that is not finished says that it does, by stage; its log is among the logs."""

    @cached_property
    def displays(self) -> dict[str, Display]:
        """How each stage is shown."""
        return {name: display_of(self.manifests.get(name, {"kind": name}), self.stages)
                for name in (*self.manifests, *self.logs)}

    def title(self, stage: str) -> texts.Pair:
        """What a stage is called besides its name."""
        title = self.displays[stage].title
        return title.english, title.chinese

    def figure(self, key: str, stage: str) -> texts.Pair:
        """What a figure of a stage is called."""
        return self.displays[stage].figures.get(key) or texts.figure_words(key)

    def points(self, stage: str, x: str, y: str) -> list[tuple[float, float]]:
        """The rows of a stage's log that have both numbers."""
        return [(float(row[x]), float(row[y])) for row in self.logs.get(stage, ())
                if is_number(row.get(x)) and is_number(row.get(y))]


def gather(run: Path, stages: Mapping[str, type[Stage]]) -> Gathered:
    """A finished or unfinished run. Raises :class:`TriviumError` for a folder without any artifact."""
    if not run.is_dir():
        raise TriviumError(f"{run}: no such folder")
    folders = [path.parent for path in run.glob(f"*/{MANIFEST}") if path.parent.name != "superseded"]
    artifacts = [open_artifact(folder) for folder in folders]
    artifacts = in_order([artifact for artifact in artifacts if artifact.kind != "report"])
    if not artifacts:
        raise TriviumError(f"{run}: no finished stage here; name the folder of a run, such as runs/quickstart")
    found = collected(run.resolve().name, artifacts, stages)
    old = run / "report" / "metrics.json"
    for name, log in logs_of(run).items():
        if name not in found.manifests:
            found.logs[name] = list(rows_so_far(log))
    status = read_status(run)
    for name, stage in (status["stages"] if status else {}).items():
        if stage["state"] == "running":
            found.under_way[name] = f"{stage['done']}/{stage['total']}" if "total" in stage else ""
    found.metrics["wall_seconds"] = (read_json(old)["wall_seconds"] if old.is_file()
                                     else sum(artifact.manifest["seconds"] for artifact in artifacts))
    return found


def in_order(artifacts: Sequence[Artifact]) -> list[Artifact]:
    """Each after all that it is made from, otherwise by when it was made."""
    left = sorted(artifacts, key=lambda artifact: (artifact.manifest["created"], artifact.name))
    done: list[Artifact] = []
    while left:
        waiting = {artifact.digest for artifact in left}
        ready = next((one for one in left if not waiting & digests_of_inputs(one) - {one.digest}), left[0])
        left.remove(ready)
        done.append(ready)
    return done


def digests_of_inputs(artifact: Artifact) -> set[str]:
    """The digests of all that an artifact was made from."""
    return {made["digest"] for made in artifact.manifest["inputs"].values()}


def collected(name: str, artifacts: Sequence[Artifact], stages: Mapping[str, type[Stage]]) -> Gathered:
    """The parts of some artifacts' report; the wall seconds are the caller's to add."""
    manifests = {artifact.name: artifact.manifest for artifact in artifacts}
    logs = {artifact.name: [row for _, row in read_rows(artifact.folder / "log.jsonl")] for artifact in artifacts
            if (artifact.folder / "log.jsonl").is_file()}
    answers = [
        row for artifact in artifacts if (artifact.folder / "answers.jsonl").is_file() for row in marked(artifact)
    ]
    return Gathered(name, stages, metrics_of(manifests), manifests, logs, answers)


def marked(artifact: Artifact) -> list[Row]:
    """An examination's answers, each marked right or wrong where its prompts come with the truth."""
    from trivium.world import rubric

    rows = [row for _, row in read_rows(artifact.folder / "answers.jsonl")]
    made = artifact.manifest["inputs"].get("prompts")
    file = Path(os.path.normpath(artifact.folder / made["path"])) / "evaluation.jsonl" if made else None
    if file and file.is_file():
        truths = {row.get("id"): row for _, row in read_rows(file)}
        for row in rows:
            known = truths.get(row["id"], {})
            if "truth" in known and known.get("prompt") == row["prompt"]:
                row["right"] = {name: rubric.is_right(known, text) for name, text in row["answers"].items()}
                row["truth"] = known["truth"]
    return rows


def metrics_of(manifests: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What ``metrics.json`` holds besides the wall seconds: peak memory, and every stage's figures under the stage's
    name."""
    stages: dict[str, dict[str, Any]] = {}
    for name, manifest in manifests.items():
        stages[name] = {"seconds": manifest["seconds"], **manifest["summary"]}
    for manifest in manifests.values():
        if manifest["kind"] == "evaluate":
            give_to_stages(manifest["summary"], stages, manifest["settings"].get("models", {}))
    try:
        json.dumps(stages, allow_nan=False)
    except ValueError as error:
        raise TriviumError("report: a stage's figures are not finite; look at its log.jsonl") from error
    return {"peak_memory_mb": peak_memory(manifests.values()), "stages": stages}


def peak_memory(manifests: Iterable[dict[str, Any]]) -> float:
    """The most memory of any stage, or of stages that ran side by side together with the process that ran them, in
    MB."""
    spans = [(*span_of(manifest), manifest["peak_memory_mb"], manifest.get("shared_memory_mb", 0.0))
             for manifest in manifests]
    together = ([other for other in spans if other[0] <= begun < other[1] + 1e-3] for begun, *_ in spans)
    return float(
        max(sum(peak for *_, peak, _ in group) + max(shared for *_, shared in group) for group in together if group))


def give_to_stages(evaluation: dict[str, Any], stages: dict[str, dict[str, Any]], models: dict[str, str]) -> None:
    """Put the examination's figures beside the stage that they are about; ``models`` says which stage or folder has
    each name. What is there for comparison stands beside the fine-tuned model."""
    for name, figures in evaluation["models"].items():
        if name in stages and Path(models.get(name, name)).name == name:
            stages[name] |= {key: figures[key] for key in figures if key not in stages[name]}
        elif "sft" in stages and "right_answers" in figures:
            stages["sft"][f"{name}_right_answers"] = figures["right_answers"]
