"""The two extractors, as they run in the process of :mod:`trivium.corpus.killable`."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import lru_cache

from trivium.corpus.killable import Stopped
from trivium.corpus.page_trees import StandIns, TooDeep, tree_of
from trivium.errors import extra


@lru_cache(maxsize=1)
def load() -> None:
    """Import both libraries, which no page's time shall be counted for."""
    with extra("corpus"):
        import trafilatura  # noqa: F401
    # its parsers' complaints about single pages would drown the run's own messages
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)


def attempted(name: str, html: str, url: str | None, depth: int) -> str | None:
    """The text that an extractor finds in a page, if any; raises :class:`Stopped` for one that is too deep for it."""
    try:
        text = EXTRACTORS[name](html, url, depth)
    except TooDeep:
        raise Stopped("too_deep") from None
    except Exception as error:
        logging.getLogger(__name__).debug("%s failed: %s", name, type(error).__name__)
        return None
    return tidy(text) or None if text else None


def tidy(text: str) -> str:
    """No null bytes, nothing that stands for a broken character, no white space at lines' ends, and no more than one
    empty line in a row."""
    lines: list[str] = []
    for line in text.replace("\0", "").replace("\ufffd", "").splitlines():
        line = line.rstrip()
        if line or (lines and lines[-1]):
            lines.append(line)
    return "\n".join(lines).strip()


def _trafilatura(html: str, url: str | None, depth: int) -> str | None:
    import trafilatura

    stand_ins = StandIns(html)
    tree = tree_of(stand_ins.keep(html), depth, stand_ins)
    text: str | None = None
    if tree is not None:
        text = trafilatura.extract(tree, url=url, fast=True, include_comments=False)
    return stand_ins.restore(text) if text else None


SMALL = 1 << 16
"""Characters of a page below which the fast extractor's losses are mended."""
_TEX = re.compile(r"<script[^>]*math/tex[^>]*>([^<]*)</script\s*>", re.IGNORECASE)


def _resiliparse(html: str, url: str | None, depth: int) -> str | None:
    """It takes lists near the top of a page for menus. In small pages, where looking costs little, the main parts are
    moved away from there, and so are the bodies of pages that have hardly any parts."""
    from resiliparse.extract.html2text import extract_plain_text

    if len(html) < SMALL:
        parts = [tag for tag in ("<main", "<article") if tag in html]
        for tag in parts or ([] if html.count("<div") > 2 else ["<body"]):
            before, *inside = html.split(tag)
            html = tag.join([before, *(part.replace(">", "><div><div><div>", 1) for part in inside)])
        if "math/tex" in html:
            html = _TEX.sub(r"<span>\\(\1\\)</span>", html)
    text: str = extract_plain_text(html, main_content=True, alt_texts=False, list_bullets=False, comments=False)
    return text


EXTRACTORS: dict[str, Callable[[str, str | None, int], str | None]] = {
    "trafilatura": _trafilatura, "resiliparse": _resiliparse
}
