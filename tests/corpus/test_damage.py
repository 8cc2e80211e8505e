"""Files of every format, cut and with flipped bytes: a reject with its reason, never an error, and the rows that the
damage did not touch are there."""

import bz2
import gzip
import io
import json
import lzma
import os
import random
import socket
import stat
import tarfile
import zipfile

import openpyxl
import pyarrow as pa
import pytest
import zstandard
from pyarrow import ipc, parquet

from trivium.corpus.build import Extras, build
from trivium.corpus.settings import CorpusSettings
from trivium.corpus.shards import write_array
from trivium.corpus.tasks import Pool
from trivium.data.readers import Document, Limits, Malformed, find, read, rows
from trivium.data.unpack import Bad
from trivium.errors import TriviumError

ROWS = [{"text": f"Row {number} says that {'a river ' * (number % 5 + 1)}flows to the sea, 第{number}条。"}
        for number in range(24)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
CSV = b"text,id\n" + "".join(f'"{row["text"]}",{n}\n' for n, row in enumerate(ROWS)).encode()


def warc(pack=bytes):
    body = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"
    record = b"WARC/1.0\r\nWARC-Type: response\r\nContent-Type: application/http\r\nContent-Length: %d\r\n\r\n%s"
    pages = [body + row["text"].encode() for row in ROWS]
    return b"".join(pack(record % (len(page), page) + b"\r\n\r\n") for page in pages)


def tar(mode="w:"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for number, row in enumerate(ROWS):
            entry = tarfile.TarInfo(f"{number}.txt")
            entry.size = len(data := row["text"].encode())
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def in_zip():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, row in enumerate(ROWS):
            archive.writestr(f"{number}.txt", row["text"])
    return out.getvalue()


def table(write):
    out = io.BytesIO()
    write(pa.table({"text": [row["text"] for row in ROWS], "at": pa.array(range(24), pa.timestamp("ns"))}), out)
    return out.getvalue()


def arrow(opener, compression):
    def write(rows, out):
        options = ipc.IpcWriteOptions(compression=compression)
        with opener(out, rows.schema, options=options) as file:
            file.write_table(rows, 8)
    return table(write)


def excel():
    book, out = openpyxl.Workbook(), io.BytesIO()
    book.active.append(["text"])
    for row in ROWS:
        book.active.append([row["text"]])
    book.save(out)
    return out.getvalue()


FILES = {
    "a.jsonl": LINES, "a.json": json.dumps(ROWS).encode(), "a.csv": CSV, "a.tar": tar(), "a.tar.gz": tar("w:gz"),
    "b.tar.gz": gzip.compress(tar()[:-3000]), "a.zip": in_zip(), "a.warc": warc(), "a.warc.gz": warc(gzip.compress),
    "a.jsonl.gz": gzip.compress(LINES), "a.jsonl.zst": zstandard.ZstdCompressor(write_checksum=True).compress(LINES),
    "a.jsonl.bz2": bz2.compress(LINES), "a.jsonl.xz": lzma.compress(LINES), "a.xlsx": excel(),
    "a.parquet": table(lambda rows, out: parquet.write_table(rows, out, row_group_size=8)),
    "a.arrow": arrow(ipc.new_file, None), "b.arrow": arrow(ipc.new_stream, "zstd"),
}
TEXTS = {"a.jsonl", "a.json", "a.csv", "a.warc", "b.arrow"}
"""Files without checksums and numbers of rows: of some damage, such as two rows made one, nothing is left to see."""


def mutated(data, rng):
    """A file that is cut, has bytes flipped, filled with zeros, doubled or left out."""
    data, way = bytearray(data), rng.randrange(5)
    place = rng.randrange(len(data))
    if way == 0:
        return bytes(data[:place])
    if way == 1:
        for _ in range(rng.choice([1, 1, 3, 20])):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif way == 2:
        data[place:place + 40] = bytes(len(data[place:place + 40]))
    elif way == 3:
        data[place:place] = data[place:place + rng.randrange(1, 300)]
    else:
        del data[place:place + rng.randrange(1, 100)]
    return bytes(data)


def try_mutations(folder, name, number, seed):
    rng, path = random.Random(f"{name}{seed}"), folder / name
    whole = {row["text"] for row in ROWS}
    for turn in range(number):
        path.write_bytes(mutated(FILES[name], rng))
        found = [one for file in find([path]) for one in read(file, Limits(max_unpacked_bytes=1 << 24))]
        bad = [one for one in found if isinstance(one, Malformed)]
        assert all(one.reason and "\n" not in one.reason for one in bad), (turn, bad)
        missing = whole - {one.text for one in found if isinstance(one, Document)}
        assert not missing or bad or len(found) - len(bad) >= 24 or name in TEXTS, turn
        for file in find([path]):
            assert all(isinstance(row, (dict, Bad)) for _, _, row in rows(file, Limits(max_unpacked_bytes=1 << 24)))


@pytest.mark.parametrize("name", FILES)
def test_damage_is_told_and_never_an_error(tmp_path, name):
    (tmp_path / name).write_bytes(FILES[name])
    if name != "b.tar.gz":
        assert [one.text for file in find([tmp_path / name]) for one in read(file)] == [row["text"] for row in ROWS]
    try_mutations(tmp_path, name, 6, 0)


@pytest.mark.long
@pytest.mark.parametrize("name", FILES)
def test_much_damage_is_told_and_never_an_error(tmp_path, name):
    try_mutations(tmp_path, name, 400, 1)


def read_all(path, **limits):
    found = [one for file in find([path]) for one in read(file, Limits(**limits))]
    return ([one.text for one in found if isinstance(one, Document)],
            [one.reason for one in found if isinstance(one, Malformed)])


def test_a_damaged_member_of_a_tar_costs_itself_alone(tmp_path):
    data = bytearray(tar())
    data[1024 * 5] ^= 1  # the sixth member's name, which the header's checksum does not fit any longer
    (tmp_path / "a.tar").write_bytes(data)
    good, bad = read_all(tmp_path / "a.tar")
    assert good == [row["text"] for number, row in enumerate(ROWS) if number != 5]
    assert bad == ["damaged tar archive: what stands here is no member's header"]
    for cut in (1024 * 3 + 520, 1024 * 3, 1024 * 3 + 100):
        (tmp_path / "a.tar").write_bytes(tar()[:cut])
        good, bad = read_all(tmp_path / "a.tar")
        assert good == [row["text"] for row in ROWS[:3]] and bad and all("truncated" in reason for reason in bad)


def test_what_is_no_file_is_a_reject(tmp_path):
    folder = tmp_path / "in"
    (folder / "deep.jsonl").mkdir(parents=True)
    (folder / "deep.jsonl" / "good.txt").write_text("good")
    (folder / "gone.jsonl").symlink_to("nowhere")
    (folder / "round").symlink_to(folder)
    os.mkfifo(folder / "pipe.jsonl")
    (folder / "zero.jsonl").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(folder)
        try:
            server.bind("socket.jsonl")
        finally:
            os.chdir(here)
        good, bad = read_all(folder)
    assert good == ["good"] and sorted(bad) == sorted([
        "a link to a file that is not there", "a pipe, not a file", "a device, not a file", "a socket, not a file",
        "a link to a folder, which is not followed; name the folder itself among the inputs"])
    with pytest.raises(TriviumError, match="a pipe, not a file"):
        find([folder / "pipe.jsonl"])
    assert stat.S_ISFIFO((folder / "pipe.jsonl").stat().st_mode)
    settings = CorpusSettings(rules=[])
    counts = build([folder], Extras(), settings, tmp_path / "out", tmp_path / "work", 0, Pool(
        tmp_path / "work", 1, lambda *_: None))
    assert (counts["documents"], counts["kept"], counts["rejected"]) == (6, 1, 5)


def test_a_full_disk_is_told_for_arrays(tmp_path):
    (tmp_path / "a.npy").symlink_to("/dev/full")
    with pytest.raises(TriviumError, match="the disk is full"):
        write_array(tmp_path / "a.npy", __import__("numpy").zeros(10_000))


@pytest.mark.parametrize("kind", [pa.timestamp("ns"), pa.time64("ns"), pa.duration("ns"), pa.timestamp("us", "Mars/X"),
                                  pa.timestamp("s"), pa.date32(), pa.decimal128(38, 2), pa.binary()])
def test_an_odd_column_costs_nothing(tmp_path, kind):
    width = {pa.date32(): pa.int32(), pa.binary(): pa.string(), pa.decimal128(38, 2): pa.int64()}.get(kind, pa.int64())
    odd = pa.array([2**31 - 2 if width == pa.int32() else 10**12 + 1] if width != pa.string() else ["\xe9"], width)
    odd = odd.cast(kind) if kind != pa.binary() else pa.array([b"\xff"])
    rows_ = pa.table({"text": pa.array([b"said in bytes"]), "odd": odd, "in": pa.StructArray.from_arrays([odd], ["x"])})
    parquet.write_table(rows_, tmp_path / "a.parquet")
    with ipc.new_stream(str(tmp_path / "a.arrow"), rows_.schema) as file:
        file.write_table(rows_)
    for name in ("a.parquet", "a.arrow"):
        assert read_all(tmp_path / name) == (["said in bytes"], [])
        found = [row for file in find([tmp_path / name]) for _, _, row in rows(file)]
        assert len(found) == 1 and not isinstance(found[0], Bad) and found[0]["text"] == "said in bytes"


def test_json_lines_that_are_not_one_to_a_line(tmp_path):
    for text in (json.dumps(ROWS, indent=1), "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n",
                 "[" + ",\n".join(map(json.dumps, ROWS)) + "]", "".join(map(json.dumps, ROWS)),
                 "\r".join(map(json.dumps, ROWS)), "\n\n \n".join(map(json.dumps, ROWS)) + "\n\n",
                 "\n".join(json.dumps(row, indent=2) for row in ROWS)):
        (tmp_path / "a.jsonl").write_text(text)
        assert read_all(tmp_path / "a.jsonl") == ([row["text"] for row in ROWS], [])
    (tmp_path / "a.jsonl").write_text('{"text": "a"} and more\n{"text": "b"}\n')
    good, bad = read_all(tmp_path / "a.jsonl")
    assert good == ["b"] and len(bad) == 1 and bad[0].startswith("not valid JSON: Extra data")


def test_columns_without_a_name_are_called_by_their_number(tmp_path):
    (tmp_path / "a.csv").write_text(",text,\n1,x,y\n")
    assert [row for file in find([tmp_path / "a.csv"]) for _, _, row in rows(file)] == [
        {"column 1": "1", "text": "x", "column 3": "y"}]


def test_more_rows_than_a_file_can_mean_end_it(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"1\n" * 150_000))
    _, bad = read_all(tmp_path / "a.jsonl.gz")
    assert len(bad) == 100_001 and "more than 100,000 rows" in bad[-1]
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"\n" * 300_000 + LINES))
    found = [one for file in find([tmp_path / "a.jsonl.gz"]) for one in read(file)]
    assert [one.text for one in found] == [row["text"] for row in ROWS] and found[0].row == 300_001
