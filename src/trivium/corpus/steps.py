"""The tasks of the corpus stage: each a pure function ``(parameters, input paths, folder) -> counts``.

read      a group of input files        -> raw shards of documents, malformed rows among them extract   a raw shard
-> documents with their main text filter    a shard of documents          -> those of good quality and no harm, with
their marks for the search of duplicates exact     a range of digests            -> pairs of equal documents near      a
range of bands              -> pairs of similar documents index     the evaluation texts          -> sorted hashes of
their runs of words finish    a filtered shard              -> the final documents, and the rejects of every step before

Counts are nested dictionaries of numbers, which :func:`add` sums up over shards.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from trivium.corpus.c4 import drop_lines
from trivium.corpus.contamination import ContaminationIndex, ContaminationSettings, write_index
from trivium.corpus.duplicates import DuplicateSettings, exact_pairs, near_pairs, write_marks
from trivium.corpus.extract import extract
from trivium.corpus.harmful import HarmfulFilter
from trivium.corpus.private import redact
from trivium.corpus.quality import LINE_RULES, check
from trivium.corpus.readers import Document, InputFile, Limits, Malformed, read
from trivium.corpus.shards import Row, read_array, read_shard, write_array, write_lines, write_shard
from trivium.corpus.thresholds import QualityThresholds
from trivium.files import write_bytes

FUNNEL = ("input", "read", "extract", "repetition", "quality", "c4", "fineweb", "harmful", "exact_duplicates",
          "near_duplicates", "private", "contamination")
QUALITY_STEPS = {"repetition": "gopher_repetition", "quality": "gopher_quality", "c4": "c4", "fineweb": "fineweb"}
REJECT_CHARACTERS = 2000
HTML_COST = 10  # a page takes about ten times a text's time
SHARD_BYTES = 32 << 20

Counts = dict[str, Any]


def add(total: Counts, more: Counts) -> Counts:
    """Sum nested counts into ``total``."""
    for key, value in more.items():
        if isinstance(value, dict):
            add(total.setdefault(key, {}), value)
        else:
            total[key] = total.get(key, 0) + value
    return total


class Tally:
    """What one task counts: the documents and bytes that are left after each step, by source, and why others are
    not."""

    def __init__(self) -> None:
        self.counts: Counts = {}
        self.rejects: list[Row] = []

    def left(self, step: str, source: str, text: str) -> None:
        """One document is left after ``step``."""
        sources = self.counts.setdefault("funnel", {}).setdefault(step, {})
        entry = sources.setdefault(source, {"documents": 0, "bytes": 0})
        entry["documents"] += 1
        entry["bytes"] += len(text) if text.isascii() else len(text.encode())

    def count(self, kind: str, name: str, number: int = 1) -> None:
        """``number`` more of ``name``."""
        add(self.counts, {kind: {name: number}})

    def reject(self, document: Row, step: str, reason: str, text: str) -> None:
        """One document ends here."""
        add(self.counts, {"reasons": {step: {reason.split(":")[0]: 1}}})
        place: Row = {key: document[key] for key in ("file", "row") if key in document}
        self.rejects.append({"id": document["id"], "step": step, "reason": reason, "text": text,
                             "source": document["source"], **place})


def read_step(parameters: dict[str, Any], inputs: list[Path], folder: Path) -> Counts:
    """Read a group of files into raw shards of about equal work."""
    limits = Limits(**parameters["limits"])
    shards, rows, cost, size, tally = 0, list[Row](), 0, 0, Tally()
    for path, (name, source) in zip(inputs, parameters["files"], strict=True):
        for item in read(InputFile(path, name, source), limits):
            row = _raw_row(item)
            content = row.get("html") or row["text"]
            tally.left("input", row["source"], content)
            rows.append(row)
            cost, size = cost + (HTML_COST if "html" in row else 1), size + len(content)
            if cost >= parameters["shard_documents"] or size >= SHARD_BYTES:
                write_shard(folder / f"raw-{shards:05}.jsonl.zst", rows)
                shards, rows, cost, size = shards + 1, [], 0, 0
    if rows:
        write_shard(folder / f"raw-{shards:05}.jsonl.zst", rows)
    return tally.counts


def _raw_row(item: Document | Malformed) -> Row:
    place = {"id": item.id, "source": item.source, "file": item.file, "row": item.row}
    if isinstance(item, Malformed):
        return {**place, "malformed": item.reason, "text": item.text}
    return {**place, "url": item.url, **({"text": item.text} if item.html is None else {"html": item.html})}


def extract_step(parameters: dict[str, Any], inputs: list[Path], folder: Path) -> Counts:
    """Find the main text of pages; malformed rows end here."""
    tally = Tally()

    def documents() -> Iterator[Row]:
        for row in read_shard(inputs[0]):
            if "malformed" in row:
                tally.reject(row, "read", row["malformed"], row["text"])
                continue
            tally.left("read", row["source"], row.get("html") or row["text"])
            text = extract(row["html"], parameters["extraction"], row["url"]) if "html" in row else row["text"]
            if text is None:
                tally.reject(row, "extract", "no main text", row["html"])
                continue
            tally.left("extract", row["source"], text)
            yield {"id": row["id"], "text": text, "source": row["source"], "url": row["url"]}

    write_shard(folder / "documents.jsonl.zst", documents())
    write_shard(folder / "rejects.jsonl.zst", _cut(tally.rejects))
    return tally.counts


def filter_step(parameters: dict[str, Any], inputs: list[Path], folder: Path) -> Counts:
    """Apply the quality rules and the filter of harmful documents, and write the marks for the search of duplicates."""
    tally, kept = Tally(), []
    thresholds = QualityThresholds(**parameters["thresholds"])
    rules: list[str] = parameters["rules"]
    of_family = {step: [rule for rule in rules if rule.startswith(family + ".")]
                 for step, family in QUALITY_STEPS.items()}
    harmful = None
    if parameters["harmful"]:
        harmful = _harmful_filter(inputs[1], parameters["min_weight"], parameters["min_density"])
    for row in read_shard(inputs[0] / "documents.jsonl.zst"):
        if _good(row, of_family, thresholds, tally):
            reason = harmful.check(row["text"], row["url"]) if harmful else None
            if reason:
                tally.reject(row, "harmful", reason, row["text"])
            else:
                tally.left("harmful", row["source"], row["text"])
                kept.append(row)
    write_shard(folder / "documents.jsonl.zst", kept)
    write_shard(folder / "rejects.jsonl.zst", _cut(tally.rejects))
    write_bytes(folder / "ids.json", json.dumps([row["id"] for row in kept]).encode())
    settings = DuplicateSettings(**parameters["duplicates"])
    write_marks([row["text"] for row in kept], settings, parameters["seed"], folder)
    return {**tally.counts, "kept": len(kept)}


def _good(row: Row, of_family: dict[str, list[str]], thresholds: QualityThresholds, tally: Tally) -> bool:
    """Whether a document passes all quality rules; C4's rules about lines change its text."""
    for step, rules in of_family.items():
        if step == "c4":
            text, dropped = drop_lines(row["text"], [rule for rule in rules if rule in LINE_RULES], thresholds)
            for rule, number in dropped.items():
                tally.count("lines_dropped", rule, number)
            if not text.strip():
                tally.reject(row, step, "c4.lines: every line was dropped", row["text"])
                return False
            row["text"] = text
        if reason := check(row["text"], [rule for rule in rules if rule not in LINE_RULES], thresholds):
            tally.reject(row, step, reason, row["text"])
            return False
        tally.left(step, row["source"], row["text"])
    return True


