"""The corpus stage: raw documents -> clean documents, with every reject and its reason.

The steps run in the order that the field found to work: read -> addresses -> extract the main text -> language ->
repetition, quality, C4 and FineWeb rules -> learned quality -> harmful documents -> exact duplicates -> near duplicates
-> repeated passages -> private data -> evaluation texts -> mixture. Each is a set of deterministic tasks over shards
(see :mod:`trivium.corpus.steps`), so a killed run goes on where it was, and the bytes do not depend on the number of
workers.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from trivium.artifacts import digest_path
from trivium.corpus import names, reading, shuffles, steps
from trivium.corpus.classifier import Filter
from trivium.corpus.crawls import PATH_LISTS, along
from trivium.corpus.duplicates import clusters
from trivium.corpus.harmful import terms_of
from trivium.corpus.mixture import epochs
from trivium.corpus.quality import chosen
from trivium.corpus.repeated_spans import PARTITION_MARKS
from trivium.corpus.settings import CorpusSettings
from trivium.corpus.shards import read_array
from trivium.corpus.tasks import Pool, Task, counts_of, share
from trivium.data.readers import find
from trivium.errors import TriviumError, counted, nearest
from trivium.files import disk_errors, fsync_folder, read_json, write_json, write_rows

PARTITION_DOCUMENTS = 60_000


@dataclass(frozen=True)
class Duplicates:
    """Pairs ``(first, duplicate)`` of numbers of documents in the corpus, int64 [pairs, 2], in the order of the
    duplicates."""

    exact: np.ndarray
    near: np.ndarray
    similarity: np.ndarray
    """Of each near duplicate, to the document of its cluster that it is most like, float32."""

    @property
    def dropped(self) -> np.ndarray:
        """The numbers of all duplicates, sorted."""
        return np.unique(np.r_[self.exact[:, 1], self.near[:, 1]])


@dataclass(frozen=True)
class Extras:
    """What else a corpus is made with: paths whose content decides."""

    evaluation: Sequence[str] = ()
    """Texts that must not occur in the corpus: questions."""
    answers: Sequence[str] = ()
    """Answers and choices that must not, where they are long enough."""
    term_lists: Sequence[Path] = ()
    """Files of harmful terms."""
    blocked_domains: Sequence[Path] = ()
    """Files of domains whose pages are rejected."""
    quality_filter: Path | None = None
    """A learned filter that finds good documents."""
    harmful_filter: Path | None = None
    """A learned filter that finds harmful documents."""
    readers: Mapping[str, str] = field(default_factory=dict)
    """Functions of the user's own that read files, as ``FILE.py:NAME``, by the suffix of the files' names."""


def build(inputs: Sequence[Path], extras: Extras, settings: CorpusSettings, folder: Path, scratch: Path, seed: int,
          pool: Pool) -> dict[str, Any]:
    """Make a corpus of ``inputs`` (files, folders, globs) in ``folder``:

    - ``documents/part-*.jsonl``: ``{"id", "text", "source", "url", "language"}`` of every document kept (the language
      where it was asked for), in the order of the inputs; with a mixture, as often as its source is to be read;
    - ``rejects/part-*.jsonl``: ``{"id", "step", "reason", "text", "source"}`` of every other one, the text's first
      2,000 characters, and for rows of files also ``file`` and ``row``;
    - ``counts.json``: what this function returns;
    - ``fetched.jsonl``, where documents lie at URLs: ``{"url", "bytes", "state", "sha256"}`` of each file.

    ``scratch`` holds finished tasks. Give the same folder again after a crash, and delete it when the corpus is done:
    it holds the raw documents, private data included. Raises :class:`TriviumError` where nothing can be read or nothing
    is kept.
    """
    if settings.private.enabled and settings.private.names:
        names.check(settings.private.pipeline)
    kinds = (*extras.readers, *PATH_LISTS)
    found = find(inputs, kinds)
    files = along(found, settings.crawl, seed, scratch)
    with pool:
        lists = share(pool.scratch, "lists.json",
                      _json(terms_of(settings.harmful, extras.term_lists, extras.blocked_domains)))
        done_reading = reading.read(files, settings, extras.readers, lists, pool)
        reading.check_listed(found, find(inputs, kinds))
        counts: steps.Counts = {}
        for done in done_reading:
            steps.add(counts, counts_of(done))
        if not counts.get("funnel"):
            raise TriviumError(f"{inputs[0]}: holds no documents; name files with at least one document in them")
        _check_names(counts, settings)
        extracted = reading.extract(done_reading, settings, lists, pool)
        filtered = _filter(extracted, settings, extras, lists, seed, pool)
        duplicates = _duplicates(filtered, settings, pool)
        repeats = _spans(filtered, duplicates, settings, pool)
        finished, index = _finish(extracted, filtered, duplicates, repeats, extras, settings, pool)
        for done in (*extracted, *filtered, *finished):
            steps.add(counts, counts_of(done))
        mixing = settings.mixture.enabled and counts["written"]["kept"] > 0
        gone = _all_rejected(counts, settings) if mixing else None
        if mixing and gone is None:
            finished = _mix(finished, counts, settings, seed, pool)
        report = _report(counts, _off(settings, extras), [*extras.evaluation, *extras.answers],
                         counts_of(index) if index else None)
    _publish(finished, folder)
    with disk_errors(folder):
        write_json(folder / "counts.json", report)
        if fetched := [row for done in done_reading if (done / "fetched.json").exists()
                       for row in read_json(done / "fetched.json")]:
            write_rows(folder / "fetched.jsonl", fetched)
    if not report["kept"]:
        step, reasons = max(report["reasons"].items(), key=lambda item: sum(item[1].values()))
        reason = max(reasons, key=lambda name: reasons[name])
        named = str(inputs[0]) if len(
            inputs) == 1 else f"{inputs[0]} and {counted(len(inputs) - 1, 'other')}"
        raise TriviumError(
            f"{named}: {counted(report['rejected'], 'document')}, all rejected, most of them at the step {step!r}, "
            f"there most often by {reason!r}; look at them with: trivium corpus inspect {folder}; "
            "then loosen the corpus stage's settings or mend the input")
    if gone is not None:
        raise TriviumError(
            f"corpus: mixture: {counted(gone[1], 'document')} of the source {gone[0]!r}, all rejected, "
            "so that nothing is left to weigh; look at them with: trivium corpus "
            f"inspect {folder} --source {gone[0]!r}; then loosen the settings or take its weight out"
        )
    return report


def _check_names(counts: steps.Counts, settings: CorpusSettings) -> None:
    """Fields and sources that the settings name and no file holds are errors, before hours are spent on the rest."""
    for name, other in settings.fields.items():
        if other not in counts.get("fields", {}):
            raise TriviumError(
                f"corpus: fields: no row holds {other!r}, "
                f"which {name} was to be read from; mend the name or take it out"
            )
    sources = counts["funnel"]["input"]["sources"]
    for source in settings.mixture.weights:
        if source not in sources:
            raise TriviumError(f"corpus: mixture: no document is of the source {source!r}{nearest(source, sources)}")


def _all_rejected(counts: steps.Counts, settings: CorpusSettings) -> tuple[str, int] | None:
    """A source that is weighed although nothing of it was kept, and how many documents it had."""
    left = counts["funnel"]["contamination"]["sources"]
    return next(((source, counts["funnel"]["input"]["sources"][source]["documents"])
                 for source, weight in sorted(settings.mixture.weights.items()) if weight and source not in left), None)


def _filter(extracted: list[Path], settings: CorpusSettings, extras: Extras, lists: tuple[Path, str], seed: int,
            pool: Pool) -> list[Path]:
    filters = {"good": extras.quality_filter, "harmful": extras.harmful_filter if settings.harmful.enabled else None}
    paths = {name: path for name, path in filters.items() if path is not None}
    for name, path in paths.items():
        if Filter.load(path).header["finds"] != name:
            raise TriviumError(
                f"{path}: this filter finds {Filter.load(path).header['finds']} documents, "
                f"where one that finds {name} ones was expected"
            )
    parameters = {
        "rules": chosen(settings.rules, settings.without),
        "thresholds": {code: asdict(values)
                       for code, values in sorted(settings.thresholds_of().items())},
        "language": asdict(settings.language),
        "identifier": version("py3langid"),
        "harmful": settings.harmful.enabled,
        "min_weight": settings.harmful.min_weight,
        "min_density": settings.harmful.min_density,
        "filters": list(paths),
        "filter_limits": {**asdict(settings.classifier), "max_harm": settings.harmful.max_harm},
        "duplicates": asdict(settings.duplicates),
        "spans": asdict(settings.spans),
        "seed": seed,
        "rensa": version("rensa"),
    }
    more = [digest_path(path) for path in paths.values()]
    return pool.run([
        Task("filter", steps.filter_step, parameters, [folder, lists[0], *paths.values()],
             [folder.name, lists[1], *more]) for folder in extracted
    ])


def _numbered(filtered: list[Path]) -> list[int]:
    """The number of each shard's first document in the corpus, and at last how many there are."""
    return np.cumsum([0, *(counts_of(folder)["kept"] for folder in filtered)]).tolist()


