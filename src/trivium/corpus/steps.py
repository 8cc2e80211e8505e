"""The tasks of the corpus stage: each a pure function ``(parameters, input paths, folder) -> counts``.

- ``read``: a group of input files -> raw shards of documents, malformed rows among them
- ``fetch``: ``read`` and ``extract`` of files at URLs in one task, so that raw pages stay on no disk
- ``extract``: a raw shard -> documents with their main text
- ``filter``: a shard of documents -> those in wanted languages, of good quality and no harm, with their marks for the
  search of duplicates and of repeated passages
- ``windows``: a part of the search for passages that occur again, see :mod:`trivium.corpus.repeated_spans`; the others,
  and the search for duplicates, are in :mod:`trivium.corpus.shuffles`
- ``evaluation_index``: the evaluation texts -> sorted hashes of their runs of words
- ``finish``: a filtered shard -> the final documents, and the rejects of every step before
- ``mixture``: a finished shard -> its documents as often as their sources are to be read

Counts are nested dictionaries of numbers, which :func:`add` sums up over shards.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from trivium.corpus.c4 import drop_lines
from trivium.corpus.classifier import Filter
from trivium.corpus.contamination import ContaminationIndex, ContaminationSettings, write_index
from trivium.corpus.duplicates import DuplicateSettings, write_marks
from trivium.corpus.extract import Attempt, ExtractionLimits, find, try_logged
from trivium.corpus.extractors import SMALL
from trivium.corpus.harmful import AddressFilter, HarmfulFilter
from trivium.corpus.killable import Log, call
from trivium.corpus.languages import LanguageSettings, identify
from trivium.corpus.mixture import copies
from trivium.corpus.names import without_names
from trivium.corpus.private import redact
from trivium.corpus.quality import LINE_RULES, check
from trivium.corpus.repeated_spans import SpanSettings, cut, mark, windows
from trivium.corpus.shards import among, read_array, read_shard, write_lines, write_shard
from trivium.corpus.thresholds import QualityThresholds
from trivium.corpus.words import plain_hashes
from trivium.data.charsets import BAD
from trivium.data.readers import Document, InputFile, Limits, Malformed, read
from trivium.files import Row, write_bytes, write_json
from trivium.randomness import derive
from trivium.remote import Remote, fetch, name_of

FUNNEL = ("input", "read", "address", "extract", "language", "repetition", "quality", "c4", "fineweb", "classifier",
          "harmful", "exact_duplicates", "near_duplicates", "spans", "private", "contamination", "mixture")
QUALITY_STEPS = {"repetition": "gopher_repetition", "quality": "gopher_quality", "c4": "c4", "fineweb": "fineweb"}
REJECT_CHARACTERS = 2000
# characters that rejects keep until private data is replaced: a value that the cut would halve is found whole
MARGIN = 200
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
        self._entries: dict[tuple[str, str, str], dict[str, int]] = {}

    def left(self, step: str, row: Row, size: int) -> None:
        """One document of so many bytes is left after ``step``."""
        for group, name in (("sources", row["source"]), ("languages", row.get("language"))):
            if name is not None:
                entry = self._entries.get((step, group, name))
                if entry is None:
                    groups = self.counts.setdefault("funnel", {}).setdefault(step, {}).setdefault(group, {})
                    entry = self._entries[step, group, name] = groups.setdefault(name, {"documents": 0, "bytes": 0})
                entry["documents"] += 1
                entry["bytes"] += size

    def count(self, kind: str, name: str, number: int = 1) -> None:
        """``number`` more of ``name``."""
        add(self.counts, {kind: {name: number}})

    def reject(self, document: Row, step: str, reason: str, text: str) -> None:
        """One document ends here."""
        add(self.counts, {"reasons": {step: {reason.split(":")[0]: 1}}})
        place: Row = {key: document[key] for key in ("file", "row") if key in document}
        if "language" in document:
            place["language"] = document["language"]
        self.rejects.append({
            "id": document["id"], "step": step, "reason": reason, "text": text[:REJECT_CHARACTERS + MARGIN],
            "source": document["source"], **place
        })


def size_of(text: str) -> int:
    """Bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def read_step(parameters: dict[str, Any], inputs: list[Path], folder: Path) -> Counts:
    """Read a group of files into raw shards of about equal work."""
    limits = Limits(**parameters["limits"])
    shards, rows, cost, size, tally = 0, list[Row](), 0, 0, Tally()
    for path, (name, source) in zip(inputs, parameters["files"], strict=True):
        met: set[str] = set()
        for item in read(InputFile(path, name, source), limits, met):
            row = _raw_row(item)
            content = row.get("html") or row["text"]
            tally.left("input", row, size_of(content))
            rows.append(row)
            cost, size = cost + (HTML_COST if "html" in row else 1), size + len(content)
            if cost >= parameters["shard_documents"] or size >= SHARD_BYTES:
                write_shard(folder / f"raw-{shards:05}.jsonl.zst", rows)
                shards, rows, cost, size = shards + 1, [], 0, 0
        for field in sorted(met):
            tally.count("fields", field)
    if rows:
        write_shard(folder / f"raw-{shards:05}.jsonl.zst", rows)
    return tally.counts


