"""Small files that unpack to very much, each read in a process that may take a gibibyte of memory above its own.

    python benchmarks/bombs.py [--size MB] [--only NAME] [--folder DIR]

prints, for each bomb: its size, what the process took above what it had before, the processor's seconds, how many
documents and rejects came out, and the last reason that was given. It ends with status 1 where a bomb ended the
process or would have taken more than the gibibyte.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import io
import json
import lzma
import resource
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

ALLOWED = 1 << 30
SECONDS = 150
BLOCK = 1 << 20
Make = Callable[[Path, int], Path]
BOMBS: dict[str, Make] = {}


def bomb(make: Make) -> Make:
    """Note a function that writes a bomb of about ``size`` unpacked bytes into a folder and returns its path."""
    BOMBS[make.__name__] = make
    return make


def many(piece: bytes, size: int) -> Iterator[bytes]:
    """``piece`` again and again, in large blocks."""
    block = piece * max(1, BLOCK // len(piece))
    for _ in range(max(1, size // len(block))):
        yield block


def packed(path: Path, pieces: Iterable[bytes], opener: Callable[..., object] = gzip.open) -> Path:
    """Write pieces to a packed file."""
    options = {"compresslevel": 9} if opener is not lzma.open else {}
    with opener(path, "wb", **options) as file:  # type: ignore[attr-defined]
        for piece in pieces:
            file.write(piece)
    return path


# Rows

@bomb
def one_line_csv(folder: Path, size: int) -> Path:
    return packed(folder / "a.csv.gz", [b"text\n", *many(b"a", size)])


@bomb
def csv_of_commas(folder: Path, size: int) -> Path:
    return packed(folder / "a.csv.gz", [b"text,id\n", *many(b",", size), b"\nx,y\n"])


@bomb
def csv_head_of_commas(folder: Path, size: int) -> Path:
    return packed(folder / "a.csv.gz", many(b",", size))


@bomb
def csv_of_line_ends(folder: Path, size: int) -> Path:
    return packed(folder / "a.csv.gz", [b"text,id\n", *many(b"\n", size), b"x,y\n"])


@bomb
def csv_quote_over_lines(folder: Path, size: int) -> Path:
    return packed(folder / "a.csv.gz", [b'text,id\n"', *many(b"\n", size)])


@bomb
def one_line_json(folder: Path, size: int) -> Path:
    return packed(folder / "a.jsonl.gz", [b'{"text": "', *many(b"a", size), b'"}\n{"text": "behind it"}\n'])


@bomb
def json_of_line_ends(folder: Path, size: int) -> Path:
    return packed(folder / "a.jsonl.gz", [*many(b"\n", size), b'{"text": "behind it"}\n'])


@bomb
def json_of_tiny_rows(folder: Path, size: int) -> Path:
    return packed(folder / "a.jsonl.gz", many(b"1\n", size))


@bomb
def json_of_equal_rows(folder: Path, size: int) -> Path:
    return packed(folder / "a.jsonl.gz", many(b'{"text":"a"}\n', size))


@bomb
def json_of_lists(folder: Path, size: int) -> Path:
    return packed(folder / "a.jsonl.gz", [b'{"text": "x", "m": [', *many(b"[],", 60 << 20), b'[]]}\n{"text": "y"}\n'])


@bomb
def json_nested_a_million_deep(folder: Path, size: int) -> Path:
    return packed(folder / "a.jsonl.gz", [b'{"text": ', b"[" * 10**6, b"]" * 10**6, b'}\n{"text": "behind it"}\n'])


@bomb
def json_object_without_end(folder: Path, size: int) -> Path:
    return packed(folder / "a.json.gz", [b"{", *many(b'"a": {}, ', size)])


@bomb
def json_list_of_one_list(folder: Path, size: int) -> Path:
    return packed(folder / "a.json.gz", [b"[", *many(b"[],", size)])


@bomb
def json_text_of_wide_characters(folder: Path, size: int) -> Path:
    return packed(folder / "a.jsonl.gz", [b'{"text": "\xf0\x9f\x8c\xb3', *many(b"a", min(size, 60 << 20)), b'"}\n'])


# Packed streams

@bomb
def zst_of_zeros(folder: Path, size: int) -> Path:
    import zstandard
    return packed(folder / "a.txt.zst", many(b"\0", size), lambda path, mode, **_: zstandard.open(path, mode))


@bomb
def zst_that_wants_a_window_of_two_gigabytes(folder: Path, size: int) -> Path:
    import zstandard
    about = zstandard.ZstdCompressionParameters.from_level(3, window_log=31)
    packer = zstandard.ZstdCompressor(compression_params=about).compressobj()
    data = b"".join(packer.compress(piece) for piece in many(b'{"text": "a"}\n', size)) + packer.flush()
    (folder / "a.jsonl.zst").write_bytes(data)
    return folder / "a.jsonl.zst"


@bomb
def xz_that_wants_a_dictionary_of_a_gigabyte(folder: Path, size: int) -> Path:
    data = bytearray(lzma.compress(b'{"text": "a"}\n' * 100, check=lzma.CHECK_NONE))
    place = data.index(b"\x21\x01", 12)  # LZMA2, one byte of settings: the dictionary's size
    data[place + 2] = 36  # a gibibyte
    start, length = 12, (data[12] + 1) * 4
    import zlib
    data[start + length - 4:start + length] = struct.pack("<I", zlib.crc32(bytes(data[start:start + length - 4])))
    (folder / "a.jsonl.xz").write_bytes(data)
    return folder / "a.jsonl.xz"


@bomb
def bz2_of_one_line(folder: Path, size: int) -> Path:
    return packed(folder / "a.jsonl.bz2", many(b"a", size), bz2.open)


@bomb
def html_page_of_zeros(folder: Path, size: int) -> Path:
    return packed(folder / "a.html.gz", many(b"<p>", size))


# Archives

def tar_of(path: Path, kind: bytes, size: int, body: bytes = b"a") -> Path:
    entry = tarfile.TarInfo("././@LongLink")
    entry.type, entry.size = kind, size // BLOCK * BLOCK
    behind = tarfile.TarInfo("behind.txt")
    behind.size = 5
    return packed(path, [entry.tobuf(tarfile.USTAR_FORMAT), *many(body, entry.size), behind.tobuf(), b"hello".ljust(
        512, b"\0"), bytes(1024)])


@bomb
def tar_with_a_long_name(folder: Path, size: int) -> Path:
    return tar_of(folder / "a.tar.gz", tarfile.GNUTYPE_LONGNAME, size)


@bomb
def tar_with_a_long_pax_header(folder: Path, size: int) -> Path:
    return tar_of(folder / "a.tar.gz", tarfile.XHDTYPE, size)


@bomb
def tar_of_empty_files(folder: Path, size: int) -> Path:
    return packed(folder / "a.tar.gz", many(tarfile.TarInfo("empty.txt").tobuf(), size))


@bomb
def tar_with_an_exabyte_of_holes(folder: Path, size: int) -> Path:
    entry = tarfile.TarInfo("holes.jsonl")
    entry.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": str(1 << 60),
                         "GNU.sparse.realsize": str(1 << 60), "GNU.sparse.map": f"{(1 << 60) - 512},512",
                         "GNU.sparse.name": "holes.jsonl"}
    entry.size = 512
    behind = tarfile.TarInfo("behind.txt")
    behind.size = 5
    (folder / "a.tar").write_bytes(entry.tobuf(tarfile.PAX_FORMAT) + bytes(512) + behind.tobuf() + b"hello".ljust(
        512, b"\0") + bytes(1024))
    return folder / "a.tar"


@bomb
def tar_of_zeros(folder: Path, size: int) -> Path:
    return packed(folder / "a.tar.gz", many(b"\0", size))


@bomb
def zip_of_one_long_line(folder: Path, size: int) -> Path:
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("a.jsonl", "w") as file:
            for piece in many(b"a", size):
                file.write(piece)
        archive.writestr("b.jsonl", '{"text": "behind it"}\n')
    return folder / "a.zip"


@bomb
def archives_in_archives(folder: Path, size: int) -> Path:
    data = gzip.compress(b"a" * (size // 8))
    for _ in range(4):
        inner = io.BytesIO()
        with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
            for number in range(8):
                archive.writestr(f"{number}.zip", data)
        data = inner.getvalue()
    (folder / "a.zip").write_bytes(data)
    return folder / "a.zip"


@bomb
def warc_with_lengths_that_lie(folder: Path, size: int) -> Path:
    record = b"WARC/1.0\r\nWARC-Type: resource\r\nContent-Length: 99999999999\r\n\r\n"
    return packed(folder / "a.warc.gz", many(record, size // 10))


# Tables

@bomb
def parquet_dictionary(folder: Path, size: int) -> Path:
    import pyarrow as pa
    from pyarrow import parquet
    table = pa.table({"text": pa.array(["a" * (4 << 20)] * max(1, size >> 22))})
    parquet.write_table(table, folder / "a.parquet", compression="zstd", dictionary_pagesize_limit=1 << 30)
    return folder / "a.parquet"


@bomb
def parquet_of_one_long_list(folder: Path, size: int) -> Path:
    import pyarrow as pa
    from pyarrow import parquet
    words = pa.DictionaryArray.from_arrays(pa.array([0] * (size >> 10), pa.int32()), pa.array(["a" * (1 << 20)]))
    table = pa.table({"text": pa.ListArray.from_arrays(pa.array([0, len(words)], pa.int32()), words)})
    parquet.write_table(table, folder / "a.parquet", compression="zstd")
    return folder / "a.parquet"


@bomb
def parquet_of_equal_numbers(folder: Path, size: int) -> Path:
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet
    parquet.write_table(pa.table({"text": pa.array(np.zeros(size >> 2, np.int32))}), folder / "a.parquet")
    return folder / "a.parquet"


@bomb
def parquet_of_one_value(folder: Path, size: int) -> Path:
    import pyarrow as pa
    from pyarrow import parquet
    table = pa.table({"text": ["a" * size]})
    parquet.write_table(table, folder / "a.parquet", compression="zstd", use_dictionary=False)
    return folder / "a.parquet"


@bomb
def arrow_packed(folder: Path, size: int) -> Path:
    import pyarrow as pa
    from pyarrow import ipc
    table = pa.table({"text": pa.array(["a" * (4 << 20)] * max(1, size >> 22))})
    with ipc.new_file(str(folder / "a.arrow"), table.schema, options=ipc.IpcWriteOptions(compression="zstd")) as file:
        file.write_table(table)
    return folder / "a.arrow"


@bomb
def arrow_dictionary(folder: Path, size: int) -> Path:
    import pyarrow as pa
    from pyarrow import ipc
    words = pa.DictionaryArray.from_arrays(pa.array([0] * (size >> 18), pa.int32()), pa.array(["a" * (1 << 20)]))
    table = pa.table({"text": words})
    with ipc.new_stream(str(folder / "a.arrow"), table.schema) as file:
        file.write_table(table)
    return folder / "a.arrow"


SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


def workbook(path: Path, sheet: Iterable[bytes] = (), strings: Iterable[bytes] = ()) -> Path:
    """An Excel workbook whose sheet and table of texts hold what is given."""
    import openpyxl
    small = io.BytesIO()
    book = openpyxl.Workbook()
    book.active.append(["text"])
    book.save(small)
    with zipfile.ZipFile(small) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        texts = (b'<Override PartName="/xl/sharedStrings.xml" ContentType="application/vnd.openxmlformats-'
                 b'officedocument.spreadsheetml.sharedStrings+xml"/></Types>')
        for part in old.infolist():
            with new.open(part.filename, "w") as file:
                for piece in (part.filename.endswith("sheet1.xml") and sheet) or [old.read(part)]:
                    file.write(piece.replace(b"</Types>", texts))
        with new.open("xl/sharedStrings.xml", "w") as file:
            for piece in strings or [f'<sst xmlns="{SHEET}"/>'.encode()]:
                file.write(piece)
    return path


@bomb
def excel_of_texts(folder: Path, size: int) -> Path:
    return workbook(folder / "a.xlsx", strings=iter([f'<sst xmlns="{SHEET}">'.encode(), *many(
        b"<si><t>a</t></si>", size), b"</sst>"]))


@bomb
def excel_of_texts_within_the_limit(folder: Path, size: int) -> Path:
    return workbook(folder / "a.xlsx", strings=iter([f'<sst xmlns="{SHEET}">'.encode(), *many(
        b"<si><t/></si>", 60 << 20), b"</sst>"]))


@bomb
def excel_of_one_wide_row(folder: Path, size: int) -> Path:
    return workbook(folder / "a.xlsx", iter([f'<worksheet xmlns="{SHEET}"><sheetData><row r="1">'.encode(), *many(
        b"<c/>", size), b"</row></sheetData></worksheet>"]))


@bomb
def excel_of_a_trillion_rows(folder: Path, size: int) -> Path:
    return workbook(folder / "a.xlsx", iter([(
        f'<worksheet xmlns="{SHEET}"><dimension ref="A1:XFD1048576"/><sheetData><row r="1"><c t="inlineStr"><is><t>text'
        '</t></is></c></row><row r="1000000000000"><c r="A1000000000000"><v>1</v></c></row></sheetData></worksheet>'
        ).encode()]))


@bomb
def excel_of_entities(folder: Path, size: int) -> Path:
    entities = '<!ENTITY a "' + "a" * 1000 + '">' + "".join(
        f'<!ENTITY {name} "{f"&{before};" * 100}">' for before, name in zip("abcd", "bcde"))
    return workbook(folder / "a.xlsx", strings=iter([(f'<?xml version="1.0"?><!DOCTYPE sst [{entities}]>'
                    f'<sst xmlns="{SHEET}"><si><t>&e;</t></si></sst>').encode()]))


def vm(name: str) -> int:
    """A figure of this process, in bytes."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name)) * 1024


