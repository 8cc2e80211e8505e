from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys
from pathlib import Path

from trivium.files import read_rows
from trivium.world.source import SHARDS, WorldSettings, write

SMALL = WorldSettings(animals=10, foods=8, people=8, places=8, documents_bytes=60_000, demonstrations=100,
                      preference_prompts=60,
                      evaluation_prompts=40)


def digest(folder: Path) -> str:
    """One digest of the names and bytes of all files."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*.jsonl")):
        whole.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return whole.hexdigest()


def test_files_and_counts(tmp_path: Path) -> None:
    counts = write(tmp_path, 3, SMALL)
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.jsonl")}
    tables = {"truth", "demonstrations", "prompts", "evaluation", "facts"}
    assert names == {f"{name}.jsonl" for name in tables} | {f"documents/part-{i:02d}.jsonl" for i in range(SHARDS)}
    for name in tables:
        assert len(list(read_rows(tmp_path / f"{name}.jsonl"))) == counts[name]
    raw = [row for path in sorted((tmp_path / "documents").iterdir()) for _, row in read_rows(path)]
    truth = [row for _, row in read_rows(tmp_path / "truth.jsonl")]
    assert {row["id"] for row in raw} == {row["id"] for row in truth}
    assert len(raw) == counts["documents"] > counts["clean_documents"]
    assert (counts["demonstrations"], counts["prompts"], counts["evaluation"]) == (100, 60, 40)


def test_same_seed_same_bytes_in_another_process(tmp_path: Path) -> None:
    """Neither the order of sets nor the hash of strings may leak into the files."""
    write(tmp_path / "here", 3, SMALL)
    program = ("from pathlib import Path; from trivium.world.source import *; "
               f"write(Path({str(tmp_path / 'there')!r}), 3, {SMALL!r})")
    path = os.pathsep.join(sys.path)
    subprocess.run([sys.executable, "-c", program], check=True,
                   env={**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": path})
    assert digest(tmp_path / "here") == digest(tmp_path / "there")
    write(tmp_path / "other", 4, SMALL)
    assert digest(tmp_path / "other") != digest(tmp_path / "here")


def test_settings_match_the_defaults_of_the_world() -> None:
    assert dataclasses.asdict(WorldSettings()) == {
        "animals": 40, "foods": 24, "people": 32, "places": 16, "documents_bytes": 3_200_000, "demonstrations": 3000,
        "preference_prompts": 1500, "evaluation_prompts": 700,
    }