def fetch_step(parameters: dict[str, Any], inputs: list[Path], folder: Path) -> Counts:
    """Fetch files from their URLs, one at a time, read them, and extract each raw shard in a folder of its own. Inputs:
    the lists of harmful terms. ``fetched.json`` holds the digests of what was read."""
    raw, fetched, paths = folder / "raw", [], list[Path]()
    raw.mkdir()
    for number, (url, size, state) in enumerate(parameters["objects"]):
        paths.append(raw / f"{number:05}-{name_of(url)[-80:]}")
        digest = fetch(Remote(url, size, state), paths[-1])
        fetched.append({"url": url, "bytes": paths[-1].stat().st_size, "state": state, "sha256": digest})
    counts = read_step(parameters, paths, raw)
    for path in paths:
        path.unlink()
    for number, shard in enumerate(sorted(raw.glob("raw-*"))):
        (folder / f"{number:05}").mkdir()
        write_json(folder / f"{number:05}" / "counts.json",
                   extract_step(parameters["extract"], [shard, *inputs], folder / f"{number:05}"))
        shard.unlink()
    raw.rmdir()
    write_json(folder / "fetched.json", fetched)
    return counts


def _raw_row(item: Document | Malformed) -> Row:
    place = {"id": item.id, "source": item.source, "file": item.file, "row": item.row}
    if isinstance(item, Malformed):
        return {**place, "malformed": item.reason, "text": item.text}
    return {**place, "url": item.url, **({"text": item.text} if item.html is None else {"html": item.html})}


def extract_step(parameters: dict[str, Any], inputs: list[Path], folder: Path) -> Counts:
    """Leave out pages by their address, and find the main text of the others; malformed rows end here. All of it is
    done by the process that pages may end, so that they need not be sent there."""
    log = folder / "attempts"
    counts: Counts = call(_extract_step, parameters, inputs, folder, log, log=log)
    log.unlink()
    return counts


def _extract_step(parameters: dict[str, Any], inputs: list[Path], folder: Path, log: Path) -> Counts:
    with Log(log) as outcomes:
        return _extract(parameters, inputs, folder, try_logged(outcomes))


