"""What the steps of cleaning left of the documents."""

from __future__ import annotations

from typing import Any

from trivium.report.gather import Gathered
from trivium.report.texts import Pair, words

RAW_STEPS = ("input", "read", "address")
"""The steps after which pages still are what was crawled: their bytes say nothing about tokens."""


def funnels(found: Gathered) -> list[dict[str, Any]]:
    """For each stage that cleaned: its funnel, and its precision and recall where the truth is known."""
    stages = found.metrics["stages"]
    return [funnel(name, figures, bytes_per_token(stages)) for name, figures in stages.items()
            if isinstance(figures.get("funnel"), list) and figures["funnel"]]


def funnel(name: str, figures: dict[str, Any], per_token: dict[str, float]) -> dict[str, Any]:
    """One stage's funnel."""
    rows = figures["funnel"]
    most, before = max(1, *(row["documents"] for row in rows)), rows[0]
    steps = []
    for row in rows:
        steps.append({
            "step": row["step"], "documents": row["documents"], "bytes": row["bytes"],
            "share": row["documents"] / most, "lost": before["documents"] - row["documents"],
            "tokens": about_tokens(row, per_token)
        })
        before = row
    precision = figures["precision"] if isinstance(figures.get("precision"), dict) else {}
    reasons = figures.get("reasons", {})
    return {
        "name": name, "steps": steps, "rows": rows, "notes": notes(figures, per_token), "tokens": per_token,
        "dirt": [(kind, rate, figures.get("recall", {}).get(kind)) for kind, rate in precision.items()],
        "reasons": {row["step"]: reasons[row["step"]] for row in rows if reasons.get(row["step"])},
        "parts": {group: names for group in ("sources", "languages") if len(names := largest(rows, group)) > 1}
    }


def about_tokens(row: dict[str, Any], per_token: dict[str, float]) -> float | None:
    """About how many tokens a step left; ``None`` for raw pages, and where there is no tokenizer."""
    if not per_token or row["step"] in RAW_STEPS:
        return None
    whole = per_token.get("all", 4.0)
    languages: dict[str, Any] = row.get("languages") or {}
    told = sum(entry["bytes"] for entry in languages.values())
    tokens = sum(entry["bytes"] / per_token.get(name, whole) for name, entry in languages.items())
    return float(tokens + (row["bytes"] - told) / whole)


def notes(figures: dict[str, Any], per_token: dict[str, float]) -> list[tuple[Pair, list[tuple[Pair, str]]]]:
    """What else a corpus counted, as lines of names and values."""
    said: list[tuple[Pair, list[tuple[Pair, str]]]] = []
    for key in ("extraction", "private", "spans"):
        if figures.get(key):
            said.append((words(key), [(as_it_is(name), f"{count:,}") for name, count in sorted(
                figures[key].items(), key=lambda item: -item[1])]))
    hit = figures.get("contamination")
    if isinstance(hit, dict) and hit.get("texts"):
        said.append((words("contamination"), [(words("texts"), f"{hit['texts']:,}"),
                                              (words("texts_hit"), f"{hit['texts_hit']:,}"),
                                              (words("texts_rejected"), f"{hit['documents']:,}")]))
    if figures.get("epochs"):
        said.append((words("epochs"), [(as_it_is(name), f"× {count:.2f}")
                                       for name, count in figures["epochs"].items()]))
    if per_token:
        said.append((words("bytes_per_token"), [(as_it_is(name), f"{size:.2f}") for name, size in per_token.items()]))
    return said


def as_it_is(name: object) -> Pair:
    """A name of the data's own, which is the same in both languages."""
    return (str(name).replace("_", " "),) * 2


def largest(rows: list[dict[str, Any]], group: str, most: int = 10) -> list[str]:
    """The sources or languages of a corpus that began with the most documents."""
    entries: dict[str, Any] = next((row[group] for row in rows if row.get(group)), {})
    return sorted(entries, key=lambda name: -entries[name]["documents"])[:most]


def bytes_per_token(stages: dict[str, Any]) -> dict[str, float]:
    """By language and for ``all``, as the tokenizer and the tokenised corpus say; empty where there are none."""
    found: dict[str, float] = {}
    for figures in stages.values():
        if isinstance(figures.get("bytes_per_token"), dict):
            found |= figures["bytes_per_token"]
    for figures in stages.values():
        if isinstance(figures.get("train"), dict) and "bytes_per_token" in figures["train"]:
            found["all"] = figures["train"]["bytes_per_token"]
    return found
