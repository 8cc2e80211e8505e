"""The corpus builder against datatrove, on the same input and the same cores: python benchmarks/corpus.py [--quick]
[--data FOLDER].

extraction      pages a second of processor time (neighbours change it less), and against each library called alone
near duplicates documents a second, from texts to the documents that are dropped: 5-grams, 14 bands of 8
pipeline        pages a second through extraction, Gopher, C4, FineWeb rules and near duplicates; the same steps of
datatrove's FineWeb recipe tokenisation    megabytes a second of processor time, against the library alone
memory          --sizes 0.1 1 10, in gigabytes, instead of the rest: the peak of all processes together, and kilobytes
of raw text a second per core, by
                processor time (which neighbours change little; the goal is on it) and by the clock, on made-up input of
                these sizes, every step on
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import itertools
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import HERE, Result, call, in_turn, report

PEER = ["datatrove[processing,io]==0.10.1", "spacy", "regex", "orjson", "lxml_html_clean"]


DISK = 5.0
"""How many times its input a build takes on the disk at most, the input included."""


def peer() -> str:
    """The Python of datatrove's environment, made when it is missing; it needs no PyTorch."""
    folder = HERE / ".envs" / "datatrove"
    if not (folder / "ready").exists():
        print(f"making {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([folder / "bin/python", "-m", "pip", "install", "-q", *PEER], check=True)
        (folder / "ready").touch()
    return str(folder / "bin/python")


# the inputs


def pages(data: Path, count: int) -> list[str]:
    """Real news pages, again and again in their order, or pages of the embedded world where there are none."""
    files = sorted((data / "article-extraction-benchmark/html").glob("*.html.gz"))
    if files:
        found = [gzip.decompress(file.read_bytes()).decode() for file in files]
    else:
        from trivium.randomness import python
        from trivium.world.pages import page
        rng = python(0, "benchmark")
        found = [page(text, "A page", rng) for text in prose(data, 181)]
    return list(itertools.islice(itertools.cycle(found), count))


def prose(data: Path, count: int) -> list[str]:
    """Real articles with made-up near copies of a quarter of them, or the embedded world's documents."""
    path, texts = data / "english-docs/digitalgov.tar.gz", list[str]()
    if path.exists():
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member) if member.name.endswith(".md") else None
                if file is not None and len(text := file.read().decode("utf-8", "replace")) > 1000:
                    texts.append(text)
    else:
        from trivium.world.documents import documents
        from trivium.world.town import Town
        texts = [document.text for document in documents(Town(0), 0, 4_000_000)]
    rng, found = random.Random(0), list[str]()
    for number in range(count):
        words = texts[number % len(texts)].split()
        for _ in range(len(words) // (50 if number % 4 else 3)):  # every copy of a text differs from the others
            words[rng.randrange(len(words))] = rng.choice(words)
        found.append(" ".join(words))
    return found


# our side, in a process of its own


def ours(options: dict[str, Any]) -> dict[str, Any]:
    """One case; what it prints last."""
    return {
        "extract": _our_extraction, "library": _library_extraction, "near": _our_duplicates, "pipeline": _our_pipeline,
        "tokens": _our_tokens, "tokens_library": _library_tokens, "size": _our_size
    }[options["case"]](options)


def _our_extraction(options: dict[str, Any]) -> dict[str, Any]:
    """What the process that extracts a shard does with its pages, limits, fallbacks and the log of attempts included;
    here this process is that one."""
    from trivium.corpus.extract import ExtractionLimits, find, try_logged
    from trivium.corpus.killable import Log
    found, limits, path = _rows(options["input"]), ExtractionLimits(), Path(options["scratch"], f"log-{os.getpid()}")
    path.touch()
    with Log(path) as log:
        attempt = try_logged(log)
        find(found[0]["text"], options["profile"], None, limits, attempt)
        start = _processor_seconds()
        kept = sum(find(row["text"], options["profile"], None, limits, attempt)[0] is not None for row in found)
        return {"rate": len(found) / (_processor_seconds() - start), "kept": kept}


def _library_extraction(options: dict[str, Any]) -> dict[str, Any]:
    found = _rows(options["input"])
    if options["profile"] == "accurate":
        import trafilatura

        def run(html: str) -> Any:
            return trafilatura.extract(html, fast=True, include_comments=False)
    else:
        from resiliparse.extract.html2text import extract_plain_text

        def run(html: str) -> Any:
            return extract_plain_text(html, main_content=True, alt_texts=False, list_bullets=False, comments=False)
    run(found[0]["text"])
    start = _processor_seconds()
    kept = sum(bool(run(row["text"])) for row in found)
    return {"rate": len(found) / (_processor_seconds() - start), "kept": kept}


def _build(options: dict[str, Any], **settings: Any) -> tuple[dict[str, Any], float]:
    from trivium.corpus.build import Extras, build
    from trivium.corpus.settings import CorpusSettings
    from trivium.corpus.tasks import Pool
    with tempfile.TemporaryDirectory(dir=options["scratch"]) as folder:
        pool = Pool(Path(folder, "scratch"), options.get("workers", 1), lambda step, done, total: None)
        start = time.perf_counter()
        counts = build([Path(options["input"])], Extras(), CorpusSettings(**settings), Path(folder, "out"),
                       Path(folder, "scratch"), 0, pool)
        return counts, time.perf_counter() - start


def _our_duplicates(options: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    from trivium.corpus.duplicates import DuplicateSettings, clusters, near_pairs, write_marks
    from trivium.corpus.words import plain_hashes
    texts, settings = [row["text"] for row in _rows(options["input"])], DuplicateSettings(exact=False)
    with tempfile.TemporaryDirectory(dir=options["scratch"]) as folder:
        write_marks(texts[:3], plain_hashes(texts[:3]), settings, 0, Path(folder))
    with tempfile.TemporaryDirectory(dir=options["scratch"]) as folder:
        start = time.perf_counter()
        write_marks(texts, plain_hashes(texts), settings, 0, Path(folder))
        numbers, firsts = clusters(near_pairs([Path(folder)], [0], np.empty(0, np.int64), settings.threshold, 0, 1)[0])
        seconds = time.perf_counter() - start
    return {"rate": len(texts) / seconds, "kept": len(texts) - int((numbers != firsts).sum())}


def _few(options: dict[str, Any], count: int = 3) -> dict[str, Any]:
    """The same case on a few documents, so that libraries are loaded before the clock starts, as they are on
    datatrove's side."""
    path, source = Path(options["scratch"], f"few-{os.getpid()}.jsonl"), Path(options["input"])
    with open(min(source.iterdir()) if source.is_dir() else source, encoding="utf-8") as file:
        path.write_text("".join(itertools.islice(file, count)), encoding="utf-8")
    return {**options, "input": str(path)}


def _our_pipeline(options: dict[str, Any]) -> dict[str, Any]:
    from trivium.errors import TriviumError
    with contextlib.suppress(TriviumError):  # all three may be rejected
        _pipeline(_few(options))
    return _pipeline(options)


def _pipeline(options: dict[str, Any]) -> dict[str, Any]:
    from trivium.corpus.contamination import ContaminationSettings
    from trivium.corpus.duplicates import DuplicateSettings
    from trivium.corpus.harmful import HarmfulSettings
    from trivium.corpus.languages import LanguageSettings
    from trivium.corpus.settings import PrivateSettings
    counts, seconds = _build(
        options, fields={"html": "text"}, extraction=options["profile"], language=LanguageSettings(enabled=False),
        harmful=HarmfulSettings(enabled=False), duplicates=DuplicateSettings(exact=False),
        private=PrivateSettings(kinds=["email", "ipv4"]), contamination=ContaminationSettings(enabled=False))
    return {"rate": counts["documents"] / seconds, "kept": counts["kept"]}


def _tokenizer(texts: list[str]) -> Any:
    from trivium.tokenizer.chat import ChatTokenizer
    from trivium.tokenizer.train import train
    return ChatTokenizer(train(iter(texts[:500]), 4096))


def _our_tokens(options: dict[str, Any]) -> dict[str, Any]:
    from trivium.tokenizer import tokens
    texts = [row["text"] for row in _rows(options["input"])]
    tokenizer, size = _tokenizer(texts), sum(len(text.encode()) for text in texts)
    with tempfile.TemporaryDirectory(dir=options["scratch"]) as folder:
        start = time.process_time()
        header = tokens.write(Path(folder, "tokens"), iter(texts), tokenizer)
        return {"rate": size / 1e6 / (time.process_time() - start), "kept": header["tokens"]}


def _library_tokens(options: dict[str, Any]) -> dict[str, Any]:
    texts = [row["text"] for row in _rows(options["input"])]
    tokenizer, size = _tokenizer(texts), sum(len(text.encode()) for text in texts)
    library = getattr(tokenizer, "tokenizer", None) or tokenizer._tokenizer
    start = time.process_time()
    total = sum(
        len(encoding.ids) for k in range(0, len(texts), 1024)
        for encoding in library.encode_batch(texts[k:k + 1024], add_special_tokens=False))
    return {"rate": size / 1e6 / (time.process_time() - start), "kept": total}


def _our_size(options: dict[str, Any]) -> dict[str, Any]:
    from trivium.corpus.repeated_spans import SpanSettings
    # what is loaded once, dictionaries and models, is not the input's cost
    _build(_few(options, 200), spans=SpanSettings(enabled=True))
    used, workers, disk = _processor_seconds(), options["workers"], _Disk(Path(options["scratch"]))
    with disk:
        counts, seconds = _build(options, spans=SpanSettings(enabled=True))
    megabytes = counts["funnel"][0]["bytes"] / 1e6
    own, child = (resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "rate": megabytes / (_processor_seconds() - used), "clock_rate": megabytes / seconds / workers,
        "seconds": seconds, "memory_mb": own + (child * workers if workers > 1 else 0), "disk_gb": disk.most / 1e9,
        "documents": counts["documents"], "kept": counts["kept"]
    }


def _processor_seconds() -> float:
    """Of this process and of the workers that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(times.ru_utime + times.ru_stime for times in used)


class _Disk(threading.Thread):
    """The most that a folder held while the context lasted, looked at every few seconds; a file with two names counts
    once."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.most, self.ended = folder, 0, threading.Event()

    def run(self) -> None:
        pause = 0.5
        while not self.ended.wait(pause):
            start = time.perf_counter()
            found: dict[int, int] = {}
            for parent, _, names in os.walk(self.folder):
                for name in names:
                    with contextlib.suppress(OSError):  # gone meanwhile
                        state = os.stat(Path(parent, name))
                        found[state.st_ino] = state.st_blocks * 512
            self.most = max(self.most, sum(found.values()))
            pause = 0.5 + 200 * (time.perf_counter() - start)  # half a percent of the time at most

    def __enter__(self) -> _Disk:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.join()


def _rows(path: str) -> list[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


# datatrove's side: its own blocks, as its examples put them together

PEER_SCRIPT = HERE / "peer_datatrove.py"


def write(path: Path, texts: list[str]) -> Path:
    """Rows that both sides read."""
    with open(path, "w", encoding="utf-8") as file:
        for number, text in enumerate(texts):
            file.write(json.dumps({"id": f"d{number}", "text": text}, ensure_ascii=False) + "\n")
    return path


def grown(path: Path, gigabytes: float) -> Path:
    """Made-up English-like documents of so many bytes in files of 50 MB, a twentieth of them copies with changed words.
    A fifth of them are long and hold most of the text, as on the web."""
    path.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "ar", "en", "il", "or", "un")]
    words = ["the", "of", "and", "to", "that", "with", "have", "be"] * 60 + [
        "".join(rng.choices(syllables, k=rng.randint(2, 4))) for _ in range(30_000)
    ]
    left, number, last, new = int(gigabytes * 1e9), 0, "", made_up(words)
    while left > 0:
        with open(path / f"part-{number:05}.jsonl", "w", encoding="utf-8") as file:
            size = 0
            while size < min(50_000_000, left):
                if last and rng.random() < 0.05:
                    parts = last.split(" ")
                    parts[rng.randrange(len(parts))] = rng.choice(words)
                    last = " ".join(parts)
                else:
                    last = next(new)
                size += file.write(json.dumps({"text": last}) + "\n")
        left, number = left - size, number + 1
    return path


def made_up(words: list[str]) -> Iterator[str]:
    """One text after another: lines of sentences of words. Words are drawn many at a time, as this is most of the time
    that it takes."""
    import numpy as np
    rng, draw = random.Random(1), np.random.default_rng(1)
    while True:
        heap, place = [words[k] for k in draw.integers(len(words), size=200_000).tolist()], 0
        while place < len(heap) - 90 * 7 * 18:
            lines = []
            for _ in range(rng.randint(3, 9) if rng.random() < 0.8 else rng.randint(30, 90)):
                sentences = []
                for _ in range(rng.randint(3, 7)):
                    length = rng.randint(6, 18)
                    sentences.append(" ".join(heap[place:place + length]).capitalize() + ".")
                    place += length
                lines.append(" ".join(sentences))
            yield "\n".join(lines)


def main() -> None:
    """Both sides in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=("extraction", "near", "pipeline", "tokens"),
                        default=["extraction", "near", "pipeline", "tokens"])
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared/data")
    parser.add_argument("--sizes", type=float, nargs="+",
                        help="instead: gigabytes of made-up input, for memory and throughput")
    parser.add_argument("--workers", type=int, default=1, help="processes, with --sizes")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()),
                        help=f"a disk with room for {DISK:g} times the largest size")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(ours(json.loads(options.worker))))
        return
    results: list[Result] = []
    environment = {
        "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{HERE.parent / 'src'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    }
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        def run(case: str, source: Path, **more: Any) -> float:
            found = call(__file__, {"case": case, "input": str(source), "scratch": scratch, **more},
                         environment=environment)
            print(f"{case} {more}: {found}", file=sys.stderr)
            return float(found["rate"])

        if options.sizes:
            for size in options.sizes:
                free = shutil.disk_usage(scratch).free / 1e9
                if free < DISK * size:
                    raise SystemExit(
                        f"{options.scratch}: {free:.1f} GB are free, and {size:g} GB of input take up to "
                        f"{DISK * size:.1f}; name another disk with --scratch"
                    )
                source = grown(Path(scratch, f"size-{size:g}"), size)
                found = call(__file__,
                             {"case": "size", "input": str(source), "scratch": scratch, "workers": options.workers},
                             environment=environment)
                shutil.rmtree(source)
                print(f"{size:g} GB: {found}", file=sys.stderr)
                results.append(
                    Result(f"{size:g} GB: peak memory", found["memory_mb"], 1536, "MB", 1.0, lower_is_better=True))
                results.append(
                    Result(f"{size:g} GB: kB a second per core, by processor time", 1000 * found["rate"],
                           results[1].ours if len(results) > 1 else 1000 * found["rate"], "kB/s", 0.9))
                results.append(
                    Result(f"{size:g} GB: kB a second per core, by the clock", 1000 * found["clock_rate"],
                           results[2].ours if len(results) > 2 else 1000 * found["clock_rate"], "kB/s"))
            report("corpus", results)
            return

        def theirs(case: str, source: Path, **more: Any) -> float:
            found = call(PEER_SCRIPT, {"case": case, "input": str(source), "scratch": scratch, **more}, peer(),
                         environment={"OMP_NUM_THREADS": "1"})
            print(f"datatrove {case} {more}: {found}", file=sys.stderr)
            return float(found["rate"])

        rounds = 1 if options.quick else options.rounds
        crawled = write(Path(scratch, "pages.jsonl"), pages(options.data, 60 if options.quick else 362))
        texts = write(Path(scratch, "texts.jsonl"), prose(options.data, 1500 if options.quick else 10_000))
        for profile in ("accurate", "fast") if "extraction" in options.only else ():
            found = in_turn(
                {
                    "ours": lambda p=profile: run("extract", crawled, profile=p),
                    "library": lambda p=profile: run("library", crawled, profile=p)
                }, rounds)
            results.append(
                Result(f"extraction, {profile}, against the library alone", found["ours"], found["library"], "pages/s",
                       0.9))
        if "near" in options.only:
            found = in_turn({"ours": lambda: run("near", texts), "datatrove": lambda: theirs("near", texts)}, rounds)
            results.append(
                Result("near duplicates, against datatrove", found["ours"], found["datatrove"], "documents/s", 3.0))
        if "pipeline" in options.only:
            found = in_turn(
                {
                    "accurate": lambda: run("pipeline", crawled, profile="accurate"),
                    "fast": lambda: run("pipeline", crawled, profile="fast"),
                    "datatrove": lambda: theirs("pipeline", crawled)
                }, rounds)
            results.append(
                Result("pipeline, against datatrove's FineWeb recipe", found["accurate"], found["datatrove"], "pages/s",
                       2.0))
            results.append(
                Result("pipeline, fast profile, against the same", found["fast"], found["datatrove"], "pages/s", 2.0))
        if "tokens" in options.only:
            found = in_turn({"ours": lambda: run("tokens", texts), "library": lambda: run("tokens_library", texts)},
                            rounds)
            results.append(
                Result("tokenisation, against tokenizers alone", found["ours"], found["library"], "MB/s", 0.8))
    report("corpus", results)


if __name__ == "__main__":
    main()
