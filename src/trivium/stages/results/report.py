"""The report: one page that opens from disk, and ``metrics.json`` for programs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from trivium.artifacts import open_artifact
from trivium.errors import TriviumError
from trivium.files import write_json
from trivium.report.gather import collected
from trivium.report.page import write_page
from trivium.stage import Context, Input, Stage, Title
from trivium.stages.outlook import Cost

if TYPE_CHECKING:
    from trivium.stages.cost import Estimate


class Report(Stage):
    """Write the report page and metrics.json."""

    kind: ClassVar[str] = "report"
    version: ClassVar[int] = 8
    title: ClassVar[Title] = Title("this report", "本报告", "exam")
    stages: list[Input] = []
    """The stages to report on; without any, all that stand before it in the recipe."""

    def within(self, earlier: Mapping[str, Stage]) -> Stage:
        """With all earlier stages, but for other reports, where none is named. Raises :class:`TriviumError` where
        there is none."""
        if self.stages:
            return self
        found = [name for name, stage in earlier.items() if not isinstance(stage, Report)]
        if not found:
            raise TriviumError("stages: no stage stands before this one that could be reported on")
        return self.model_copy(update={"stages": found})

    def run(self, context: Context) -> dict[str, object]:
        """Collect what the stages measured."""
        folders: list[Path] = context.inputs["stages"]
        found = collected(context.run_name, [open_artifact(folder) for folder in folders], context.stages or {})
        found.metrics["wall_seconds"] = context.wall_seconds()
        write_json(context.folder / "metrics.json", found.metrics)
        write_page(context.folder / "index.html", found)
        return {"stages": len(found.manifests)}

    def cost(self, estimate: Estimate) -> Cost:
        """About a second."""
        return Cost(1.0, "a fixed time")
