"""The main text of a web page, without its menus, banners and footers."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from types import FrameType
from typing import ClassVar, Literal

import numpy as np

from trivium.errors import TriviumError, extra

Profile = Literal["accurate", "fast"]


@dataclass(frozen=True)
class ExtractionLimits:
    """What a single page may cost."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    seconds: float = 20.0
    """Processor seconds that trafilatura may take for one page; then resiliparse is asked. The time is this process's
    own, so a busy machine changes nothing."""
    tags: int = 30_000
    """Pages with more tags than this are left to resiliparse, for trafilatura's time and memory grow with them."""
    depth: int = 500
    """Pages nested deeper than this are left to trafilatura, as resiliparse's time grows with the square of the depth
    and cannot be limited. Pages that are too big for one and too deep for the other are rejected."""

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.tags < 1 or self.depth < 1:
            raise TriviumError(
                f"corpus: limits: seconds is {self.seconds}, "
                f"tags {self.tags} and depth {self.depth}; all must be above 0"
            )


def versions() -> dict[str, str]:
    """The extractors' versions, a part of every extraction's name: another version may give other text."""
    return {name: version(name) for name in ("trafilatura", "resiliparse")}


def extract(html: str, profile: Profile = "accurate", url: str | None = None,
            limits: ExtractionLimits = ExtractionLimits()) -> tuple[str | None, str]:
    """``(the page's main text, how it was found)``; the text is ``None`` when neither extractor finds any. ``accurate``
    asks trafilatura first, ``fast`` resiliparse; the other is the fallback. How: the extractor's name, and why the
    first one was not it: ``too_many_tags``, ``too_deep``, ``too_slow`` or ``found_nothing``."""
    order: list[tuple[str, Callable[[str, str | None], str | None]]] = [("trafilatura", _trafilatura),
                                                                        ("resiliparse", _resiliparse)]
    if profile == "fast":
        order = order[::-1]
    why, page = "", np.frombuffer(html.encode("utf-8", "replace"), np.uint8)
    tags = np.flatnonzero(page == ord("<"))
    if len(tags) > limits.tags:
        order = [one for one in order if one[0] == "resiliparse"]
        why = " (too_many_tags)" if profile == "accurate" else ""
    if len(tags) > limits.depth and _may_be_deeper(page, tags, limits.depth) and _depth(html) > limits.depth:
        order = [one for one in order if one[0] == "trafilatura"]
        why = " (too_deep)"
    for name, extractor in order:
        try:
            with _limited(limits.seconds):
                text = extractor(html, url)
        except _OutOfTime:
            why = why or " (too_slow)"
            continue
        except Exception as error:
            logging.getLogger(__name__).debug("%s failed: %s", name, type(error).__name__)
            text = None
        if text and (text := tidy(text)):
            return text, name + why
        why = why or " (found_nothing)"
    return None, "none" + why


_VOID = [
    first << 16 | second << 8 | third
    for first, second, third in (b"br>", b"br ", b"br/", b"img", b"inp", b"met", b"lin", b"hr>", b"hr ", b"hr/")
]


def _may_be_deeper(page: np.ndarray, tags: np.ndarray, depth: int) -> bool:
    """Whether tags that open may outnumber tags that close by more than ``depth`` at some place of the bytes ``page``,
    counted fast: a limit to what :func:`_depth` finds. What need not be closed counts as if it stayed open; where that
    makes the difference, the commonest of it does not."""
    # in lower case; "/" and ">" have the bit
    first, second, third = (page.take(tags + offset, mode="clip") | 32 for offset in (1, 2, 3))
    opens, closes = (first >= ord("a")) & (first <= ord("z")), first == ord("/") | 32
    if _most_open(opens, closes) <= depth:
        return False
    return _most_open(opens & ~np.isin(first.astype(np.int32) << 16 | second.astype(np.int32) << 8 | third, _VOID),
                      closes) > depth


def _most_open(opens: np.ndarray, closes: np.ndarray) -> int:
    level = np.cumsum(opens.astype(np.int8) - closes.astype(np.int8), dtype=np.int64)
    return int((level - np.minimum.accumulate(np.minimum(level, 0))).max(initial=0))


def _depth(html: str) -> int:
    """How deep a page is nested."""
    with extra("corpus"):
        from lxml.etree import LxmlError
        from lxml.html import HTMLParser, fromstring

    try:
        root = fromstring(html.encode(), parser=HTMLParser(encoding="utf-8", huge_tree=True))
    except (LxmlError, ValueError, AssertionError):
        return 0
    deepest, level = 0, [root]
    while level and deepest < 1 << 17:
        deepest, level = deepest + 1, [child for element in level for child in element]
    return deepest


class _OutOfTime(BaseException):
    """Not an Exception, so that no extractor takes it for a fault of the page."""


def _ring(number: int, frame: FrameType | None) -> None:
    raise _OutOfTime


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise :class:`_OutOfTime` after so many processor seconds of this process. Only a process's main thread, in which
    the workers run their tasks, can be interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGPROF, _ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def tidy(text: str) -> str:
    """No null bytes, no white space at lines' ends, and no more than one empty line in a row."""
    lines: list[str] = []
    for line in text.replace("\0", "").splitlines():
        line = line.rstrip()
        if line or (lines and lines[-1]):
            lines.append(line)
    return "\n".join(lines).strip()


@lru_cache(maxsize=1)
def _quiet() -> None:
    # its parsers' complaints about single pages would drown the run's own messages
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)


def _trafilatura(html: str, url: str | None) -> str | None:
    with extra("corpus"):
        import trafilatura

    _quiet()
    text: str | None = trafilatura.extract(html, url=url, fast=True, include_comments=False)
    return text


def _resiliparse(html: str, url: str | None) -> str | None:
    with extra("corpus"):
        from resiliparse.extract.html2text import extract_plain_text

    text: str = extract_plain_text(html, main_content=True, alt_texts=False, list_bullets=False, comments=False)
    return text
