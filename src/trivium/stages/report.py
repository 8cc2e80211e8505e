"""The report: one page that opens from disk, and ``metrics.json`` for programs."""

from __future__ import annotations

from pathlib import Path

from trivium.artifacts import open_artifact
from trivium.files import write_json
from trivium.pipeline import Context
from trivium.report.gather import collected
from trivium.report.page import write_page
from trivium.stages.settings import Report

VERSION = 7


def run(settings: Report, context: Context) -> dict[str, object]:
    """Collect what the stages measured."""
    folders: list[Path] = context.inputs["stages"]
    found = collected(context.run_name, [open_artifact(folder) for folder in folders])
    found.metrics["wall_seconds"] = context.wall_seconds()
    write_json(context.folder / "metrics.json", found.metrics)
    write_page(context.folder / "index.html", found)
    return {"stages": len(found.manifests)}
