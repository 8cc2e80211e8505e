"""Web archives: the pages in WARC files (ISO 28500, and the drafts 0.17 and 0.18) and the texts in Common Crawl's WET
files.

Crawls are big and some of their records broken, so a fault costs no more than its own record: after damage, reading
goes on at the next line that begins a record, and in compressed files at the next member that can be unpacked.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import IO, Any

from trivium.data.content_codings import unpacked
from trivium.data.page_text import decode_page
from trivium.data.unpack import FETCH_AGAIN, PIECE, Bad, Budget
from trivium.errors import counted

_BEGINNING = re.compile(rb"WARC/\d\.\d+\r?\n\Z")
_BEGINNING_INSIDE = re.compile(rb"(?:^|\n)(WARC/\d\.\d+\r?\n)")
_GZIP = b"\x1f\x8b\x08"
_STATUS = re.compile(r"(?:HTTP(?:/[\d.]*)?|ICY)\s+(\d{3})(?!\d)", re.IGNORECASE)
_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
_PAGE = re.compile(
    rb"(?:\xef\xbb\xbf)?(?:\s+|<!--.*?-->|<\?xml[^>]*>)*<(?:!doctype\s+html|html|head|body|title|meta|script|style|iframe|h1|"
    rb"div|font|table|a|b|br|p)(?=[\s>/])", re.IGNORECASE | re.DOTALL)
"""What begins a page that nobody says to be one, as browsers look for it."""
_HEADER_BYTES = 1 << 16
AGAIN = 1 << 30
"""The most bytes of a file that are read again behind records whose length is wrong."""
PAGES = {"text/html", "application/xhtml+xml"}
HOLDERS = {"response", "resource", "conversion"}
"""The types of record that can hold a document; requests, metadata and revisits hold none."""


def warc_rows(stream: IO[bytes], compressed: bool, budget: Budget,
              limit: int) -> Iterator[tuple[int, dict[str, Any] | Bad]]:
    """``(record from 1, its document)`` for every record that may hold one; ``limit`` is the longest body in bytes.
    Redirects, error pages, pictures and the like come as :class:`Bad`, as do broken records."""
    source = _Source(_members(stream, budget) if compressed else _pieces(stream, budget))
    number, lost = 0, False
    while True:
        try:
            line = source.line()
        except Bad as bad:
            number, lost = number + 1, True
            yield number, bad
            continue
        if not line:
            return
        if not _BEGINNING.search(line):
            if line.strip() and not lost:
                number, lost = number + 1, True
                if number == 1 and line.startswith(b"filedesc:"):
                    raise Bad(
                        "an ARC archive, the format before WARC; "
                        "convert it with: warcio recompress IN.arc.gz OUT.warc.gz"
                    )
                yield number, Bad("damaged WARC: a record was expected here", line[:2000].decode("utf-8", "replace"))
            continue
        number, lost = number + 1, False
        try:
            row = _record(source, limit)
        except Bad as bad:
            yield number, bad
            lost = True
            continue
        if row is not None:
            yield number, row


def _record(source: _Source, limit: int) -> dict[str, Any] | Bad | None:
    """The document of one record, behind its first line; raises :class:`Bad` where the archive itself is damaged."""
    headers = _headers(source)
    size = headers.get("content-length", "")
    if not size.isascii() or not size.isdigit() or len(size) > 18:
        raise Bad(f"damaged WARC: Content-Length is {size[:40]!r}")
    kind, length = headers.get("warc-type", "").lower(), int(size)
    body = source.take(min(length, limit)) if kind in HOLDERS else b""
    left = source.skip(length - len(body))
    end = b"" if left else source.take(2)
    if end != b"\r\n":  # some writers leave the line's end out; a wrong length swallows what follows
        source.back(end)
        if left or (end.strip() and end != b"WA"):
            inside = _BEGINNING_INSIDE.search(body)
            if inside is not None and source.may_go_back(len(body)):
                source.back(body[inside.start(1):])
            raise Bad(
                f"truncated WARC: a record ends {counted(left, 'byte')} early"
                if left else "damaged WARC: a record's length is wrong", body[:2000].decode("utf-8", "replace"))
    if kind not in HOLDERS:
        return None
    url = headers.get("warc-target-uri", "").strip("<> ")
    if length > limit:
        return Bad(f"a page of more than {limit:,} bytes; raise max_page_bytes if it is meant to be", url)
    identity = {"id": headers["warc-record-id"].strip("<>")} if "warc-record-id" in headers else {}
    try:
        return {**identity, "url": url or None, **_document(body, headers, kind, limit)}
    except Bad as bad:
        return Bad(bad.reason, bad.text or url)


def _document(body: bytes, headers: dict[str, str], kind: str, limit: int) -> dict[str, str]:
    media = headers.get("content-type", "")
    if kind == "response" and media.lower().startswith("application/http"):
        head, separator, body = body.partition(b"\r\n\r\n")
        if not separator:
            head, separator, body = (head + body).partition(b"\n\n")
        if len(head) > _HEADER_BYTES:
            raise Bad("damaged WARC: a response's HTTP headers do not end")
        first, *lines = head.decode("latin-1").strip().splitlines() or [""]
        status = _STATUS.match(first)
        if not status:
            raise Bad("damaged WARC: a response without an HTTP status line")
        if not status[1].startswith("2"):
            raise Bad(f"not a page: HTTP status {status[1]}")
        http = _fields(lines)
        media = http.get("content-type", "")
        if "chunked" in http.get("transfer-encoding", "").lower():
            body = _unchunked(body)
        body = unpacked(body, http.get("content-encoding", ""), limit)
    elif kind == "response" and not media:
        raise Bad("not a page: no content type")
    essence = re.split(r"[;,\s]", media.strip(), maxsplit=1)[0].lower()
    charset = _CHARSET.search(media)
    if not essence and _PAGE.match(body[:1 << 16]):
        essence = "text/html"
    if essence in PAGES:
        return {"html": decode_page(body, charset[1] if charset else None)}
    if essence == "text/plain":
        return {"text": decode_page(body, charset[1] if charset else None, markup=False)}
    raise Bad(f"not a page ({essence[:80] or 'no content type'})")


def _unchunked(body: bytes) -> bytes:
    """Chunks put together; a crawler that wrote the body without its chunks is believed."""
    pieces: list[bytes] = []
    place = 0
    while place < len(body):
        end = body.find(b"\n", place, place + 1024)
        size = body[place:end].split(b";")[0].strip() if end >= 0 else b""
        if not re.fullmatch(rb"[0-9a-fA-F]{1,8}", size):
            return b"".join(pieces) if pieces else body
        start = end + 1
        if int(size, 16) == 0:
            break
        pieces.append(body[start:start + int(size, 16)])
        place = start + int(size, 16)
        place += 2 if body[place:place + 2] == b"\r\n" else 1
    return b"".join(pieces)


def _headers(source: _Source) -> dict[str, str]:
    lines, size = [], 0
    while (line := source.line()).strip():
        size += len(line)
        if size > _HEADER_BYTES:
            raise Bad("damaged WARC: a record's headers do not end")
        if _BEGINNING.search(line):
            source.back(line)
            raise Bad("damaged WARC: a record begins inside another's headers")
        lines.append(line.decode("utf-8", "replace"))
    if not line:
        raise Bad("truncated WARC: the file ends in a record's headers")
    return _fields(lines)


def _fields(lines: list[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip().lower(), value.strip())
    return fields


def _pieces(stream: IO[bytes], budget: Budget) -> Iterator[bytes | Bad]:
    while piece := stream.read(PIECE):
        budget.take(len(piece))
        yield piece


def _members(stream: IO[bytes], budget: Budget) -> Iterator[bytes | Bad]:
    """The unpacked bytes of one gzip member after another; damage comes as :class:`Bad`, and what follows is looked for
    from the next member's beginning on."""
    held = stream.read(PIECE)
    while held:
        unpacker = zlib.decompressobj(31)
        fault = ""
        try:
            while not unpacker.eof:
                piece = unpacker.decompress(held, PIECE)
                if piece:
                    budget.take(len(piece))
                    yield piece
                held = unpacker.unconsumed_tail
                if not held and not unpacker.eof:
                    held = stream.read(PIECE)
                    if not held:
                        if piece := unpacker.flush():
                            budget.take(len(piece))
                            yield piece
                        if not unpacker.eof:
                            yield Bad(f"truncated gz data{FETCH_AGAIN}")
                        return
        except zlib.error as error:
            fault = str(error)
        if not fault:
            held = unpacker.unused_data or stream.read(PIECE)
            while held and not held.strip(b"\0"):  # some writers pad
                held = stream.read(PIECE)
            continue
        yield Bad(f"damaged gz data: {fault}")
        held = held[1:] if held.startswith(_GZIP) else held
        while (place := held.find(_GZIP)) < 0:
            more = stream.read(PIECE)
            if not more:
                return
            held = held[-2:] + more
        held = held[place:]


