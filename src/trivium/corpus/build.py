"""The corpus stage: raw documents -> clean documents, with every reject and its reason.

The steps run in the order that the field found to work: read and extract the main text -> repetition, quality, C4 and
FineWeb rules -> harmful documents -> exact duplicates -> near duplicates -> private data -> evaluation texts. Each is a
set of deterministic tasks over shards (see :mod:`trivium.corpus.steps`), so a killed run goes on where it was, and the
bytes do not depend on the number of workers.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from hashlib import sha256
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from trivium.corpus import steps
from trivium.corpus.duplicates import clusters, estimated_jaccard
from trivium.corpus.extract import versions
from trivium.corpus.harmful import terms_of
from trivium.corpus.quality import chosen
from trivium.corpus.readers import InputFile, find
from trivium.corpus.settings import CorpusSettings
from trivium.corpus.shards import read_array
from trivium.corpus.tasks import Pool, Progress, Task, counts_of
from trivium.errors import TriviumError
from trivium.files import digest_file, disk_errors, fsync_folder, write_bytes, write_json

GROUP_FILES, GROUP_BYTES = 1000, 32 << 20
PARTITION_DOCUMENTS = 250_000

Drops = list[list[Any]]
"""For one shard: ``[row, step, reason]`` of each duplicate."""


def build(inputs: Sequence[Path], evaluation_texts: Sequence[str], settings: CorpusSettings, folder: Path,
          scratch: Path, seed: int, workers: int,
          progress: Progress = lambda step, done, total: None) -> dict[str, Any]:
    """Make a corpus of ``inputs`` (files, folders, globs) in ``folder``:

    - ``documents/part-*.jsonl``: ``{"id", "text", "source", "url"}`` of every document kept, in the order of the
      inputs;
    - ``rejects/part-*.jsonl``: ``{"id", "step", "reason", "text", "source"}`` of every other one, the text's first
      2,000 characters, and for rows of files also ``file`` and ``row``;
    - ``counts.json``: what this function returns.

    ``scratch`` holds finished tasks. Give the same folder again after a crash, and delete it when the corpus is done:
    it holds the raw documents, private data included.
    """
    files = find(inputs)
    with Pool(scratch, workers, progress) as pool:
        raw, read = _read(files, settings, pool)
        counts: steps.Counts = {}
        for done in read:
            steps.add(counts, counts_of(done))
        if not counts.get("funnel"):
            raise TriviumError(f"{inputs[0]}: holds no documents; name files with at least one document in them")
        how = {"extraction": settings.extraction, "versions": versions()}
        extracted = pool.run([Task("extract", steps.extract_step, how, [path], [key]) for path, key in raw])
        filtered = _filter(extracted, settings, seed, pool)
        drops = _duplicates(filtered, settings, pool)
        finished, index = _finish(extracted, filtered, drops, evaluation_texts, settings, pool)
        for done in (*extracted, *filtered, *finished):
            steps.add(counts, counts_of(done))
        report = _report(counts, evaluation_texts, counts_of(index) if index else None)
    _publish(finished, folder)
    with disk_errors(folder):
        write_json(folder / "counts.json", report)
    if not report["kept"]:
        step, reasons = max(report["reasons"].items(), key=lambda item: sum(item[1].values()))
        reason = max(reasons, key=lambda name: reasons[name])
        raise TriviumError(f"{inputs[0]}: all {report['rejected']:,} documents were rejected, most of them at the step "
                           f"{step!r}, there most often by {reason!r}; read {folder / 'rejects'}, and loosen the "
                           "corpus stage's settings or mend the input")
    return report


def _read(files: list[InputFile], settings: CorpusSettings, pool: Pool) -> tuple[list[tuple[Path, str]], list[Path]]:
    """The raw shards with what names them, and the finished tasks."""
    with ThreadPoolExecutor(pool.workers) as threads:
        digests = list(threads.map(_digest, files))
    limits = {name: getattr(settings, name) for name in ("book_characters", "max_document_bytes", "max_unpacked_bytes")}
    tasks: list[Task] = []
    start = size = 0
    for stop, file in enumerate(files, 1):
        size += file.path.stat().st_size
        if stop == len(files) or stop - start == GROUP_FILES or size >= GROUP_BYTES:
            group = files[start:stop]
            parameters = {"files": [[file.name, file.source] for file in group], "limits": limits,
                          "shard_documents": settings.shard_documents}
            tasks.append(Task("read", steps.read_step, parameters, [file.path for file in group], digests[start:stop]))
            start, size = stop, 0
    done = pool.run(tasks)
    return [(shard, f"{folder.name}/{shard.name}") for folder in done for shard in sorted(folder.glob("raw-*"))], done


def _digest(file: InputFile) -> str:
    try:
        return digest_file(file.path)
    except OSError as error:  # the reader will meet it again, and reject the file
        return f"cannot be read: {error.strerror}"


def _filter(extracted: list[Path], settings: CorpusSettings, seed: int, pool: Pool) -> list[Path]:
    lists, digest = _keep(pool.scratch, "lists.json", _json(terms_of(settings.harmful)))
    parameters = {
        "rules": chosen(settings.rules, settings.without), "thresholds": asdict(settings.thresholds),
        "harmful": settings.harmful.enabled, "min_weight": settings.harmful.min_weight,
        "min_density": settings.harmful.min_density,
        "duplicates": asdict(settings.duplicates), "seed": seed, "rensa": version("rensa"),
    }
    return pool.run([Task("filter", steps.filter_step, parameters, [folder, lists], [folder.name, digest])
                     for folder in extracted])


def _duplicates(filtered: list[Path], settings: CorpusSettings, pool: Pool) -> list[Drops]:
    """Which documents of each shard are duplicates, and of which document."""
    sizes = [counts_of(folder)["kept"] for folder in filtered]
    starts = np.cumsum([0, *sizes]).tolist()
    partitions = 1 + starts[-1] // PARTITION_DOCUMENTS
    keys = [folder.name for folder in filtered]
    parts = [{"starts": starts[:-1], "partition": part, "partitions": partitions} for part in range(partitions)]
    drops: list[Drops] = [[] for _ in filtered]
    names = _Names(filtered, starts)

    def drop(number: int, step: str, reason: str) -> None:
        shard, row = names.place(number)
        drops[shard].append([row, step, reason])

    dropped = np.empty(0, np.int64)
    if settings.duplicates.exact:
        pairs = _pairs(pool.run([Task("exact_duplicates", steps.exact_step, part, filtered, keys) for part in parts]))
        dropped = np.unique(pairs[:, 1])
        for first, number in sorted(pairs.tolist(), key=lambda pair: pair[1]):
            drop(number, "exact_duplicates", f"exact_duplicate: of {names.id(first)}")
    if settings.duplicates.near:
        aside = BytesIO()
        np.save(aside, dropped)
        path, digest = _keep(pool.scratch, "dropped.npy", aside.getvalue())
        threshold = {"threshold": settings.duplicates.threshold}
        pairs = _pairs(pool.run([Task("near_duplicates", steps.near_step, {**part, **threshold}, [path, *filtered],
                                      [digest, *keys]) for part in parts]))
        for number, first in clusters(pairs).items():
            if number != first:
                similarity = names.similarity(first, number)
                drop(number, "near_duplicates", f"near_duplicate: of {names.id(first)}, similarity {similarity:.2f}")
    return [sorted(shard, key=lambda entry: entry[0]) for shard in drops]


def _pairs(folders: list[Path]) -> np.ndarray:
    return np.concatenate([read_array(folder / "pairs.npy") for folder in folders])


class _Names:
    """Documents by their number in the corpus."""

    def __init__(self, filtered: list[Path], starts: list[int]) -> None:
        self.filtered, self.starts = filtered, np.array(starts[:-1])
        self.ids: dict[int, list[str]] = {}

    def place(self, number: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self.starts, number, side="right")) - 1
        return shard, number - int(self.starts[shard])

    def id(self, number: int) -> str:
        shard, row = self.place(number)
        if shard not in self.ids:
            self.ids[shard] = json.loads((self.filtered[shard] / "ids.json").read_bytes())
        return self.ids[shard][row]

    def similarity(self, one: int, other: int) -> float:
        (a, row), (b, other_row) = self.place(one), self.place(other)
        signatures = read_array(self.filtered[a] / "signatures.npy"), read_array(self.filtered[b] / "signatures.npy")
        return float(estimated_jaccard(signatures[0][row], signatures[1][other_row:other_row + 1])[0])


def _finish(extracted: list[Path], filtered: list[Path], drops: list[Drops], evaluation_texts: Sequence[str],
            settings: CorpusSettings, pool: Pool) -> tuple[list[Path], Path | None]:
    """The finished tasks, and the index of evaluation texts where there is one."""
    index: list[Path] = []
    if settings.contamination.enabled and evaluation_texts:
        texts, digest = _keep(pool.scratch, "evaluation.json", _json(list(evaluation_texts)))
        how = asdict(settings.contamination)
        index = pool.run([Task("evaluation_index", steps.index_step, how, [texts], [digest])])
    parameters = {"kinds": settings.private.kinds if settings.private.enabled else [], "contamination": bool(index)}
    tasks = [Task("finish", steps.finish_step, {**parameters, "drops": drop}, [good, text, *index],
                  [path.name for path in (good, text, *index)])
             for text, good, drop in zip(extracted, filtered, drops, strict=True)]
    return pool.run(tasks), index[0] if index else None


def _report(counts: steps.Counts, evaluation_texts: Sequence[str], index: dict[str, Any] | None) -> dict[str, Any]:
    """The counts as users read them."""
    funnel = []
    for step in steps.FUNNEL:
        sources = counts["funnel"].get(step, {})
        total = {unit: sum(source[unit] for source in sources.values()) for unit in ("documents", "bytes")}
        funnel.append({"step": step, **total, "sources": sources})
    documents, kept, rejected = funnel[0]["documents"], counts["written"]["kept"], counts["written"]["rejected"]
    if documents != kept + rejected or kept != funnel[-1]["documents"]:
        raise AssertionError(f"{documents} documents came in, but {kept} were kept and {rejected} rejected")
    hits = sorted(counts.get("hits", {}).items(), key=lambda item: (-item[1], int(item[0])))
    contamination = {
        "texts": len(evaluation_texts), "passed_over": index["passed_over"] if index else 0, "texts_hit": len(hits),
        "documents": sum(number for _, number in hits),
        "hits": [{"text": evaluation_texts[int(place)][:200], "number": int(place) + 1, "documents": number}
                 for place, number in hits],
    }
    return {
        "documents": documents, "kept": kept, "rejected": rejected, "funnel": funnel,
        "reasons": counts.get("reasons", {}), "malformed": counts.get("reasons", {}).get("read", {}),
        "lines_dropped": counts.get("lines_dropped", {}), "private": counts.get("private", {}),
        "contamination": contamination,
    }


def _publish(finished: list[Path], folder: Path) -> None:
    """Give the finished files their place. They are linked, not copied, where the file system allows it."""
    for kind in ("documents", "rejects"):
        target = folder / kind
        with disk_errors(target):
            target.mkdir(parents=True, exist_ok=True)
            for stale in target.glob("part-*.jsonl"):
                stale.unlink()
            for number, done in enumerate(finished):
                source, part = done / f"{kind}.jsonl", target / f"part-{number:05}.jsonl"
                try:
                    os.link(source, part)
                except OSError:
                    shutil.copyfile(source, part)
                    with open(part, "rb") as file:
                        os.fsync(file.fileno())
            fsync_folder(target)


def _keep(scratch: Path, name: str, data: bytes) -> tuple[Path, str]:
    """Put something that tasks share into the scratch folder, under its own digest."""
    digest = sha256(data).hexdigest()
    path = scratch / f"{digest}-{name}"
    if not path.exists():
        write_bytes(path, data)
    return path, digest


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