def _duplicates(filtered: list[Path], settings: CorpusSettings, pool: Pool) -> Duplicates:
    """Which documents are duplicates, and of which."""
    starts = _numbered(filtered)
    partitions = 1 + starts[-1] // PARTITION_DOCUMENTS
    keys = [folder.name for folder in filtered]
    parts = [{"starts": starts[:-1], "partition": part, "partitions": partitions} for part in range(partitions)]
    exact = near = np.empty((0, 2), np.int64)  # (first, duplicate)
    similarity = np.empty(0, np.float32)
    if settings.duplicates.exact:
        pairs = _pairs(pool.run([
            Task("exact_duplicates", shuffles.exact_step, part, filtered, keys, shuffles.exact_gather)
            for part in parts
        ]))
        exact = pairs[np.argsort(pairs[:, 1], kind="stable")]
    if settings.duplicates.near:
        path, digest = _share_array(pool.scratch, "dropped.npy", np.unique(exact[:, 1]))
        groups = pool.run([
            Task("band_groups", shuffles.groups_step, part, [path, *filtered], [digest, *keys], shuffles.groups_gather)
            for part in parts
        ])
        how = {"starts": starts[:-1], "threshold": settings.duplicates.threshold}
        done = pool.run([
            Task("near_duplicates", shuffles.near_step, how, [group, *filtered], [group.name, *keys],
                 shuffles.near_gather) for group in groups
        ])
        pairs, shares = _pairs(done), np.concatenate([read_array(folder / "similarities.npy") for folder in done])
        documents, firsts = clusters(pairs)
        most = np.zeros(len(documents), np.float32)
        for column in (0, 1):
            np.maximum.at(most, np.searchsorted(documents, pairs[:, column]), shares)
        gone = documents != firsts
        near, similarity = np.stack([firsts, documents], axis=1)[gone], most[gone]
    return Duplicates(exact, near, similarity)