def read_alone(path: Path) -> None:
    """Read a file within the bound, and print what came of it."""
    import openpyxl  # noqa: F401  all that readers import, so that only reading is measured
    import pyarrow.ipc
    import pyarrow.parquet
    import zstandard  # noqa: F401
    from resiliparse.parse.encoding import detect_encoding

    from trivium.data.readers import Document, find, read
    detect_encoding(b"a")
    small = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"]}), small)
    pyarrow.parquet.read_table(small)  # Arrow reserves a gibibyte of addresses when it is first used
    before = vm("VmRSS")
    bound = vm("VmSize") + ALLOWED
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    documents = rejects = 0
    reason, start = "", time.process_time()
    for file in find([path]):
        for one in read(file):
            documents += isinstance(one, Document)
            if not isinstance(one, Document):
                rejects, reason = rejects + 1, one.reason
            del one
    print(json.dumps({"peak": vm("VmHWM") - before, "seconds": time.process_time() - start, "documents": documents,
                      "rejects": rejects, "reason": reason}))


def main() -> int:
    """Make the bombs, read each in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=600, help="megabytes that most of them unpack to")
    parser.add_argument("--only", action="append", help="a bomb's name; repeatable")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read:
        read_alone(given.read)
        return 0
    print("| bomb | bytes | peak MB | seconds | documents | rejects | reason |\n|---|---|---|---|---|---|---|")
    failed = 0
    for name, make in BOMBS.items():
        if given.only and name not in given.only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = make(Path(folder), given.size << 20)
            try:
                done = subprocess.run([sys.executable, __file__, "--read", str(path)], capture_output=True, text=True,
                                      timeout=SECONDS)
                found = json.loads(done.stdout)
            except (subprocess.TimeoutExpired, ValueError) as error:
                said = done.stderr.strip().splitlines()[-1:] if isinstance(error, ValueError) else [f"{SECONDS} s"]
                found = {"peak": 0, "seconds": 0, "documents": 0, "rejects": 0, "reason": f"FAILED: {said}"}
            failed += found["reason"].startswith(("FAILED", "needs more memory"))
            print(f"| {name.replace('_', ' ')} | {path.stat().st_size:,} | {found['peak'] / 2**20:.0f} | "
                  f"{found['seconds']:.1f} | {found['documents']:,} | {found['rejects']:,} | {found['reason'][:110]} |",
                  flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
