"""The stages of a run: when and how long each ran, how much it worked through, and what was made from what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import Markup

from trivium.artifacts import covered, span_of
from trivium.report import draw, texts
from trivium.report.formats import is_number, number
from trivium.report.gather import Gathered
from trivium.report.texts import both, words

MODELS = ("model", "reward", "adapter", "safety")
"""The inputs that are models: those that no stage of the run made are shown too."""
AMOUNTS = ("documents", "kept", "parameters", "steps", "demonstrations", "prompts", "responses", "rankings", "episodes",
           "vocab_size")
"""Figures that say how much a stage worked through; a stage shows the first few that it has."""
SHOWN_AMOUNTS = 3


def whole(found: Gathered) -> bool:
    """Whether the run goes from raw documents to a model that learned from preferences."""
    kinds = {manifest["kind"] for manifest in found.manifests.values()}
    return "corpus" in kinds and bool(kinds & {"ppo", "dpo", "kto", "grpo", "select"})


def schools(found: Gathered) -> list[dict[str, Any]]:
    """The curriculum: schools, their stages, and when and how long each ran. The time between runs is left out."""
    spans = {name: span_of(manifest) for name, manifest in found.manifests.items()}
    total = covered(spans.values()) or 1.0
    made: dict[str, dict[str, Any]] = {
        school: {"words": title, "stages": [], "seconds": 0.0, "colour": colour}
        for colour, (school, title) in enumerate(texts.SCHOOLS.items())
    }
    for name, manifest in found.manifests.items():
        group = made[found.displays[name].title.school]
        begun = spans[name][0]
        before = covered((start, min(end, begun)) for start, end in spans.values() if start < begun)
        group["stages"].append({
            "name": name, "seconds": manifest["seconds"], "start": before / total, "share": manifest["seconds"] / total,
            "memory": manifest["peak_memory_mb"], "costs": costs(found, name)
        })
        group["seconds"] += manifest["seconds"]
    return [group for group in made.values() if group["stages"]]


def costs(found: Gathered, stage: str) -> list[tuple[texts.Pair, str]]:
    """How much a stage worked through, and in which number format it trained."""
    summary = found.manifests[stage]["summary"]
    rows, train, precision = (summary.get(key) for key in ("rows", "train", "precision"))
    figures = summary | (rows if isinstance(rows, dict) else {})
    amounts = [(found.figure(key, stage), number(figures[key])) for key in AMOUNTS if is_number(figures.get(key))]
    if isinstance(train, dict) and "tokens" in train:
        amounts.append((words("tokens"), number(train["tokens"])))
    amounts = amounts[:SHOWN_AMOUNTS]
    if isinstance(precision, str):
        amounts.append((words("number_format"), both(*texts.PRECISIONS.get(precision, (precision, precision)))))
    return amounts


def lineage(found: Gathered) -> Markup:
    """What was made from what."""
    by_digest = {manifest["digest"]: name for name, manifest in found.manifests.items()}
    colours = {school: colour for colour, school in enumerate(texts.SCHOOLS)}
    nodes: dict[str, tuple[texts.Pair, str, int]] = {
        name: (found.title(name), manifest["digest"][:10], colours[found.displays[name].title.school])
        for name, manifest in found.manifests.items()
    }
    edges = [(by_digest[made["digest"]], name) for name, manifest in found.manifests.items()
             for made in manifest["inputs"].values() if by_digest.get(made["digest"], name) != name]
    for name, manifest in found.manifests.items():
        for field, made in manifest["inputs"].items():
            if field in MODELS and made["digest"] not in by_digest:
                place = "/".join([part for part in Path(made["path"]).parts if part != ".."][-2:])
                nodes.setdefault(place, ((place, place), made["digest"][:10], 0))
                edges.append((place, name))
    return draw.graph(nodes, edges, words("lineage"))
