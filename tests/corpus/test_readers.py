"""Reading: every kind of file, and every way in which one can be bad."""

import bz2
import gzip
import io
import json
import lzma
import re
import tarfile
import zipfile

import pyarrow
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from trivium.data.plain_text import split_text
from trivium.data.readers import Document, Limits, Malformed, find, read
from trivium.errors import TriviumError

ROWS = [{"text": "First text."}, {"id": "b", "html": "<p>Second</p>", "url": "http://x.example/", "lang": "en"}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def items(path, **limits):
    return [item for file in find([path]) for item in read(file, Limits(**limits))]


def texts(path, **limits):
    found = items(path, **limits)
    assert all(isinstance(item, Document) for item in found), found
    return [item.text if item.html is None else item.html for item in found]


def reasons(path, **limits):
    return [item.reason for item in items(path, **limits) if isinstance(item, Malformed)]


def put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def tar_of(files, mode):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def zip_of(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


PACK = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
}


@pytest.mark.parametrize("suffix", ["", *PACK])
def test_json_lines(tmp_path, suffix):
    path = put(tmp_path / f"a.jsonl{suffix}", PACK.get(suffix, bytes)(LINES))
    first, second = items(path)
    assert (first.text, first.html, first.source, first.row) == ("First text.", None, path.name, 1)
    assert (second.id, second.html, second.url, second.metadata) == (
        "b",
        "<p>Second</p>",
        "http://x.example/",
        {"lang": "en"},
    )
    assert first.id == items(path)[0].id  # stable


def test_concatenated_members_are_one_file(tmp_path):
    for suffix, pack in PACK.items():
        assert len(items(put(tmp_path / f"a.jsonl{suffix}", pack(LINES) + pack(LINES)))) == 4


def test_json_list_object_and_lines(tmp_path):
    assert texts(put(tmp_path / "list.json", json.dumps([*ROWS, "bare"]))) == ["First text.", "<p>Second</p>", "bare"]
    assert texts(put(tmp_path / "one.json", json.dumps(ROWS[0], indent=2))) == ["First text."]
    assert texts(put(tmp_path / "lines.json", LINES)) == ["First text.", "<p>Second</p>"]


def test_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": ["one", None, "three"], "id": [7, 8, 9]}), path)
    found = items(path)
    assert [(item.id, item.text) for item in found if isinstance(item, Document)] == [("7", "one"), ("9", "three")]
    assert reasons(path) == ["no text: neither text nor html holds any"]
    parquet.write_table(pyarrow.table({"body": ["one"]}), path)
    assert reasons(path) == ["no column 'text' or 'html'; there are body; name one under fields"]
    assert reasons(put(path, path.read_bytes()[:-9]))[0].startswith("damaged Parquet")


def test_fields_of_other_names_beside_files_that_have_none(tmp_path):
    put(tmp_path / "in/a.jsonl",
        '{"content": "body", "text": "headline", "link": "http://x.example/"}\n{"text": "own"}\n{"title": 1}\n')
    put(tmp_path / "in/b.md", "# Notes")
    put(tmp_path / "in/c.html", "<p>page</p>")
    parquet.write_table(pyarrow.table({"link": ["http://y.example/"]}), tmp_path / "in/d.parquet")
    met, found = set(), []
    for file in find([tmp_path / "in"]):
        found += read(file, Limits(fields={"text": "content", "url": "link", "html": "page"}), met)
    assert [(item.text or item.html, item.url) for item in found if isinstance(item, Document)] == [
        ("body", "http://x.example/"), ("own", None), ("# Notes", None), ("<p>page</p>", None)]
    assert [item.reason for item in found if isinstance(item, Malformed)] == [
        "no text: neither text nor html holds any; the row has title; name the one to read under fields, as in "
        "{text: title}",
        "no column 'text' or 'html'; there are link; name one under fields"]
    assert met == {"content", "link"}


def test_one_document_a_file_and_folders_are_sorted(tmp_path):
    put(tmp_path / "in/b/page.html", "<p>page</p>")
    put(tmp_path / "in/a.md", "---\ntitle: No text\n---\n# Head\r\n\r\nBody")
    put(tmp_path / "in/c.txt", "\ufeffplain")
    put(tmp_path / "in/z.html.gz", gzip.compress(b"<p>packed</p>"))
    put(tmp_path / "in/.hidden/x.txt", "hidden")
    found = items(tmp_path / "in")
    assert [item.text or item.html for item in found] == ["# Head\n\nBody", "<p>page</p>", "plain", "<p>packed</p>"]
    assert {item.source for item in found} == {"in"}
    assert found[1].id.startswith("in/b/page.html:1#")
    assert texts(tmp_path / "in/**/*.html") == ["<p>page</p>"]
    assert len(find([tmp_path / "in", tmp_path / "in/c.txt"])) == 4  # named twice, read once


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz", "a.tar.zst", "a.zip"])
def test_archives(tmp_path, name):
    inside = {
        "x/one.txt": b"one",
        "two.jsonl": LINES,
        "three.html.gz": gzip.compress(b"<p>3</p>"),
        "four.pdf": b"%PDF",
        "five.tar": b"",
        "__MACOSX/six.txt": b"six",
    }
    data = (
        zip_of(inside)
        if name == "a.zip"
        else PACK[".zst"](tar_of(inside, "w"))
        if name.endswith("zst")
        else tar_of(inside, "w" if name == "a.tar" else "w:gz")
    )
    path = put(tmp_path / name, data)
    found = items(path)
    assert [item.text or item.html for item in found if isinstance(item, Document)] == [
        "one",
        "First text.",
        "<p>Second</p>",
        "<p>3</p>",
    ]
    assert [reason.partition(";")[0] for reason in reasons(path)] == [
        "not a kind of file known here (.pdf)", "an archive inside an archive is not opened"]
    assert found[0].id.startswith(f"{name}/x/one.txt:1#")
    assert [entry.name for entry in tmp_path.iterdir()] == [name]  # nothing was extracted


def test_links_in_archives_are_rejected(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert reasons(put(tmp_path / "a.tar", buffer.getvalue())) == ["a link or device in an archive, not a file"]


def test_bad_rows_are_rejected_and_the_others_read(tmp_path):
    bad = {
        b"{": "not valid JSON",
        b"[1]": "not an object",
        b'{"text": ""}': "no text",
        b'{"url": "x"}': "no text",
        b'{"text": ["a"]}': "no text",
        b'{"text": "a\\u0000b"}': "null byte in the text",
        b'{"text": "\\ud800"}': "invalid Unicode",
        b'{"text": "\xff"}': "invalid UTF-8",
        b"[" * 100_000: "not valid JSON",
        b'{"text": ' + b"9" * 5000 + b"}": "not valid JSON",
    }
    path = put(tmp_path / "a.jsonl", b"\n".join([b'\xef\xbb\xbf{"text": "first"}', *bad, b"", b'{"text": "last"}']))
    found = items(path)
    assert [item.text for item in found if isinstance(item, Document)] == ["first", "last"]
    rejects = [item for item in found if isinstance(item, Malformed)]
    assert [item.row for item in rejects] == list(range(2, 2 + len(bad)))
    for item, start in zip(rejects, bad.values(), strict=True):
        assert item.reason.startswith(start) and item.file == "a.jsonl"
        json.dumps(item.text).encode()


@pytest.mark.parametrize(
    ("name", "data", "start"),
    [
        ("a.txt", b"ok \xff", "invalid UTF-8: byte 3"),
        ("a.txt", b"nu\0ll", "null byte"),
        ("a.txt", b"", "empty file"),
        ("a.jsonl", b"", "empty file"),
        ("a.json", b"[{]", "not valid JSON"),
        ("a.jsonl.gz", b"not gzip at all", "damaged gz data"),
        ("a.jsonl.zst", b"not zstandard", "damaged zst data"),
        ("a.zip", b"PK\3\4 broken", "damaged zip archive"),
        ("a.tar", b"x" * 600, "damaged tar archive"),
        ("a.parquet", b"PAR1", "damaged Parquet"),
    ],
)
def test_bad_files_are_rejected(tmp_path, name, data, start):
    found = reasons(put(tmp_path / name, data))
    assert len(found) == 1 and found[0].startswith(start), found


@pytest.mark.parametrize("suffix", PACK)
def test_rows_before_a_truncation_are_kept(tmp_path, suffix):
    lines = b"".join(b'{"text": "%064x"}\n' % (n * 7919**20) for n in range(30_000 if suffix == ".bz2" else 12_000))
    data = PACK[suffix](lines)
    found = items(put(tmp_path / f"a.jsonl{suffix}", data[: len(data) * 2 // 3]))
    assert len(found) > 3_000 and all(isinstance(item, Document) for item in found[:-1])
    assert isinstance(found[-1], Malformed) and "truncated" in found[-1].reason and found[-1].row == len(found)


def test_declared_character_set(tmp_path):
    page = '<html><head><meta charset="gb2312"></head><body>中文网页</body></html>'
    assert texts(put(tmp_path / "a.html", page.encode("gb2312"))) == [page]
    assert texts(put(tmp_path / "b.html", page.encode())) == [page]  # UTF-8 whatever it says


@pytest.mark.parametrize(("charset", "text"), [
    ("shift_jis", "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。"),
    ("koi8-r", "Все счастливые семьи похожи друг на друга."),
    ("gb18030", "满纸荒唐言，一把辛酸泪。都云作者痴，谁解其中味。"), ("utf-16", "Plain words."),
    ("cp1251", "Каждая несчастливая семья несчастлива по-своему.")])
def test_undeclared_character_sets_are_told_from_the_bytes(tmp_path, charset, text):
    assert texts(put(tmp_path / "a.txt", (text * 3).encode(charset))) == [text * 3]
    assert texts(put(tmp_path / "a.html", f"<p>{text * 3}</p>".encode(charset))) == [f"<p>{text * 3}</p>"]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.txt.zst", "a.tar.gz", "a.zip", "a.jsonl.xz"])
def test_decompression_bombs_stop_at_the_limit(tmp_path, name):
    bomb = bytes(16 << 20)
    data = (
        tar_of({"a.txt": bomb}, "w:gz")
        if name == "a.tar.gz"
        else zip_of({"a.txt": bomb})
        if name == "a.zip"
        else PACK["." + name.split(".")[-1]](bomb)
    )
    found = reasons(put(tmp_path / name, data), max_unpacked_bytes=1 << 20)
    assert found and found[0].startswith("unpacks to more than 1,048,576 bytes"), found


def test_too_long_rows_and_files(tmp_path):
    path = put(tmp_path / "a.jsonl", b'{"text": "' + b"a" * 5000 + b'"}\n' + LINES)
    assert [type(item) for item in items(path, max_document_bytes=1000)] == [Malformed, Document, Document]
    assert reasons(put(tmp_path / "b.txt", "a" * 1001), max_document_bytes=1000)[0].startswith(
        "a file of more than 1,000"
    )


def test_too_long_pages_in_rows(tmp_path):
    rows = [{"html": "<p>é" + "e" * 1000}, {"html": "<p>é" + "e" * 995}, {"text": "a" * 2000}]
    path = put(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert [type(item) for item in items(path, max_page_bytes=1000)] == [Malformed, Document, Document]
    assert reasons(path, max_page_bytes=1000)[0].startswith("a page of more than 1,000 bytes")


def test_books_are_split_between_paragraphs(tmp_path):
    paragraphs = [f"Paragraph {n} " + "word " * 60 for n in range(100)]
    pieces = texts(put(tmp_path / "book.txt", "\n\n".join(paragraphs)), book_characters=2000)
    assert max(map(len, pieces)) <= 2000 and len(pieces) > 10
    assert all(piece.startswith("Paragraph") for piece in pieces)


@given(st.text(alphabet="ab。. \n", max_size=300), st.integers(1, 40))
def test_splitting_loses_nothing_but_white_space(text, limit):
    pieces = list(split_text(text, limit))
    assert all(0 < len(piece) <= limit for piece in pieces)
    assert re.sub(r"\s", "", "".join(pieces)) == re.sub(r"\s", "", text)


def test_missing_and_empty_inputs_are_errors(tmp_path):
    for path, message in (
        (tmp_path / "none.jsonl", "no such file"),
        (tmp_path / "*.jsonl", "holds no files"),
        (tmp_path, "holds no files"),
    ):
        with pytest.raises(TriviumError, match=re.escape(str(path)) + ".*" + message):
            find([path])
    with pytest.raises(TriviumError, match="no inputs"):
        find([])
    with pytest.raises(TriviumError, match="not a kind of file known here"):
        find([put(tmp_path / "a.docx", "x")])


def test_a_file_without_a_name_in_a_zip_is_refused_and_the_others_read(tmp_path):
    nameless = zipfile.ZipInfo("x")
    nameless.filename = ""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(nameless, "words without a name")
        archive.writestr("folder/", "")
        archive.writestr("b.txt", "other words")
    first, second = (one for file in find([tmp_path / "a.zip"]) for one in read(file, Limits()))
    assert isinstance(first, Malformed) and "not a kind of file known here" in first.reason
    assert isinstance(second, Document) and second.text == "other words"
