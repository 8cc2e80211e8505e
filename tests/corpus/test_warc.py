"""Web archives: whole, broken in every way, and mutated."""

import gzip
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium.data.readers import Document, InputFile, Limits, Malformed, read

PAGE = "<html><body><p>Grüße from a page.</p></body></html>"


def record(body, kind="response", uri="http://x.example/", content="application/http; msgtype=response",
           version="WARC/1.0"):
    return (f"{version}\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {uri}\r\nWARC-Record-ID: <urn:uuid:{len(body)}>\r\n"
            f"Content-Type: {content}\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body + b"\r\n\r\n"


def http(body, *headers, status="200 OK"):
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode() + body


HTML = "Content-Type: text/html; charset=utf-8"
GOOD = record(http(PAGE.encode(), HTML))


def items(tmp_path, data, name="a.warc", **limits):
    path = tmp_path / name
    path.write_bytes(data)
    return list(read(InputFile(path, name, "crawl"), Limits(**limits)))


def outcome(found):
    return [item.html or item.text if isinstance(item, Document) else item.reason for item in found]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("version", ["WARC/0.17", "WARC/1.1"])
def test_pages_texts_and_others(tmp_path, pack, version):
    records = [
        record(b"x: y\r\n", "warcinfo", content="application/warc-fields", version=version),
        record(b"GET / HTTP/1.0\r\n\r\n", "request", version=version),
        record(http(PAGE.encode(), HTML), version=version),
        record(http(b"GIF89a", "Content-Type: image/gif")),
        record(http(b"gone", HTML, status="404 Not Found")),
        record(http(b"plain words", "Content-Type: text/plain")),
        record(b"a text that was extracted", "conversion", content="text/plain"),
        record(PAGE.encode("utf-16"), "resource", content="text/html"),
    ]
    found = items(tmp_path, b"".join(map(pack, records)), "a.warc.gz" if pack is gzip.compress else "a.warc")
    assert outcome(found) == [
        PAGE, "not a page (image/gif)", "not a page: HTTP status 404", "plain words", "a text that was extracted", PAGE
    ]
    assert found[0].url == "http://x.example/" and found[0].id.startswith("urn:uuid") and found[0].row == 3


def test_transfer_and_content_encodings(tmp_path):
    data, chunks = PAGE.encode(), PAGE.encode("gb18030")
    chunked = b"5\r\n" + chunks[:5] + b"\r\n" + hex(len(chunks) -
                                                    5)[2:].encode() + b";x=y\r\n" + chunks[5:] + b"\r\n0\r\n\r\n"
    bodies = [
        http(gzip.compress(data), HTML, "Content-Encoding: gzip"),
        http(chunked, "Content-Type: text/html; charset=gb2312", "Transfer-Encoding: chunked"),
        http(data, HTML, "Transfer-Encoding: chunked"),  # which it is not
        http(data, HTML, "Content-Encoding: gzip"),
        http(b"\x1f\x8b broken", HTML, "Content-Encoding: gzip"),
        http(data, HTML, "Content-Encoding: br"),
        http(gzip.compress(bytes(1 << 20)), HTML, "Content-Encoding: gzip"),
    ]
    found = outcome(items(tmp_path, b"".join(map(record, bodies)), max_page_bytes=1 << 16))
    assert found[:4] == [PAGE] * 4
    assert found[4].startswith("damaged page") and found[5] == PAGE
    assert found[6].startswith("a page that unpacks to more than 65,536 bytes")


def test_a_broken_record_costs_no_other(tmp_path):
    length = GOOD.replace(b"Content-Length: ", b"Content-Length: 9")
    for broken in (b"garbage\r\n" * 50, length, GOOD.replace(b"Content-Length", b"Content-Size"), GOOD[:len(GOOD) // 2],
                   GOOD.replace(b"\r\n\r\n", b"\r\n", 1)):
        found = outcome(items(tmp_path, GOOD + broken + GOOD + GOOD))
        assert found.count(PAGE) >= 2 and found[-1] == PAGE, (broken[:80], found)
        assert len(found) > found.count(PAGE), "the fault is counted"
    packed = gzip.compress(GOOD)
    damaged = packed[:60] + bytes(20) + packed[80:]
    found = outcome(items(tmp_path, packed + damaged + packed, "a.warc.gz"))
    assert found.count(PAGE) == 2 and any("damaged gz" in reason for reason in found)
    found = outcome(items(tmp_path, packed + packed[:-30], "a.warc.gz"))
    assert found[0] == PAGE and "truncated gz data" in found[1]
    assert outcome(items(tmp_path, record(b"x" * 100), max_page_bytes=50))[0].startswith("a page of more than 50 bytes")
    assert outcome(items(tmp_path, b"filedesc://x.arc 0.0.0.0 1 text/plain 77\n"))[0].startswith("an ARC archive")


@given(st.integers(0, 10**9), st.booleans())
@settings(max_examples=60, deadline=None)
def test_mutations_never_crash_and_stay_counted(tmp_path_factory, seed, compressed):
    rng = random.Random(seed)
    records = [record(http(PAGE.encode() * rng.randint(1, 20), HTML)) for _ in range(4)]
    data = bytearray(b"".join(map(gzip.compress, records) if compressed else records))
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(len(data))
        rng.choice([
            lambda p: data.__setitem__(p, rng.randrange(256)),
            lambda p: data.__delitem__(slice(p, p + rng.randint(1, 99))), lambda p: data.insert(p, rng.randrange(256))
        ])(min(place,
               len(data) - 1))
        if not data:
            break
    found = items(tmp_path_factory.mktemp("w"), bytes(data), "a.warc.gz" if compressed else "a.warc")
    assert found and all(isinstance(item, (Document, Malformed)) for item in found)