def _pairs(folders: list[Path]) -> np.ndarray:
    return np.concatenate([read_array(folder / "pairs.npy") for folder in folders])


def _ids(filtered: list[Path], starts: list[int], numbers: np.ndarray) -> dict[int, str]:
    """The ids of some documents by their sorted numbers, one shard after another."""
    found: dict[int, str] = {}
    for folder, (start, stop) in zip(filtered, pairwise(starts), strict=True):
        first, after = np.searchsorted(numbers, [start, stop])
        if after > first:
            ids = json.loads((folder / "ids.json").read_bytes())
            found |= {number: ids[number - start] for number in numbers[first:after].tolist()}
    return found


def _spans(filtered: list[Path], duplicates: Duplicates, settings: CorpusSettings, pool: Pool) -> list[Path]:
    """The finished tasks that say where passages begin which occurred before."""
    if not settings.spans.enabled:
        return []
    starts, keys = _numbered(filtered), [folder.name for folder in filtered]
    path, digest = _share_array(pool.scratch, "dropped.npy", duplicates.dropped)

    def parts(count: int) -> list[dict[str, Any]]:
        partitions = 1 + count // PARTITION_MARKS
        return [{"starts": starts[:-1], "partition": part, "partitions": partitions} for part in range(partitions)]

    total = sum(counts_of(folder)["marks"] for folder in filtered)
    common = pool.run([
        Task("shared_runs", shuffles.shared_step, part, [path, *filtered], [digest, *keys], shuffles.shared_gather)
        for part in parts(total)
    ])
    held = pool.run([
        Task("windows", steps.windows_step,
             {"spans": asdict(settings.spans), "start": start, "documents": stop - start}, [folder, path, *common],
             [folder.name, digest, *(done.name for done in common)])
        for folder, (start, stop) in zip(filtered, pairwise(starts), strict=True)
    ])
    total = sum(counts_of(folder)["windows"] for folder in held)
    return pool.run([
        Task("repeats", shuffles.repeats_step, part, held, [done.name for done in held], shuffles.repeats_gather)
        for part in parts(total)
    ])