def _extract(parameters: dict[str, Any], inputs: list[Path], folder: Path, attempt: Attempt) -> Counts:
    tally, limits = Tally(), ExtractionLimits(**parameters["limits"])
    addresses = AddressFilter(json.loads(inputs[1].read_bytes())) if parameters["addresses"] else None

    def documents() -> Iterator[Row]:
        for row in read_shard(inputs[0]):
            if "malformed" in row:
                tally.reject(row, "read", row["malformed"], row["text"])
                continue
            raw = row.get("html") or row["text"]
            size = size_of(raw)
            tally.left("read", row, size)
            if addresses is not None and row["url"] and (reason := addresses.check(row["url"])):
                tally.reject(row, "address", reason, raw)
                continue
            tally.left("address", row, size)
            text, how = row.get("text"), ""
            if "html" in row:
                text, how = find(row["html"], parameters["extraction"], row["url"], limits, attempt)
                tally.count("extraction", how)
                if how.startswith("resiliparse") and len(row["html"]) >= SMALL:
                    tally.count("extraction", "large pages whose first lists and TeX scripts may be missing")
                if bad := row["html"].count(BAD):
                    tally.count("extraction", "pages with broken characters")
                    tally.count("extraction", "broken characters left out", bad)
            if text is None:
                tally.reject(row, "extract", f"no main text: {how.removeprefix('none ')}", raw)
                continue
            tally.left("extract", row, size_of(text))
            yield {"id": row["id"], "text": text, "source": row["source"], "url": row["url"]}

    write_shard(folder / "documents.jsonl.zst", documents())
    write_shard(folder / "rejects.jsonl.zst", tally.rejects)
    return tally.counts


def filter_step(parameters: dict[str, Any], inputs: list[Path], folder: Path) -> Counts:
    """Tell languages, apply the quality rules and the filters of bad and of harmful documents, and write the marks for
    the search for duplicates and repeated passages."""
    tally, kept = Tally(), []
    judge = _Judge(parameters, inputs)
    for row in read_shard(inputs[0] / "documents.jsonl.zst"):
        if judge.keeps(row, tally):
            kept.append(row)
    write_shard(folder / "documents.jsonl.zst", kept)
    write_shard(folder / "rejects.jsonl.zst", tally.rejects)
    write_bytes(folder / "ids.json", json.dumps([row["id"] for row in kept]).encode())
    texts = [row["text"] for row in kept]
    plain = plain_hashes(texts)
    write_marks(texts, plain, DuplicateSettings(**parameters["duplicates"]), parameters["seed"], folder)
    spans = SpanSettings(**parameters["spans"])
    return {**tally.counts, "kept": len(kept), "marks": mark(texts, plain, spans, folder) if spans.enabled else 0}


