"""Bytes to text, and long texts to pieces."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from trivium.data.unpack import Bad
from trivium.errors import extra

_TELLING_BYTES = 24
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n.*?\n(---|\.\.\.)[ \t]*\n", re.DOTALL)


def decode(data: bytes, charset: str | None = None) -> str:
    """A plain text: UTF-8 or UTF-16 by its byte-order mark, UTF-8, the character set it was sent with, or the one that
    its bytes betray. Damaged UTF-8 raises :class:`Bad`: guessing would turn all of it into gibberish."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _strictly(data, "utf-16") or _refuse(data, 0)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        for name in (charset, None if nearly_utf8(data) else _detected(data)):
            if name and (text := _strictly(data, name)) is not None:
                return text
        return _refuse(data, error.start)


_SUPERSETS = {
    "gb2312": "gb18030", "gbk": "gb18030", "x-gbk": "gb18030", "iso-8859-1": "cp1252", "latin1": "cp1252",
    "latin-1": "cp1252", "us-ascii": "cp1252", "ascii": "cp1252", "big5": "big5hkscs", "shift_jis": "cp932",
    "x-sjis": "cp932", "sjis": "cp932", "euc-kr": "cp949", "ks_c_5601-1987": "cp949", "iso-8859-9": "cp1254",
    "tis-620": "cp874", "iso-8859-11": "cp874", "x-euc-jp": "euc_jp"
}
"""Browsers read these names as the larger sets that pages really use (the WHATWG's table of encodings)."""


def superset(charset: str) -> str:
    """The name of the larger set that a character set's name really stands for."""
    return _SUPERSETS.get(charset.strip().lower(), charset.strip().lower())


def _strictly(data: bytes, charset: str) -> str | None:
    name = superset(charset)
    try:
        if codecs.lookup(name)._is_text_encoding:
            return data.decode(name)
    except (LookupError, UnicodeError, ValueError):
        pass
    return None


def nearly_utf8(data: bytes) -> bool:
    """Whether most of what is not ASCII is valid UTF-8."""
    start = data[:1 << 20].decode("utf-8", "replace")
    bad = start.count("\ufffd")
    return 2 * bad < sum(character > "\x7f" for character in start)


def _detected(data: bytes) -> str | None:
    """The character set that the bytes of a text look like; too few bytes beyond ASCII tell nothing."""
    with extra("corpus"):
        from resiliparse.parse.encoding import detect_encoding

    start = data[:1 << 20]
    if sum(byte > 0x7F for byte in start) < _TELLING_BYTES:
        return None
    found: str | None = detect_encoding(start, max_len=1 << 17, from_html_meta=False)
    return None if found is None or found.lower().startswith("utf") else found


def _refuse(data: bytes, place: int) -> str:
    raise Bad(f"invalid UTF-8: byte {place}, and no other character set fits; convert it to UTF-8",
              data[:4000].decode("utf-8", "replace"))


def split_text(text: str, limit: int) -> Iterator[str]:
    """Pieces of at most ``limit`` characters, cut between paragraphs where there are any to cut between, else between
    lines, sentences, words, and only then anywhere. All the pieces together hold all of the text but the white space at
    the cuts."""
    start, end = 0, len(text)
    while start < end:
        stop = min(start + limit, end)
        if stop < end:
            for separator in ("\n\n", "\n", ". ", "。", " "):
                cut = text.rfind(separator, start, stop)
                if cut > start + limit // 4:  # a cut near the start would make crumbs
                    stop = cut + len(separator)
                    break
        if piece := text[start:stop].strip():
            yield piece
        start = stop


def without_front_matter(markdown: str) -> str:
    """Markdown without the YAML block that blogs and site generators put before it."""
    return _FRONT_MATTER.sub("", markdown, count=1)


def newlines(text: str) -> str:
    """Every line's end as a line feed."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def is_text(value: str) -> bool:
    """Whether it can be written as UTF-8: JSON may spell half of a surrogate pair."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
