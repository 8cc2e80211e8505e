"""Which character set a file of rows is written in, and its bytes as UTF-8."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from typing import IO

from trivium.data.plain_text import nearly_utf8, superset
from trivium.data.unpack import PIECE, Stream
from trivium.errors import TriviumError, extra

HEAD = 8 << 20
"""Bytes of a stream that cannot be read twice by which its character set is told; of a file all are looked at."""
SAMPLE = 1 << 20
TELLING = 24
"""Bytes beyond ASCII that a guess needs; Chinese, whose bytes are told apart more safely, does with a third."""

codecs.register_error("trivium-bad-byte", lambda error: ("\udc80", error.end))  # type: ignore[attr-defined]


def check_encoding(name: str) -> str:
    """The name of a character set as given. Raises :class:`TriviumError` for one that Python does not know."""
    try:
        if codecs.lookup(name)._is_text_encoding:
            return name
    except (LookupError, ValueError):
        pass
    raise TriviumError(f"there is no character set {name!r}; there are utf-8, gb18030, gbk, big5, utf-16, cp1252, ...")


def as_utf8(stream: IO[bytes], encoding: str | None = None) -> tuple[IO[bytes], str]:
    """A stream of the same text in UTF-8, and the character set that it was read with: ``encoding``, or the one that
    byte-order mark and bytes tell. Bytes that are none of that set come out as the byte 0x80, which is no UTF-8, so
    that the row that holds them is told from the others."""
    if encoding is None:
        encoding, stream = _told(stream)
    name = codecs.lookup(superset(encoding)).name
    if name in ("utf-8", "utf-8-sig"):
        return stream, "utf-8"
    decoder = codecs.getincrementaldecoder(name)("trivium-bad-byte")

    def pieces() -> Iterator[bytes]:
        while piece := stream.read(PIECE):
            if text := decoder.decode(piece):
                yield text.encode("utf-8", "surrogateescape")
        if text := decoder.decode(b"", True):
            yield text.encode("utf-8", "surrogateescape")

    return io.BufferedReader(Stream(pieces()), PIECE), name  # type: ignore[type-var]


def is_file(stream: IO[bytes]) -> bool:
    """Whether a stream is a file on the disk, that can be read from its start again."""
    return isinstance(stream, io.BytesIO) or (
        isinstance(stream, io.BufferedReader) and isinstance(stream.raw, io.FileIO))


def _told(stream: IO[bytes]) -> tuple[str, IO[bytes]]:
    """The character set that a stream seems to be written in, and the stream from its start."""
    if is_file(stream):
        found = _look(stream)
        stream.seek(0)
        return found, stream
    head = stream.read(HEAD)

    def pieces() -> Iterator[bytes]:
        yield head
        while piece := stream.read(PIECE):
            yield piece

    found = _look(io.BytesIO(head), len(head) == HEAD)
    return found, io.BufferedReader(Stream(pieces()), PIECE)  # type: ignore[type-var]


def _look(stream: IO[bytes], cut: bool = False) -> str:
    """The character set of a file; where it is ``cut``, its last character may lack bytes."""
    start = stream.read(4000)
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if 5 * start.count(0) > len(start) > 3:  # ASCII is written with a null byte in front or behind
        return "utf-16-be" if start[::2].count(0) > start[1::2].count(0) else "utf-16-le"
    decoder = codecs.getincrementaldecoder("utf-8")()
    stream.seek(0)
    try:
        while piece := stream.read(PIECE):
            decoder.decode(piece)
        decoder.decode(b"", not cut)
    except UnicodeDecodeError:
        stream.seek(0)
        return _guess(stream) or "utf-8"
    return "utf-8"


def _guess(stream: IO[bytes]) -> str | None:
    """What a text that is no UTF-8 is written in; None where too little tells it, where most of it is UTF-8 with a few
    bad bytes, and where lines of several sets stand side by side: a guess would turn all of it into gibberish."""
    lines: list[bytes] = []
    size = 0
    while size < SAMPLE and (line := stream.readline(SAMPLE)):
        if not line.isascii():
            lines.append(line)
            size += len(line)
    sample = b"".join(lines)
    if nearly_utf8(sample) or any(_is_utf8(line) for line in lines):
        return None
    with extra("corpus"):
        from resiliparse.parse.encoding import detect_encoding

    found: str | None = detect_encoding(sample, max_len=1 << 17, from_html_meta=False)
    telling = sum(byte > 0x7F for byte in sample)
    if found is None or found.lower().startswith("utf"):
        return None
    if superset(found) == "gb18030":
        return "gb18030" if telling >= TELLING // 3 and _plain_chinese(sample) else None
    return found if telling >= TELLING else None


def _is_utf8(line: bytes) -> bool:
    """Whether a line is valid UTF-8 with more than two characters beyond ASCII, which chance does not make."""
    try:
        return sum(character > "\x7f" for character in line.decode()) > 2
    except UnicodeDecodeError:
        return False


def _plain_chinese(data: bytes) -> bool:
    """Whether nearly all pairs of bytes are of GB2312, the characters in everyday use."""
    text = data.decode("gb18030", "replace")
    wide = [character for character in text if character > "\x7f"]
    common = sum(_in_gb2312(character) for character in wide)
    return bool(wide) and 10 * common >= 8 * len(wide)


def _in_gb2312(character: str) -> bool:
    try:
        character.encode("gb2312")
    except UnicodeEncodeError:
        return False
    return True
