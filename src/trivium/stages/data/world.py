"""The embedded world, as a source of everything the other stages need."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from trivium.stage import Context, Stage, Title
from trivium.stages.outlook import SAMPLE_BYTES, Outlook, Small
from trivium.world import source
from trivium.world.source import WorldSettings

if TYPE_CHECKING:
    from trivium.stages.cost import Cost, Estimate


class World(Stage):
    """Write the embedded world: raw documents, demonstrations, prompts, and the truth about them."""

    kind: ClassVar[str] = "world"
    version: ClassVar[int] = 3
    title: ClassVar[Title] = Title("the embedded world", "内置小世界", "read")
    size: WorldSettings = WorldSettings()
    """How big the world is."""

    def run(self, context: Context) -> dict[str, object]:
        """Write ``documents/``, ``truth.jsonl``, ``demonstrations.jsonl``, ``prompts.jsonl``, ``evaluation.jsonl``."""
        return {"rows": source.write(context.folder, context.seed, self.size)}

    def sample(self, estimate: Estimate) -> Small:
        """The world with few of its documents."""
        size = min(SAMPLE_BYTES, self.size.documents_bytes)
        return Small(self.model_copy(update={"size": replace(self.size, documents_bytes=size)}),
                     self.size.documents_bytes / size)

    def outlook(self, estimate: Estimate) -> Outlook:
        """Prompts of the evaluation whose truth is known."""
        return Outlook(evaluation_prompts=self.size.evaluation_prompts)

    def cost(self, estimate: Estimate) -> Cost:
        """The time of the sample, a share of which grows with the data."""
        return estimate.sampled(self, 0.15)