@lru_cache(maxsize=1)
def _harmful_filter(lists: Path, min_weight: float, min_density: float) -> HarmfulFilter:
    return HarmfulFilter(json.loads(lists.read_bytes()), min_weight, min_density)


def exact_step(parameters: dict[str, Any], inputs: list[Path], folder: Path) -> Counts:
    """Pairs of equal documents among one range of digests."""
    pairs = exact_pairs(inputs, parameters["starts"], parameters["partition"], parameters["partitions"])
    write_array(folder / "pairs.npy", pairs)
    return {}


def near_step(parameters: dict[str, Any], inputs: list[Path], folder: Path) -> Counts:
    """Pairs of similar documents among one range of bands; the first input holds the exact duplicates' numbers."""
    pairs = near_pairs(inputs[1:], parameters["starts"], np.asarray(read_array(inputs[0])), parameters["threshold"],
                       parameters["partition"], parameters["partitions"])
    write_array(folder / "pairs.npy", pairs)
    return {}


def index_step(parameters: dict[str, Any], inputs: list[Path], folder: Path) -> Counts:
    """The evaluation texts' runs of words."""
    return write_index(json.loads(inputs[0].read_bytes()), ContaminationSettings(**parameters), folder)


@lru_cache(maxsize=1)
def _index(folder: Path) -> ContaminationIndex:
    return ContaminationIndex(folder)


def finish_step(parameters: dict[str, Any], inputs: list[Path], folder: Path) -> Counts:
    """Leave out duplicates, replace private data, leave out what gives the evaluation away; then write the final files,
    with the rejects of all steps. Rejects show no private data either."""
    filtered, extracted, index = inputs[0], inputs[1], _index(inputs[2]) if parameters["contamination"] else None
    tally, kinds = Tally(), parameters["kinds"]
    drops = {row: (step, reason) for row, step, reason in parameters["drops"]}

    def documents() -> Iterator[Row]:
        for number, row in enumerate(read_shard(filtered / "documents.jsonl.zst")):
            step, reason = drops.get(number, (None, ""))
            if step != "exact_duplicates":
                tally.left("exact_duplicates", row["source"], row["text"])
            if step is not None:
                tally.reject(row, step, reason, row["text"])
                continue
            tally.left("near_duplicates", row["source"], row["text"])
            text, private = redact(row["text"], kinds)
            for kind, found in private.items():
                tally.count("private", kind, found)
            tally.left("private", row["source"], text)
            if index is not None and (hit := index.find(row["text"])):
                tally.count("hits", str(hit[0]))
                tally.reject(row, "contamination", f"evaluation_text: number {hit[0] + 1}: {hit[1]}", row["text"])
                continue
            tally.left("contamination", row["source"], text)
            yield {"id": row["id"], "text": text, "source": row["source"], "url": row["url"]}

    def rejects() -> Iterator[Row]:
        earlier = (row for task in (extracted, filtered) for row in read_shard(task / "rejects.jsonl.zst"))
        for row in (*earlier, *_cut(tally.rejects)):
            # some characters more than are kept were kept so far: a value that the cut would halve is found whole
            text, reason = (redact(row[name], kinds)[0] for name in ("text", "reason"))
            yield {**row, "text": text[:REJECT_CHARACTERS], "reason": reason}

    kept = write_lines(folder / "documents.jsonl", documents())
    rejected = write_lines(folder / "rejects.jsonl", rejects())
    return {**tally.counts, "written": {"kept": kept, "rejected": rejected}}


def _cut(rejects: Iterable[Row]) -> Iterator[Row]:
    for row in rejects:
        yield {**row, "text": row["text"][:REJECT_CHARACTERS + 200]}