class _Source:
    """Lines and bytes out of pieces. Damage between pieces is raised where it is met; reading can go on behind it."""

    def __init__(self, pieces: Iterator[bytes | Bad]) -> None:
        self.pieces, self.held, self.place = pieces, b"", 0
        self._again = AGAIN

    def may_go_back(self, count: int) -> bool:
        """Whether ``count`` bytes more may be read again: lengths that are all wrong would have a file read as often as
        it has records."""
        self._again -= count
        return self._again >= 0

    def _more(self) -> bool:
        piece = next(self.pieces, b"")
        if isinstance(piece, Bad):
            self.held, self.place = b"", 0
            raise piece
        self.held, self.place = self.held[self.place:] + piece, 0
        return bool(piece)

    def line(self) -> bytes:
        """The next line with its end, at most ``_HEADER_BYTES`` of it; empty at the end."""
        while True:
            end = self.held.find(b"\n", self.place, self.place + _HEADER_BYTES)
            if end < 0 and len(self.held) - self.place < _HEADER_BYTES and self._more():
                continue
            stop = end + 1 if end >= 0 else min(len(self.held), self.place + _HEADER_BYTES)
            found = self.held[self.place:stop]
            self.place = stop
            return found

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes, fewer at the end."""
        parts: list[bytes] = []
        while True:
            part = self.held[self.place:self.place + count]
            self.place += len(part)
            count -= len(part)
            parts.append(part)
            if not count:
                break
            try:
                if not self._more():
                    break
            except Bad as bad:
                raise Bad(bad.reason, b"".join(parts)[:2000].decode("utf-8", "replace")) from bad
        return b"".join(parts)

    def skip(self, count: int) -> int:
        """Pass over ``count`` bytes; how many were not there."""
        while count:
            step = min(count, len(self.held) - self.place)
            self.place, count = self.place + step, count - step
            if count and not self._more():
                break
        return count

    def back(self, data: bytes) -> None:
        """Put bytes back, to be read again."""
        self.held, self.place = data + self.held[self.place:], 0