def _orders(filtered: list[Path], duplicates: Duplicates, repeats: list[Path],
            scratch: Path) -> Iterator[tuple[Path, str]]:
    """What each shard has to leave out, as a file: ``drops``, ``[row, step, reason]`` of each duplicate, and ``cuts``,
    ``[row, [first words]]`` of each document with passages that occurred before."""
    starts = _numbered(filtered)
    ids = _ids(filtered, starts, np.unique(np.r_[duplicates.exact[:, 0], duplicates.near[:, 0]]))
    places = [(read_array(folder / "numbers.npy"), read_array(folder / "words.npy")) for folder in repeats]
    for start, stop in pairwise(starts):
        first, after = np.searchsorted(duplicates.exact[:, 1], [start, stop])
        drops = [[number - start, "exact_duplicates", f"exact_duplicate: of {ids[one]}"]
                 for one, number in duplicates.exact[first:after].tolist()]
        first, after = np.searchsorted(duplicates.near[:, 1], [start, stop])
        near = zip(duplicates.near[first:after].tolist(), duplicates.similarity[first:after].tolist())
        drops += [[number - start, "near_duplicates", f"near_duplicate: of {ids[one]}, similarity {share:.2f}"]
                  for (one, number), share in near]
        rows: dict[int, list[int]] = {}
        for numbers, words in places:
            first, after = np.searchsorted(numbers, [start, stop])
            for number, word in zip(numbers[first:after].tolist(), words[first:after].tolist()):
                rows.setdefault(number - start, []).append(word)
        yield share(
            scratch, "orders.json",
            _json({
                "drops": sorted(drops, key=lambda entry: entry[0]),
                "cuts": [[row, sorted(words)] for row, words in sorted(rows.items())]
            }))


def _finish(extracted: list[Path], filtered: list[Path], duplicates: Duplicates, repeats: list[Path],
            extras: Extras, settings: CorpusSettings, pool: Pool) -> tuple[list[Path], Path | None]:
    """The finished tasks, and the index of evaluation texts where there is one."""
    index: list[Path] = []
    if settings.contamination.enabled and (extras.evaluation or extras.answers):
        texts, digest = share(pool.scratch, "evaluation.json", _json([list(extras.evaluation), list(extras.answers)]))
        how = asdict(settings.contamination)
        index = pool.run([Task("evaluation_index", steps.index_step, how, [texts], [digest])])
    parameters = {"kinds": settings.private.kinds if settings.private.enabled else [], "contamination": bool(index),
                  "spans": asdict(settings.spans),
                  "names": settings.private.pipeline if settings.private.enabled and settings.private.names else ""}
    tasks = [
        Task("finish", steps.finish_step, parameters, [good, text, orders, *index],
             [good.name, text.name, digest, *(path.name for path in index)]) for text, good, (
                 orders,
                 digest) in zip(extracted, filtered, _orders(filtered, duplicates, repeats, pool.scratch), strict=True)
    ]
    return pool.run(tasks), index[0] if index else None