class _Judge:
    """The steps between extraction and the search for duplicates, each with its own reject."""

    def __init__(self, parameters: dict[str, Any], inputs: list[Path]) -> None:
        self.language = LanguageSettings(**parameters["language"])
        self.thresholds = {code: QualityThresholds(**values) for code, values in parameters["thresholds"].items()}
        rules: list[str] = parameters["rules"]
        self.of_family = {step: [rule for rule in rules if rule.startswith(family + ".")]
                          for step, family in QUALITY_STEPS.items()}
        filters = dict(zip(parameters["filters"], inputs[2:], strict=True))
        self.good = _filter(filters["good"]) if "good" in filters else None
        self.bad = _filter(filters["harmful"]) if "harmful" in filters else None
        self.limits, self.seed = parameters["filter_limits"], parameters["seed"]
        self.terms = None
        if parameters["harmful"]:
            self.terms = _terms(inputs[1], parameters["min_weight"], parameters["min_density"])

    def keeps(self, row: Row, tally: Tally) -> bool:
        """Whether a document passes; counts it at each step, and C4's rules about lines change its text."""
        steps: list[tuple[str, Callable[[Row, Tally], str | None]]] = [("language", self._language)]
        steps += [(step, partial(self._rules, step)) for step in QUALITY_STEPS]
        steps += [("classifier", self._quality), ("harmful", self._harmful)]
        text, size = row["text"], size_of(row["text"])
        for step, fault in steps:
            if reason := fault(row, tally):
                tally.reject(row, step, reason, row["text"])
                return False
            if row["text"] is not text:
                text, size = row["text"], size_of(row["text"])
            tally.left(step, row, size)
        return True

    def _language(self, row: Row, tally: Tally) -> str | None:
        if not self.language.enabled:
            return None
        row["language"], probability = identify(row["text"], self.language)
        if self.language.keep and row["language"] not in self.language.keep:
            return f"language.{row['language']}: probability {probability:.2f}"
        return None

    def _rules(self, step: str, row: Row, tally: Tally) -> str | None:
        rules = self.of_family[step]
        thresholds = self.thresholds.get(row.get("language", ""), self.thresholds["*" if "language" in row else ""])
        if step == "c4":
            text, dropped = drop_lines(row["text"], [rule for rule in rules if rule in LINE_RULES], thresholds)
            for rule, number in dropped.items():
                tally.count("lines_dropped", rule, number)
            if not text.strip():
                return "c4.lines: every line was dropped"
            row["text"] = text
        return check(row["text"], [rule for rule in rules if rule not in LINE_RULES], thresholds)

    def _quality(self, row: Row, tally: Tally) -> str | None:
        if self.good is None:
            return None
        score, limit = self.good.score(row["text"]), self.limits["min_quality"]
        if self.limits["pareto"]:
            # GPT-3 keeps a document when a draw from a Pareto (Lomax) distribution is above 1 - score: some bad ones
            # as well
            draw = (derive(self.seed, "pareto", row["id"], row["text"]) + 1) / 2**64
            limit = 1 - (draw ** (-1 / self.limits["pareto"]) - 1)
        return f"classifier.quality: {score:.3f}, at least {limit:.3f}" if score < limit else None

    def _harmful(self, row: Row, tally: Tally) -> str | None:
        if self.terms is not None and (reason := self.terms.check_text(row["text"])):
            return reason
        if self.bad is not None and (score := self.bad.score(row["text"])) > self.limits["max_harm"]:
            return f"classifier.harmful: {score:.3f}, at most {self.limits['max_harm']:.3f}"
        return None


@lru_cache(maxsize=1)
def _terms(lists: Path, min_weight: float, min_density: float) -> HarmfulFilter:
    return HarmfulFilter(json.loads(lists.read_bytes()), min_weight, min_density)


@lru_cache(maxsize=2)
def _filter(folder: Path) -> Filter:
    return Filter.load(folder)


def windows_step(parameters: dict[str, Any], inputs: list[Path], folder: Path) -> Counts:
    """The windows of one shard that may occur again. Inputs: the filtered shard, the dropped documents' numbers, and
    step ``shared_runs``."""
    hashes = [np.asarray(read_array(path / "shared.npy")) for path in inputs[2:]]
    marks, rows = read_array(inputs[0] / "marks.npy"), read_array(inputs[0] / "marks-0.npy")
    wanted = set(rows[np.logical_or.reduce([among(np.asarray(marks), part) for part in hashes])].tolist())
    dropped = np.asarray(read_array(inputs[1]))
    first, after = np.searchsorted(dropped, [parameters["start"], parameters["start"] + parameters["documents"]])
    wanted -= set((dropped[first:after] - parameters["start"]).tolist())
    texts = {
        number: row["text"]
        for number, row in enumerate(read_shard(inputs[0] / "documents.jsonl.zst")) if number in wanted
    }
    return {"windows": windows(texts, hashes, SpanSettings(**parameters["spans"]), folder)}


def index_step(parameters: dict[str, Any], inputs: list[Path], folder: Path) -> Counts:
    """The evaluation texts' runs of words."""
    questions, answers = json.loads(inputs[0].read_bytes())
    return write_index(questions, ContaminationSettings(**parameters), folder, answers)


@lru_cache(maxsize=1)
def _index(folder: Path) -> ContaminationIndex:
    return ContaminationIndex(folder)


