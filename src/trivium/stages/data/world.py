"""The embedded world, as a source of everything the other stages need."""

from __future__ import annotations

from typing import ClassVar

from trivium.stage import Context, Stage, Title
from trivium.world import source
from trivium.world.source import WorldSettings


class World(Stage):
    """Write the embedded world: raw documents, demonstrations, prompts, and the truth about them."""

    kind: ClassVar[str] = "world"
    version: ClassVar[int] = 2
    title: ClassVar[Title] = Title("the embedded world", "内置小世界", "read")
    size: WorldSettings = WorldSettings()
    """How big the world is."""

    def run(self, context: Context) -> dict[str, object]:
        """Write ``documents/``, ``truth.jsonl``, ``demonstrations.jsonl``, ``prompts.jsonl``, ``evaluation.jsonl``."""
        return {"rows": source.write(context.folder, context.seed, self.size)}


