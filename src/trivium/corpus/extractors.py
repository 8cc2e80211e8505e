"""What runs in the process that :mod:`trivium.corpus.extract` starts: the two extractors, one page after another."""

from __future__ import annotations

import json
import logging
import mmap
import os
import re
import signal
import sys
from collections.abc import Callable
from functools import lru_cache

from trivium.corpus.page_trees import StandIns, TooDeep, tree_of
from trivium.errors import extra


def serve(file: int, room: int) -> None:
    """Answer requests until there are no more. A page's characters lie in the first bytes of a
    ``file`` of that ``room``. The system ends this process
    when one takes longer than it may: the signal has no handler, as Python's would wait for the C code to return."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no reply
    page = memoryview(mmap.mmap(file, room, access=mmap.ACCESS_READ))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])
        html = str(page[:request["size"]], request["codec"], "replace")
        text: str | bool | None
        try:
            text = EXTRACTORS[request["extractor"]](html, request["url"], request["depth"])
        except TooDeep:
            text = False
        except Exception as error:
            logging.getLogger(__name__).debug("%s failed: %s", request["extractor"], type(error).__name__)
            text = None
        reply = json.dumps(tidy(text) or None if isinstance(text, str) else text).encode()
        signal.setitimer(signal.ITIMER_PROF, 0)
        replies.write(reply + b"\n")
        replies.flush()


def tidy(text: str) -> str:
    """No null bytes, nothing that stands for a broken character, no white space at lines' ends, and no more than one
    empty line in a row."""
    lines: list[str] = []
    for line in text.replace("\0", "").replace("\ufffd", "").splitlines():
        line = line.rstrip()
        if line or (lines and lines[-1]):
            lines.append(line)
    return "\n".join(lines).strip()


@lru_cache(maxsize=1)
def _quiet() -> None:
    # its parsers' complaints about single pages would drown the run's own messages
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)


def _trafilatura(html: str, url: str | None, depth: int) -> str | None:
    with extra("corpus"):
        import trafilatura

    _quiet()
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
    with extra("corpus"):
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