def finish_step(parameters: dict[str, Any], inputs: list[Path], folder: Path) -> Counts:
    """Leave out duplicates, cut repeated passages, replace private data, leave out what gives the evaluation away; then
    write the final files, with the rejects of all steps. Rejects show no private data either. Inputs: the filtered and
    the extracted shard, what is to be dropped and cut, and the index of evaluation texts."""
    filtered, extracted = inputs[:2]
    index = _index(inputs[3]) if parameters["contamination"] else None
    tally, kinds = Tally(), parameters["kinds"]
    orders = json.loads(inputs[2].read_bytes())
    drops = {row: (step, reason) for row, step, reason in orders["drops"]}
    cuts: dict[int, list[int]] = dict(orders["cuts"])
    spans = SpanSettings(**parameters["spans"])

    def hidden(text: str) -> tuple[str, Counter[str]]:
        text, found = redact(text, kinds)
        if parameters["names"]:
            text, number = without_names(text, parameters["names"])
            found += Counter({"name": number})
        return text, found

    def documents() -> Iterator[Row]:
        for number, row in enumerate(read_shard(filtered / "documents.jsonl.zst")):
            step, reason = drops.get(number, (None, ""))
            size = size_of(row["text"])
            if step != "exact_duplicates":
                tally.left("exact_duplicates", row, size)
            if step is not None:
                tally.reject(row, step, reason, row["text"])
                continue
            tally.left("near_duplicates", row, size)
            if number in cuts:
                whole = row["text"]
                row["text"], gone, words = cut(whole, np.array(cuts[number]), spans)
                tally.count("spans", "words_cut", gone)
                tally.count("spans", "documents")
                if words < spans.min_words_left:
                    tally.reject(row, "spans", f"repeated_passages: {words} words are left without them", whole)
                    continue
                size = size_of(row["text"])
            tally.left("spans", row, size)
            text, private = hidden(row["text"])
            for kind, found in private.items():
                tally.count("private", kind, found)
            if text is not row["text"]:
                size = size_of(text)
            tally.left("private", row, size)
            if index is not None and (hit := index.find(row["text"])):
                tally.count("hits", str(hit[0]))
                tally.reject(row, "contamination", f"evaluation_text: number {hit[0] + 1}: {hit[1]}", row["text"])
                continue
            tally.left("contamination", row, size)
            yield {**row, "text": text}

    def rejects() -> Iterator[Row]:
        earlier = (row for task in (extracted, filtered) for row in read_shard(task / "rejects.jsonl.zst"))
        for row in (*earlier, *tally.rejects):
            text, reason = (hidden(row[name])[0] for name in ("text", "reason"))
            yield {**row, "text": text[:REJECT_CHARACTERS], "reason": reason}

    kept = write_lines(folder / "documents.jsonl", documents())
    rejected = write_lines(folder / "rejects.jsonl", rejects())
    return {**tally.counts, "written": {"kept": kept, "rejected": rejected}}


def mixture_step(parameters: dict[str, Any], inputs: list[Path], folder: Path) -> Counts:
    """Write each document as often as its source is to be read; those that are not drawn go to the rejects."""
    tally, distinct = Tally(), 0

    def documents() -> Iterator[Row]:
        nonlocal distinct
        with open(inputs[0] / "documents.jsonl", "rb") as file:
            for row in map(json.loads, file):
                share = parameters["epochs"][row["source"]]
                number, size = copies(row["id"], row["text"], share, parameters["seed"]), size_of(row["text"])
                distinct += number > 0
                for _ in range(number):
                    tally.left("mixture", row, size)
                    yield row
                if not number:
                    tally.reject(row, "mixture", f"not_drawn: {row['source']} is read {share:.3g} times",
                                 row["text"][:REJECT_CHARACTERS])

    def rejects() -> Iterator[Row]:
        with open(inputs[0] / "rejects.jsonl", "rb") as file:
            yield from map(json.loads, file)
        for row in tally.rejects:
            yield {**row, "text": row["text"][:REJECT_CHARACTERS]}

    lines = write_lines(folder / "documents.jsonl", documents())
    rejected = write_lines(folder / "rejects.jsonl", rejects())
    return {**tally.counts, "written": {"kept": distinct, "rejected": rejected, "copies": lines - distinct}}
