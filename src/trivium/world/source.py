"""Writes the world to a folder: what a project starts from, and beside it the truth that only its examiners read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trivium.errors import TriviumError
from trivium.files import write_rows
from trivium.world.dirt import raw_documents
from trivium.world.documents import documents
from trivium.world.tasks import demonstrations, prompts
from trivium.world.town import Town

SHARDS = 8
"""Files that the raw documents are spread over."""


@dataclass(frozen=True)
class WorldSettings:
    """How big the world is."""

    animals: int = 40
    """Made-up animals, with four facts each."""
    foods: int = 24
    """Made-up foods, with two facts each."""
    people: int = 32
    """People of the town, with four facts each."""
    places: int = 16
    """Places around the town, with three facts each."""
    documents_bytes: int = 3_200_000
    """Bytes of clean text, before dirt is added. With the default town every fact is told about 120 times in them."""
    demonstrations: int = 3000
    """Prompts with a right answer, for supervised fine-tuning."""
    preference_prompts: int = 1500
    """Prompts without an answer, for preferences and reinforcement learning."""
    evaluation_prompts: int = 700
    """Prompts of the evaluation, about entities that no other prompt asks about."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 0:
                raise TriviumError(f"size: {name} is {value}; it must be 0 or more")


def write(folder: Path, seed: int, settings: WorldSettings) -> dict[str, int]:
    """Write the world of ``seed`` and return how many rows each file got.

    ``documents/*.jsonl`` is the raw corpus; ``demonstrations.jsonl`` and ``prompts.jsonl`` are for training. What is
    known about them is in ``truth.jsonl`` (a row a raw document), ``facts.jsonl`` and ``evaluation.jsonl``. The same
    seed and settings always write the same bytes.
    """
    town = Town(seed, settings.animals, settings.foods, settings.people, settings.places)
    evaluation = prompts(town, seed, settings.evaluation_prompts, "evaluation")
    clean = documents(town, seed, settings.documents_bytes)
    raw, truth = raw_documents(town, seed, clean, evaluation)
    files: dict[str, list[dict[str, Any]]] = {
        "truth": truth,
        "demonstrations": demonstrations(town, seed, settings.demonstrations),
        "prompts": prompts(town, seed, settings.preference_prompts, "preference"),
        "evaluation": evaluation,
        "facts": [asdict(fact) for fact in town.facts()],
    }
    counts = {"clean_documents": len(clean), "documents": len(raw)}
    for shard in range(SHARDS):
        write_rows(folder / "documents" / f"part-{shard:02d}.jsonl", raw[shard::SHARDS])
    for name, rows in files.items():
        counts[name] = write_rows(folder / f"{name}.jsonl", rows)
    return counts
