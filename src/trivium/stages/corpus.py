"""Raw documents in, clean documents out, and every reject kept with its reason."""

from __future__ import annotations

from pathlib import Path

from trivium.corpus.build import build
from trivium.corpus.truth import measure
from trivium.files import read_rows
from trivium.pipeline import Context
from trivium.stages.common import rows_of
from trivium.stages.settings import Corpus

VERSION = 1


def run(settings: Corpus, context: Context) -> dict[str, object]:
    """Clean the documents; where the truth about them is known, say how well each kind of dirt was found."""
    inputs = [folder / "documents" if (folder / "documents").is_dir() else folder for folder in context.inputs["documents"]]
    evaluation: list[str] = []
    if settings.evaluation:
        for row in rows_of(context.inputs["evaluation"], "evaluation.jsonl", ["prompt"], context):
            evaluation += [message["content"] for message in row["prompt"]]
    counts = build(inputs, evaluation, settings.settings, context.folder, context.scratch / "corpus", context.seed,
                   context.threads, lambda step, done, total: context.progress.update(done, total, step))
    context.progress.say(f"{counts['kept']:,} of {counts['documents']:,} documents kept; the others are in rejects/ with their reasons")
    summary: dict[str, object] = {name: counts[name] for name in ("documents", "kept", "rejected", "funnel", "reasons")}
    truths = [folder / "truth.jsonl" for folder in context.inputs["documents"] if (folder / "truth.jsonl").is_file()]
    if truths:
        summary |= measure(*(_all(files) for files in (truths, _parts(context.folder, "documents"),
                                                      _parts(context.folder, "rejects"))))
    return summary


def _parts(folder: Path, name: str) -> list[Path]:
    return sorted((folder / name).glob("part-*.jsonl"))


def _all(files: list[Path]) -> list[dict[str, object]]:
    return [row for file in files for _, row in read_rows(file)]