def _mix(finished: list[Path], counts: steps.Counts, settings: CorpusSettings, seed: int, pool: Pool) -> list[Path]:
    """Each source as often as it is to be read; ``counts`` is brought up to date."""
    sizes = {source: entry["bytes"] for source, entry in counts["funnel"]["contamination"]["sources"].items()}
    found = epochs(dict.fromkeys(settings.mixture.weights, 0) | sizes, settings.mixture)
    done = pool.run([
        Task("mixture", steps.mixture_step, {"epochs": found, "seed": seed}, [folder], [folder.name])
        for folder in finished
    ])
    counts["written"] = {}
    for folder in done:
        steps.add(counts, counts_of(folder))
    drawn = counts["funnel"].get("mixture", {}).get("sources", {})
    counts["epochs"] = {source: drawn[source]["bytes"] / sizes[source] if source in drawn else 0.0 for source in found}
    counts["planned_epochs"] = found
    return done


def _off(settings: CorpusSettings, extras: Extras) -> set[str]:
    """The steps that these settings leave out."""
    works = {
        "language": settings.language.enabled, "classifier": extras.quality_filter is not None,
        "harmful": settings.harmful.enabled, "exact_duplicates": settings.duplicates.exact,
        "near_duplicates": settings.duplicates.near, "spans": settings.spans.enabled,
        "private": settings.private.enabled,
        "contamination": settings.contamination.enabled and bool(extras.evaluation or extras.answers),
        "mixture": settings.mixture.enabled
    }
    return {step for step, on in works.items() if not on}


def _report(counts: steps.Counts, off: Set[str], evaluation_texts: Sequence[str],
            index: dict[str, Any] | None) -> dict[str, Any]:
    """The counts as users read them, of the steps that are not ``off``."""
    funnel = []
    for step in steps.FUNNEL:
        if step in off or (step == "mixture" and "epochs" not in counts):
            continue
        groups = counts["funnel"].get(step, {})
        sources = groups.get("sources", {})
        total = {unit: sum(source[unit] for source in sources.values()) for unit in ("documents", "bytes")}
        funnel.append({"step": step, **total, "sources": sources, "languages": groups.get("languages", {})})
    documents, kept, rejected = funnel[0]["documents"], counts["written"]["kept"], counts["written"]["rejected"]
    if documents != kept + rejected or kept != funnel[-1]["documents"] - counts["written"].get("copies", 0):
        raise AssertionError(f"{documents} documents came in, but {kept} were kept and {rejected} rejected")
    hits = sorted(counts.get("hits", {}).items(), key=lambda item: (-item[1], int(item[0])))
    contamination = {
        "texts": len(evaluation_texts), "passed_over": index["passed_over"] if index else 0, "texts_hit": len(hits),
        "documents": sum(number for _, number in hits),
        "hits": [{"text": evaluation_texts[int(place)][:200], "number": int(place) + 1, "documents": number}
                 for place, number in hits],
    }
    return {
        "documents": documents,
        "kept": kept,
        "rejected": rejected,
        "funnel": funnel,
        "reasons": counts.get("reasons", {}),
        "malformed": counts.get("reasons", {}).get("read", {}),
        "extraction": counts.get("extraction", {}),
        "lines_dropped": counts.get("lines_dropped", {}),
        "spans": counts.get("spans", {}),
        "private": counts.get("private", {}),
        "contamination": contamination,
        "epochs": counts.get("epochs", {}),
        "planned_epochs": counts.get("planned_epochs", {}),
        "copies": counts["written"].get("copies", 0),
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


def _share_array(scratch: Path, name: str, array: np.ndarray) -> tuple[Path, str]:
    aside = BytesIO()
    np.save(aside, array)
    return share(scratch, name, aside.getvalue())


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
