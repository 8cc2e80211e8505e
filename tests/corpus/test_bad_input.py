"""A whole build on everything that can be wrong with input: counted, and never a crash, a hang or a silent loss."""

import gzip
import json
import random
import zipfile

import pyarrow
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from trivium.corpus.build import Extras, build
from trivium.corpus.mixture import MixtureSettings
from trivium.corpus.repeated_spans import SpanSettings
from trivium.corpus.settings import CorpusSettings
from trivium.corpus.tasks import Pool
from trivium.data.readers import InputFile, Limits, read
from trivium.errors import TriviumError

SENTENCES = [
    f"The {a} of the {b} went to the {c} with a friend that have seen it."
    for a in ("keeper", "baker", "miller", "sailor") for b in ("harbour", "valley", "castle")
    for c in ("market", "island")
]


def prose(seed, count=8):
    return " ".join(random.Random(seed).sample(SENTENCES, count))


def make(folder):
    """Files with every fault; what each is to be rejected for."""
    folder.mkdir()
    rows = "".join(json.dumps({"text": prose(n)}) + "\n" for n in range(40)).encode()
    files = {
        "good.jsonl": rows,
        "truncated.jsonl.gz": gzip.compress(rows)[:-200],
        "truncated.jsonl.zst": zstandard.ZstdCompressor().compress(rows)[:-20],
        "broken.warc": b"WARC/1.0\r\nContent-Length: ten\r\n\r\n",
        "latin.txt": b"bad \xff\xfe\xfd bytes " * 3,
        "null.txt": b"null \0 byte",
        "big.html": b"<p>" + b"word " * 500_000,
        "nested.html": b"<div>" * 10_000 + b"<p>" + prose(1).encode() + b"</p>" + b"</div>" * 10_000,
        "bomb.jsonl.gz": gzip.compress(bytes(30 << 20)),
        "empty.txt": b"",
        "untexted.jsonl": b'{"title": "no text"}\n{"half \\ud800": 1}\n{"text": 5}\n[]\n{',
        "quotes.csv": b'text\n"never closed\n' + b"x,y\n" * 100,
        "wide.csv": b"text,label\none,2,3\n",
        "unknown.docx": b"PK",
        "half.zip": b"PK\3\4 broken",
        "zeros.tar.gz": gzip.compress(bytes(1 << 20)),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    parquet.write_table(pyarrow.table({"body": ["no such column"]}), folder / "column.parquet")
    (folder / "cut.parquet").write_bytes((folder / "column.parquet").read_bytes()[:-5])
    with zipfile.ZipFile(folder / "inside.zip", "w") as archive:
        archive.writestr("a.txt", prose(77))
        archive.writestr("b.jsonl", "{")
    return folder


SETTINGS = CorpusSettings(max_page_bytes=1 << 20, max_unpacked_bytes=4 << 20, spans=SpanSettings(enabled=True),
                          shard_documents=20, rules=["gopher_quality",
                                                     "fineweb"], mixture=MixtureSettings(weights={"in": 2}))


def test_everything_wrong_is_counted(tmp_path):
    inputs = make(tmp_path / "in")
    counts = build([inputs], Extras(), SETTINGS, tmp_path / "out", tmp_path / "scratch", 0,
                   Pool(tmp_path / "scratch", 1, lambda *a: None))
    assert counts["documents"] == counts["kept"] + counts["rejected"]
    rejects = [
        json.loads(line) for part in sorted((tmp_path / "out/rejects").iterdir())
        for line in part.read_text().splitlines()
    ]
    reasons = {}
    for row in rejects:
        reasons.setdefault(row.get("file", row["id"].split(":")[0]).removeprefix("in/"), []).append(row["reason"])
    for name, start in {
            "truncated.jsonl.gz": "truncated gz", "truncated.jsonl.zst": "truncated zst", "broken.warc": "damaged WARC",
            "latin.txt": "invalid UTF-8", "null.txt": "null byte", "big.html": "a file of more than 1,048,576",
            "bomb.jsonl.gz": "a row of more|unpacks to more", "empty.txt": "empty file", "untexted.jsonl": "no text",
            "quotes.csv": "not valid CSV", "wide.csv": "3 fields", "unknown.docx": "not a kind of file",
            "half.zip": "damaged zip", "column.parquet": "no column 'text'", "cut.parquet": "damaged Parquet",
            "inside.zip/b.jsonl": "not valid JSON",
            "zeros.tar.gz": "an archive without files"
    }.items():
        assert any(reason.startswith(tuple(start.split("|")))
                   for reason in reasons.get(name, [])), (name, reasons.get(name))
    lines = [
        json.loads(line)["id"] for part in sorted((tmp_path / "out/documents").iterdir())
        for line in part.read_text().splitlines()
    ]
    assert len(set(lines)) == counts["kept"] and len(lines) == counts["kept"] + counts["copies"]
    assert len({*lines, *(row["id"] for row in rejects)}) == counts["documents"]


def test_unknown_rules_and_settings_are_errors():
    for wrong in ({"rules": ["gopher_qualty"]}, {"without": ["c4.sentence"]}):
        with pytest.raises(TriviumError, match="did you mean"):
            CorpusSettings(**wrong)


SUFFIXES = [
    "a.jsonl", "a.json", "a.csv", "a.html", "a.txt", "a.md", "a.parquet", "a.warc", "a.warc.gz", "a.jsonl.gz",
    "a.jsonl.zst", "a.zip", "a.tar", "a.tar.gz", "a.html.xz", "a.txt.bz2"
]


@given(st.sampled_from(SUFFIXES), st.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_read_or_rejected(tmp_path_factory, name, data):
    path = tmp_path_factory.mktemp("fuzz") / name
    path.write_bytes(data)
    assert list(read(InputFile(path, name, "fuzz"), Limits(max_unpacked_bytes=1 << 20)))


@pytest.fixture(scope="module")
def good_files(tmp_path_factory):
    folder = make(tmp_path_factory.mktemp("good") / "in")
    return {name: (folder / name).read_bytes() for name in ("good.jsonl", "column.parquet", "inside.zip")} | {
        "good.jsonl.gz": gzip.compress((folder / "good.jsonl").read_bytes()),
        "good.jsonl.zst": zstandard.ZstdCompressor().compress((folder / "good.jsonl").read_bytes())}


@given(st.integers(0, 10**9))
@settings(max_examples=100, deadline=None)
def test_mutated_files_are_read_or_rejected(tmp_path_factory, good_files, seed):
    rng = random.Random(seed)
    name = rng.choice(sorted(good_files))
    data = bytearray(good_files[name])
    for _ in range(rng.randint(1, 5)):
        place = rng.randrange(len(data))
        data[place:place + rng.choice([0, 1, 1, 50])] = rng.randbytes(rng.choice([0, 1, 1, 20]))
    path = tmp_path_factory.mktemp("mutated") / name
    path.write_bytes(bytes(data))
    assert list(read(InputFile(path, name, "fuzz"), Limits(max_unpacked_bytes=4 << 20)))
