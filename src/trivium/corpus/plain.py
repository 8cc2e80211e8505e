"""Bytes to text, and long texts to pieces."""

from __future__ import annotations

import re
from collections.abc import Iterator

from trivium.corpus.unpack import Bad

_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n.*?\n(---|\.\.\.)[ \t]*\n", re.DOTALL)


def decode(data: bytes) -> str:
    """UTF-8, with or without a byte-order mark."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Bad(f"invalid UTF-8: byte {error.start}", data[:4000].decode("utf-8", "replace")) from error


def decode_html(data: bytes) -> str:
    """A page's text by UTF-8 or, where that fails, by the character set that the page itself names."""
    declared = _CHARSET.search(data[:4096])
    if declared is not None and not declared[1].lower().startswith(b"utf"):
        try:
            data.decode("utf-8-sig")
        except UnicodeDecodeError:
            try:
                return data.decode(declared[1].decode())
            except (LookupError, UnicodeError):
                pass
    return decode(data)


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
