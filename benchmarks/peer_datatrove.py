"""datatrove, as its own examples put it together (minhash and FineWeb): run by corpus.py in datatrove's environment.

Language identification is left out, as datatrove downloads its model when it runs.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers.jsonl import JsonlWriter
from datatrove.utils.logging import logger

logger.remove()


def run(steps: list[Any], logs: Path) -> None:
    """One executor in this process."""
    LocalPipelineExecutor(steps, tasks=1, workers=1, logging_dir=str(logs), skip_completed=False).run()


def near(source: str, folder: Path) -> None:
    """The four stages of its minhash example."""
    config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)
    inputs = JsonlReader(str(Path(source).parent), glob_pattern=Path(source).name)
    run([inputs, MinhashDedupSignature(str(folder / "signatures"), config=config)], folder / "logs-1")
    LocalPipelineExecutor([MinhashDedupBuckets(str(folder / "signatures"), str(folder / "buckets"), config=config)],
                          tasks=14, workers=1, logging_dir=str(folder / "logs-2"), skip_completed=False).run()
    run([MinhashDedupCluster(str(folder / "buckets"), str(folder / "removed"), config=config)], folder / "logs-3")
    run([inputs,
         MinhashDedupFilter(str(folder / "removed")),
         JsonlWriter(str(folder / "kept"), compression=None)], folder / "logs-4")


def pipeline(source: str, folder: Path) -> None:
    """The FineWeb example's steps, from pages to a clean, deduplicated corpus."""
    run([
        JsonlReader(str(Path(source).parent), glob_pattern=Path(source).name),
        Trafilatura(favour_precision=True),
        GopherRepetitionFilter(),
        GopherQualityFilter(),
        C4QualityFilter(filter_no_terminal_punct=False),
        FineWebQualityFilter(),
        JsonlWriter(str(folder / "filtered"), output_filename="${rank}.jsonl", compression=None)
    ], folder / "logs-0")
    near(str(folder / "filtered" / "00000.jsonl"), folder)
    run([JsonlReader(str(folder / "kept")),
         PIIFormatter(),
         JsonlWriter(str(folder / "done"), compression=None)], folder / "logs-5")


def main() -> None:
    """One case; prints its rate."""
    options = json.loads(sys.argv[sys.argv.index("--worker") + 1])
    with open(options["input"], encoding="utf-8") as file:
        lines = file.readlines()
    count = len(lines)
    with tempfile.TemporaryDirectory(dir=options["scratch"]) as folder:  # libraries are loaded, as they are on our side
        Path(folder, "few.jsonl").write_text("".join(lines[:3]), encoding="utf-8")
        near(str(Path(folder, "few.jsonl")), Path(folder))
    with tempfile.TemporaryDirectory(dir=options["scratch"]) as folder:
        start = time.perf_counter()
        {"near": near, "pipeline": pipeline}[options["case"]](options["input"], Path(folder))
        seconds = time.perf_counter() - start
        kept = sum(
            sum(1 for _ in open(path, "rb"))
            for path in Path(folder, "done" if options["case"] == "pipeline" else "kept").glob("*.jsonl"))
    print(json.dumps({"rate": count / seconds, "kept": kept}))


if __name__ == "__main__":
    main()
