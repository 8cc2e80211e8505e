"""One corpus of 50 hostile files, 50 damaged ones and, where ``TRIVIUM_PAGES`` names their folder, real pages: built in
one run, with as many documents in as kept and rejected."""

import gzip
import importlib.util
import json
import os
import random
import shutil
from pathlib import Path

import pytest

from trivium.corpus.build import Extras, build
from trivium.corpus.settings import CorpusSettings
from trivium.corpus.tasks import Pool

HERE = Path(__file__).parent


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


PAGES = {
    "deep": "<div>" * 3000 + "text", "attributes": "<p " + " ".join(f"a{n}=1" for n in range(9000)) + ">text",
    "comment": "<!--" * 5000, "open": "<" * 100_000, "table": "<table><tr><td>" * 2000, "entities": "&amp" * 50_000,
    "null": "<p>a\0b</p>", "script": "<script>" + "x" * 100_000, "escape": "<p>\x1b[2J\x1b]0;x\x07</p>", "empty": "",
}


def hostile(folder):
    """50 files that would take too much, never end, or are not what their names say."""
    bombs = module(HERE.parents[1] / "benchmarks" / "bombs.py")
    for name, make in list(bombs.BOMBS.items())[:33]:
        place = folder / name
        place.mkdir(parents=True)
        if not name.startswith(("json_of_equal_rows", "tar_of_empty", "json_of_tiny", "json_list")):
            make(place, 2 << 20)
        else:
            make(place, 1 << 19)
    for name, page in PAGES.items():
        (folder / f"{name}.html").write_text(page)
    (folder / "gone.jsonl").symlink_to("nowhere")
    (folder / "device.jsonl").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.jsonl")
    (folder / "no.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    (folder / "no.docx").write_bytes(b"PK")
    (folder / "no.jsonl.gz").write_bytes(gzip.compress(gzip.compress(b'{"text": "a"}\n')))
    (folder / "digits.jsonl").write_text('{"text": ' + "1" * 5000 + "}\n")


def damaged(folder):
    """50 files of all formats, cut or with bytes that are not theirs."""
    damage = module(HERE / "test_damage.py")
    rng, names = random.Random(3), list(damage.FILES)
    folder.mkdir()
    for number in range(50):
        name = names[number % len(names)]
        (folder / f"{number}-{name}").write_bytes(damage.mutated(damage.FILES[name], rng))


@pytest.mark.long
def test_hostile_and_damaged_files_and_pages_make_one_corpus(tmp_path):
    hostile(tmp_path / "hostile")
    damaged(tmp_path / "damaged")
    (tmp_path / "good.jsonl").write_text("".join(json.dumps({"text": f"A good text, number {n}."}) + "\n"
                                                 for n in range(20)))
    inputs = [tmp_path / "hostile", tmp_path / "damaged", tmp_path / "good.jsonl"]
    assert [len([path for path in folder.rglob("*") if not path.is_dir()]) for folder in inputs[:2]] == [50, 50]
    if pages := os.environ.get("TRIVIUM_PAGES"):
        inputs.append(Path(pages))
    counts = build(inputs, Extras(), CorpusSettings(rules=[]), tmp_path / "out", tmp_path / "work", 0,
                   Pool(tmp_path / "work", 2, lambda *_: None))
    shutil.rmtree(tmp_path / "work")
    lines = {kind: sum(len(part.read_bytes().splitlines()) for part in (tmp_path / "out" / kind).glob("*.jsonl"))
             for kind in ("documents", "rejects")}
    assert counts["documents"] == counts["kept"] + counts["rejected"]
    assert (lines["documents"], lines["rejects"]) == (counts["kept"], counts["rejected"])
    by_source = counts["funnel"][0]["sources"]
    assert by_source["good.jsonl"]["documents"] == 20
    if pages:
        name = Path(pages).resolve().name
        assert by_source[name]["documents"] == len([path for path in Path(pages).rglob("*") if path.is_file()])
    print({key: counts[key] for key in ("documents", "kept", "rejected")}, {
        source: entry["documents"] for source, entry in by_source.items()})
