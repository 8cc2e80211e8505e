"""What is in a corpus, and what was left out, and why."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from pathlib import Path

from trivium.errors import TriviumError, counted
from trivium.files import Row, read_json, read_rows
from trivium.randomness import derive


def counts_of(corpus: Path) -> Row:
    """What the corpus counted. Raises :class:`TriviumError` for a folder that is none."""
    if not (corpus / "counts.json").is_file():
        raise TriviumError(
            f"{corpus}: not a corpus, as it holds no counts.json; "
            "name the folder of a corpus stage, such as runs/NAME/corpus"
        )
    counts: Row = read_json(corpus / "counts.json")
    return counts


def samples(corpus: Path, kind: str, number: int, seed: int, step: str | None = None, reason: str | None = None,
            source: str | None = None, language: str | None = None) -> list[Row]:
    """Some of the ``documents`` or ``rejects``, chosen by a hash: the same ones every time for one seed."""
    found = (row for row in _rows(corpus, kind) if (step is None or row.get("step") == step) and (
        reason is None or str(row.get("reason", "")).startswith(reason)) and (
            source is None or row["source"] == source) and (language is None or row.get("language") == language))
    return heapq.nsmallest(number, found, key=lambda row: (derive(seed, "sample", row["id"], row["text"]), row["id"]))


def _rows(corpus: Path, kind: str) -> Iterator[Row]:
    for part in sorted((corpus / kind).glob("part-*.jsonl")):
        yield from (row for _, row in read_rows(part))


def print_corpus(counts: Row, by: str | None) -> None:
    """The funnel and the reasons, as text."""
    print(f"{counted(counts['documents'], 'document')} in = {counts['kept']:,} kept + {counts['rejected']:,} rejected"
          + (f"; {counts['copies']:,} copies of sources that are read more than once" if counts["copies"] else ""))
    print(f"\n{'after':18}{'documents':>12}{'bytes':>16}")
    for row in counts["funnel"]:
        print(f"{row['step'].replace('_', ' '):18}{row['documents']:>12,}{row['bytes']:>16,}")
        for name, entry in sorted(row.get(by or "", {}).items(), key=lambda item: -item[1]["documents"]):
            print(f"    {name[:40]:40}{entry['documents']:>12,}{entry['bytes']:>16,}")
    print("\nwhy documents were rejected")
    order = [row["step"] for row in counts["funnel"]]
    for step, reasons in sorted(counts["reasons"].items(), key=lambda item: order.index(item[0])):
        for reason, number in sorted(reasons.items(), key=lambda item: -item[1]):
            print(f"{number:>12,}  {step.replace('_', ' ')}: {reason}")
    for title, name in (("how main texts were found", "extraction"), ("lines dropped", "lines_dropped"),
                        ("private data replaced", "private"), ("repeated passages", "spans"),
                        ("how often each source is read", "epochs"), ("… and was to be read", "planned_epochs")):
        if counts.get(name):
            print(f"\n{title}")
            for key, number in sorted(counts[name].items(), key=lambda item: -item[1]):
                print(f"{number:>12,.4g}  {key}" if isinstance(number, float) else f"{number:>12,}  {key}")
    contamination = counts["contamination"]
    if contamination["texts"]:
        print(
            f"\n{contamination['texts']:,} evaluation texts; {contamination['texts_hit']:,} of them stood in "
            f"{contamination['documents']:,} documents"
        )
        for hit in contamination["hits"][:20]:
            print(
                f"{hit['documents']:>12,}  number {hit['number']}: {json.dumps(hit['text'][:100], ensure_ascii=False)}")


def print_samples(rows: list[Row], characters: int) -> None:
    """Some documents, as text."""
    for row in rows:
        why = f"  [{row['step']}] {row['reason']}" if "step" in row else ""
        print(f"\n--- {row['id']}  ({row['source']}{', ' + row['language'] if 'language' in row else ''}){why}")
        print(row["text"][:characters] + ("…" if len(row["text"]) > characters else ""))
