"""What a corpus of any size takes: hours, machines, disk, network and money, from what each step takes of a processor.

The seconds are those of :data:`MEASURED`, or of the user's own documents (:func:`measure`). They grow with the input,
but for one thing: each range of a search for duplicates is gathered from every shard, so that this grows with the
square. So a large input is cut into slices, each of which is searched by itself, as FineWeb did with Common Crawl's
months.
"""

from __future__ import annotations

import math
import re
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trivium.corpus.build import PARTITION_DOCUMENTS, Extras, build
from trivium.corpus.settings import CorpusSettings
from trivium.corpus.tasks import Pool
from trivium.data.readers import find
from trivium.errors import TriviumError, nearest
from trivium.files import write_rows
from trivium.recipe.load import Recipe
from trivium.remote import url_of
from trivium.stages.data.corpus import Corpus, some_documents

SHUFFLES = {"exact_duplicates", "band_groups", "near_duplicates", "shared_runs", "repeats"}
OPEN_SECONDS = 4e-5
"""Of the head's time for one range of one shard: two files are mapped and searched."""
KINDS = ("pages", "text")
GATHERING = 0.1
"""The share of the time that slices are made small enough to hold the gathering of ranges to."""


@dataclass(frozen=True)
class Rates:
    """What a kind of input takes. Bytes are those of documents unpacked, text or HTML."""

    seconds: dict[str, float]
    """Processor seconds for a megabyte of input, by step; those of pages with the accurate extraction."""
    text_share: float
    """Bytes of text that the extraction leaves for each byte of input."""
    kept_share: float
    """Bytes of the finished corpus, rejects included, for each byte of input."""
    scratch_share: float
    """Bytes of finished tasks for each byte of input, raw shards and the finished corpus aside."""
    raw_share: float
    """Bytes of raw shards for each byte of input; of documents at URLs there are none."""
    document_bytes: float
    """Mean bytes of a document that reaches the search for duplicates."""
    packed: float
    """Bytes of input for each byte as such files are stored."""


_SHARED = {"exact_duplicates": 0.0003, "band_groups": 0.0005, "near_duplicates": 0.0005, "shared_runs": 0.0008}
MEASURED = {
    "text": Rates({"read": 0.0159, "extract": 0.0141, "filter": 0.2025, **_SHARED, "windows": 0.0037,
                   "repeats": 0.0002, "finish": 0.0556}, 1.0, 0.97, 1.13, 0.48, 8900.0, 1.0),
    "pages": Rates({"read": 0.0152, "extract": 0.0570, "filter": 0.0121, **_SHARED, "windows": 0.0005,
                    "repeats": 0.0004, "finish": 0.0041}, 0.014, 0.015, 0.018, 0.183, 4500.0, 4.5),
    "fast pages": Rates({"read": 0.0152, "extract": 0.0194, "filter": 0.0121, **_SHARED, "windows": 0.0005,
                         "repeats": 0.0004, "finish": 0.0041}, 0.016, 0.015, 0.018, 0.183, 5000.0, 4.5),
}
"""``text``: made-up English documents, 15 MB; pages: 181 news pages of 170 kB, all steps on; packed as Common Crawl's
web archives are."""
PROCESSOR = "a virtual core of an Intel Xeon with AMX (480 MB of third-level cache), other programs beside it"
COMMAND = "trivium estimate corpus RECIPE --measure --sample 15MB --json"


@dataclass(frozen=True)
class Prices:
    """Dollars. The defaults are round figures of the large clouds' list prices."""

    core_hour: float = 0.04
    """Of one virtual core."""
    disk_month: float = 80.0
    """Of a terabyte of fast disk."""
    store_month: float = 23.0
    """Of a terabyte in an object store."""
    network: float = 0.0
    """Of a terabyte that is read: nothing within a region, some 90 out of it."""


