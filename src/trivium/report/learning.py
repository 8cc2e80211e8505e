"""The rows that stages were taught with, and what they kept of earlier tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trivium.report.formats import is_known_rate
from trivium.report.gather import Gathered
from trivium.report.texts import Pair, words


def sources(found: Gathered) -> list[tuple[str, list[dict[str, Any]]]]:
    """For each stage that brought demonstrations in, by source: rows read, rejected with the reasons, and used; and
    what a stage that learned from them made of it in tokens."""
    made = []
    for name, manifest in found.manifests.items():
        read = manifest["summary"].get("sources")
        if manifest["kind"] == "imports" and read:
            learned = learned_from(found, manifest["digest"])
            made.append((name, [{"source": source, "refused": sum(counts["rejected"].values()), **counts,
                                 **learned.get(source, {})} for source, counts in read.items()]))
    return made


def learned_from(found: Gathered, digest: str) -> dict[str, Any]:
    """What the first stage that learned from the demonstrations of an artifact counted, by source."""
    return next((one["summary"]["by_source"] for one in found.manifests.values()
                 if "by_source" in one["summary"]
                 and one["inputs"].get("demonstrations", {}).get("digest") == digest), {})


@dataclass(frozen=True)
class Remembered:
    """Right answers to an earlier task, before and after a stage."""

    task: str
    stage: str
    way: Pair
    """How the task was rehearsed."""
    rehearsed: bool
    before: dict[str, Any]
    after: dict[str, Any]


def remembered(found: Gathered) -> list[Remembered]:
    """Right answers to earlier tasks before and after each stage that counted them, task by task, so that the same one
    with and without rehearsal stand side by side."""
    rows = []
    for name, manifest in found.manifests.items():
        rehearsal = manifest["settings"].get("rehearsal")
        for task, scores in (manifest["summary"].get("earlier") or {}).items():
            before, after = scores.get("before"), scores.get("after")
            if is_known_rate(before) and is_known_rate(after):
                rows.append(Remembered(task, name, way_of(rehearsal), bool(rehearsal), before, after))
    return sorted(rows, key=lambda row: row.task)


def way_of(rehearsal: dict[str, Any] | None) -> Pair:
    """How earlier tasks were rehearsed."""
    if not rehearsal:
        return words("rehearsal_none")
    kind = "rehearsal_generated" if rehearsal["generated"] else "rehearsal_rows"
    return words(kind, share=f"{rehearsal['share']:.0%}")
