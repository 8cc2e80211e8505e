"""The embedded world, as a source of everything the other stages need."""

from __future__ import annotations

from trivium.pipeline import Context
from trivium.stages.settings import World
from trivium.world import source

VERSION = 2


def run(settings: World, context: Context) -> dict[str, object]:
    """Write ``documents/``, ``truth.jsonl``, ``demonstrations.jsonl``, ``prompts.jsonl``, ``evaluation.jsonl``."""
    return {"rows": source.write(context.folder, context.seed, settings.size)}