def measure(stage: Corpus, sample_bytes: int, seed: int = 0) -> Rates:
    """What the stage takes for a sample of its documents, in one process; a first run of a few documents, which loads
    models and dictionaries, does not count.

    Raises :class:`TriviumError` for documents that another stage makes, or where nothing is kept."""
    with tempfile.TemporaryDirectory(prefix="trivium-estimate-") as name:
        folder = Path(name)
        rows: list[Path] = []
        for number, reference in enumerate(stage.documents):
            rows.append(some_documents(Path(reference), folder / f"{number}.jsonl",
                                       sample_bytes // len(stage.documents))[0])
        few = folder / "few.jsonl"
        write_rows(few, [{"text": "A few words to begin with, and no more than that. " * 20}])
        _timed([few], stage.settings, folder / "first", seed)
        seconds, counts = _timed(rows, stage.settings, folder / "second", seed)
        size = counts["funnel"][0]["bytes"]
        steps = {step["step"]: step for step in counts["funnel"]}
        tasks = [file for file in (folder / "second/tasks").rglob("*") if file.is_file()]
        raw = sum(file.stat().st_size for file in tasks if file.name.startswith("raw-"))
        result = sum(file.stat().st_size for file in (folder / "second/out").rglob("*.jsonl"))
        places = [file for reference in stage.documents for file in find([Path(reference)])]
        packed = 4.5 if all(file.name.endswith((".gz", ".zst", ".bz2", ".xz")) for file in places) else 1.0
        reached = steps["harmful"]
        return Rates({step: value / size * 1e6 for step, value in seconds.items()}, steps["extract"]["bytes"] / size,
                     result / size, (sum(file.stat().st_size for file in tasks) - raw - result) / size, raw / size,
                     reached["bytes"] / max(1, reached["documents"]), packed)


def _timed(inputs: list[Path], settings: CorpusSettings, folder: Path, seed: int) -> tuple[dict[str, float], Any]:
    """Processor seconds by step, and the corpus's counts."""
    seconds: dict[str, float] = {}
    last = time.process_time()

    def progress(step: str, done: int, total: int) -> None:
        nonlocal last
        now = time.process_time()
        seconds[step] = seconds.get(step, 0.0) + now - last
        last = now

    try:
        counts = build(inputs, Extras(), settings, folder / "out", folder / "tasks", seed,
                       Pool(folder / "tasks", 1, progress))
    except TriviumError:
        if folder.name == "first":  # nothing needs to be left of those
            return seconds, {}
        raise
    return seconds, counts


def corpus_stage(recipe: Recipe, name: str | None) -> Corpus:
    """A recipe's corpus stage. Raises :class:`TriviumError` where it has none of that name."""
    found = {key: stage for key, stage in recipe.stages.items() if isinstance(stage, Corpus)}
    if not found:
        raise TriviumError("estimate corpus: the recipe has no stage of kind 'corpus'")
    if name is not None and name not in found:
        raise TriviumError(f"--stage {name}: the recipe has no such corpus stage{nearest(name, found)}")
    return found[name] if name is not None else next(iter(found.values()))


def bytes_of(text: str) -> float:
    """Bytes of a text such as 100TB, 20 GB or 1.5e12. Raises :class:`TriviumError`."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?(?:e\d+)?)\s*([kmgtp]?)(i?)b?\s*", text.lower())
    if match is None or float(match[1]) <= 0:
        raise TriviumError(f"{text}: no size; write one such as 100TB, 20GB or 1.5e12")
    return float(match[1]) * (1024 if match[3] else 1000)**" kmgtp".index(match[2] or " ")


def stored_bytes(stage: Corpus) -> float:
    """Bytes of a recipe's documents as they are stored. Raises :class:`TriviumError` where that cannot be told."""
    for reference in stage.documents:
        if not url_of(reference) and not Path(reference).exists() and "*" not in reference:
            raise TriviumError(f"{reference}: is made by another stage; say how much there is with --input")
    total = sum(file.size for file in find(map(Path, stage.documents), ("", )))
    if any(reference.endswith((".paths", ".paths.gz")) for reference in stage.documents) or not total:
        raise TriviumError("how much a list's files hold is not known before they are asked for; say it with --input")
    return float(total)


def is_remote(stage: Corpus) -> bool:
    """Whether the documents lie at URLs, as far as the recipe's names tell."""
    return any(url_of(reference) or ".paths" in reference for reference in stage.documents)


def described(rates: Rates, own: bool) -> dict[str, Any]:
    """The rates, and where they come from."""
    return {"from": "a sample of the documents, on this machine" if own else f"{PROCESSOR}: {COMMAND}", **asdict(rates)}


def describe(found: dict[str, Any]) -> str:
    """An estimate in words."""
    tera = {name: found[name] / 1e12 for name in ("input_bytes", "unpacked_bytes", "head_disk_bytes", "result_bytes")}
    network, money = found["network_bytes"], found["dollars"]
    lines = [
        f"{'input':12} {tera['input_bytes']:12,.3f} TB stored, {tera['unpacked_bytes']:,.3f} TB unpacked",
        f"{'time':12} {found['hours']:12,.1f} h on {found['workers']:,} processes, {found['machines']:,} machines; "
        f"{found['core_hours']:,.0f} core hours; bound by {found['bound_by']}",
        f"{'slices':12} {found['slices']:12,} searched for duplicates each by itself",
        f"{'disk':12} {tera['head_disk_bytes']:12,.3f} TB on the machine that keeps the finished tasks; "
        f"results {tera['result_bytes']:,.3f} TB",
        f"{'network':12} {network['read'] / 1e12:12,.3f} TB read, {network['through the head'] / 1e12:,.3f} TB through "
        "that machine",
        f"{'money':12} {found['dollars_in_all']:12,.0f} dollars: " + ", ".join(
            f"{name} {value:,.0f}" for name, value in money.items()),
        f"{'by step':12} " + ", ".join(f"{step} {hours:,.1f}" for step, hours in found["by_step_core_hours"].items()
                                      ) + " core hours",
        f"{'rates':12} {found['rates']['from']}",
        f"{'prices':12} " + ", ".join(f"{name} {value}" for name, value in found["prices"].items()) + " (dollars; "
        "a month and the network for a terabyte)",
    ]
    return "\n".join(lines)


def kind_of(stage: Corpus) -> str:
    """What most of a recipe's documents are, by their names: ``pages`` or ``text``."""
    names = [reference.lower() for reference in stage.documents]
    return "pages" if any(part in name for name in names for part in ("warc", ".paths", "html", "crawl")) else "text"


def rates_of(stage: Corpus, kind: str) -> Rates:
    """The measured rates of a kind, without the steps that the recipe leaves out."""
    settings, rates = stage.settings, MEASURED["fast pages" if kind == "pages" and
                                               stage.settings.extraction == "fast" else kind]
    out: set[str] = set()
    if not settings.duplicates.exact:
        out.add("exact_duplicates")
    if not settings.duplicates.near:
        out |= {"band_groups", "near_duplicates"}
    if not settings.spans.enabled:
        out |= {"shared_runs", "windows", "repeats"}
    seconds = {step: value for step, value in rates.seconds.items() if step not in out}
    return Rates(**{**asdict(rates), "seconds": seconds})


def estimate(rates: Rates, stored: float, workers: int, prices: Prices = Prices(), cores: int = 64,
             head_rate: float = 1e9, remote: bool = True, shard_documents: int = 1000,
             speed: float = 1.0) -> dict[str, Any]:
    """What ``stored`` bytes take on ``workers`` processes, on machines of so many ``cores``. ``head_rate``: bytes a
    second that the machine which keeps the finished tasks takes in and gives out; of one machine alone it is left
    out. ``speed``: how many times as fast a core is as the one that the rates were measured on."""
    size = stored * rates.packed
    core_seconds = size / 1e6 * sum(rates.seconds.values()) / speed
    seconds = core_seconds / workers
    documents = size * rates.text_share / rates.document_bytes
    shards, shuffles = documents / shard_documents + 1, len(SHUFFLES & rates.seconds.keys())
    gathering = shuffles * shards * (1 + documents / PARTITION_DOCUMENTS) * OPEN_SECONDS
    slices = max(1, math.ceil(gathering / (GATHERING * seconds))) if workers > 1 else 1
    machines = math.ceil(workers / cores)
    scratch = size * (rates.scratch_share + (0.0 if remote else rates.raw_share))
    result = size * rates.kept_share
    travelled = 2 * scratch + result if machines > 1 else 0.0
    hours = (max(seconds, travelled / head_rate) + gathering / slices) / 3600
    money = {
        "processors": core_seconds / 3600 * prices.core_hour * max(1.0, hours * 3600 / seconds),
        "disk": scratch / slices / 1e12 * prices.disk_month * hours / 730,
        "network": stored / 1e12 * prices.network,
        "results a month": result / 1e12 * prices.store_month
    }
    return {
        "input_bytes": stored, "unpacked_bytes": size, "workers": workers, "machines": machines, "hours": hours,
        "bound_by": "the head machine's network" if travelled / head_rate > seconds else "processors",
        "core_hours": core_seconds / 3600, "slices": slices, "documents": documents,
        "head_disk_bytes": scratch / slices + result, "result_bytes": result,
        "network_bytes": {"read": stored if remote else 0.0, "through the head": travelled},
        "dollars": money, "dollars_in_all": sum(money.values()),
        "by_step_core_hours": {step: value * size / 3.6e9 / speed for step, value in rates.seconds.items()},
        "prices": asdict(prices)
    }
