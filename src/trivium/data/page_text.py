"""The text of web pages: which character set their bytes are in, where servers, pages and bytes tell different things.

Browsers believe a byte-order mark, the server, the page, and guess last. So does this, but for what the bytes deny:
valid UTF-8 is UTF-8 whatever it is called, and a set in which many bytes make no character is not the one. A few bad
bytes never lose a page.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from trivium.data.charsets import BAD, decoded, named
from trivium.data.encodings import everyday_chinese
from trivium.data.unpack import Bad
from trivium.errors import extra

_META = re.compile(rb"""<meta[^>]{0,400}?charset\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
_XML = re.compile(rb"""\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']\s*([\w.:-]+)""", re.IGNORECASE)
_COMMENT = re.compile(rb"<!--.*?(?:-->|\Z)", re.DOTALL)
_MARKUP = re.compile(rb"<(script|style)\b.*?</\1|<[^>]*>", re.IGNORECASE | re.DOTALL)
_ASCII_LETTERS = re.compile(rb"[A-Za-z]")
_ASCII = bytes(range(0x80))
HEAD = 4096
"""Bytes of a page in which it may name its character set."""
TELLING = 24
"""Bytes beyond ASCII that a guess needs; everyday Chinese is told from a third."""


def decode_page(data: bytes, charset: str | None = None, markup: bool = True) -> str:
    """A page's text; ``charset`` is what its server says of it. Each character that its bytes do not hold whole becomes
    a :data:`BAD`. ``markup``: whether the page may name a character set itself. Raises :class:`Bad` for UTF-8 of which
    a hundredth and more is broken."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    start = data[:HEAD]
    if 5 * start.count(0) > len(start) > 3:  # ASCII is written with a null byte in front or behind
        return data.decode("utf-16-be" if start[::2].count(0) > start[1::2].count(0) else "utf-16-le", "replace")
    declared = list(dict.fromkeys(_declared(data, charset, markup)))
    for name in declared:
        if name.startswith("utf-16") and "<" in (text := data.decode(name, "replace")):
            return text
    if b"\x1b" in data or b"~{" in data:  # these sets are written in ASCII alone, which is valid UTF-8 as well
        for name in declared:
            if name.startswith(("iso2022", "hz")):
                return decoded(data, name)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if (nearly := _nearly_utf8(data, error.start)) is not None:
            return nearly
    for name in declared:
        if name != "windows-1252" or not _is_foreign(data):
            text = decoded(data, name)
            if _fits(text):
                return text
    found = _detected(data)
    if found is not None and _fits(text := decoded(data, found)):
        return text
    return decoded(data, "windows-1252")


def _declared(data: bytes, charset: str | None, markup: bool) -> Iterator[str]:
    """The codecs of the sets that a page is said to be in, the likeliest first. Servers say ISO-8859-1 of everything
    unless told otherwise, so a page that names another set knows better."""
    server = charset and named(charset)
    own = []
    if markup:
        head = _COMMENT.sub(b"", data[:HEAD])
        for found in (_META.search(head), _XML.match(data[:HEAD].removeprefix(codecs.BOM_UTF8))):
            name = found and named(found[1].decode())
            if name:  # a page of UTF-16 could not be read as far as this
                own.append("utf-8" if name.startswith("utf") else
                           "windows-1252" if name == "x-user-defined" else name)
    if server == "windows-1252":
        yield from (name for name in own if name not in ("utf-8", server))
    if server:
        yield server
    yield from own


def _nearly_utf8(data: bytes, place: int) -> str | None:
    """A text of which most is valid UTF-8."""
    text = data.decode("utf-8", "replace").removeprefix("\ufeff")
    bad = text.count(BAD)
    good = len(text) - bad - _ascii(text)
    if bad > good:
        return None
    if bad > 10 and 100 * bad > len(text):
        raise Bad(f"invalid UTF-8: byte {place}, and {bad - 1:,} others in {len(text):,} characters; "
                  "convert it to UTF-8", text[:4000])
    return text


def _ascii(text: str) -> int:
    return len(text.encode("ascii", "ignore"))


def _fits(text: str) -> bool:
    """Whether most that is not ASCII could be read."""
    bad = text.count(BAD)
    return bad <= 1 or 5 * bad <= len(text) - _ascii(text)


def _is_foreign(data: bytes) -> bool:
    """Whether so many bytes are beyond ASCII that the text can be in none of the languages of Western Europe."""
    text = _MARKUP.sub(b"", data[:1 << 18])
    high = len(text.translate(None, _ASCII))
    return high >= TELLING and high > len(_ASCII_LETTERS.findall(text))


def _detected(data: bytes) -> str | None:
    """The codec of the set that the bytes look like; too few bytes beyond ASCII tell nothing."""
    with extra("corpus"):
        from resiliparse.parse.encoding import detect_encoding

    start = data[:1 << 20]
    telling = len(start.translate(None, _ASCII))
    if telling < TELLING:
        return "gb18030" if 3 * telling >= TELLING and everyday_chinese(start) else None
    found: str | None = detect_encoding(start, max_len=1 << 17, from_html_meta=False)
    return None if found is None or found.lower().startswith("utf") else named(found)
