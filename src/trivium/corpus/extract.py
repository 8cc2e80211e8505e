"""The main text of a web page, without its menus, banners and footers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.metadata import version
from typing import Literal

Profile = Literal["accurate", "fast"]


def versions() -> dict[str, str]:
    """The extractors' versions, a part of every extraction's name: another version may give other text."""
    return {name: version(name) for name in ("trafilatura", "resiliparse")}


def extract(html: str, profile: Profile = "accurate", url: str | None = None) -> str | None:
    """The page's main text, or ``None`` when neither extractor finds any. ``accurate`` asks trafilatura first, ``fast``
    resiliparse; the other is the fallback."""
    order: list[Callable[[str, str | None], str | None]] = [_trafilatura, _resiliparse]
    for extractor in order if profile == "accurate" else reversed(order):
        try:
            text = extractor(html, url)
        except Exception as error:
            logging.getLogger(__name__).debug("%s failed: %s", extractor.__name__, type(error).__name__)
            continue
        if text and (text := tidy(text)):
            return text
    return None


def tidy(text: str) -> str:
    """No null bytes, no white space at lines' ends, and no more than one empty line in a row."""
    lines: list[str] = []
    for line in text.replace("\0", "").splitlines():
        line = line.rstrip()
        if line or (lines and lines[-1]):
            lines.append(line)
    return "\n".join(lines).strip()


def _trafilatura(html: str, url: str | None) -> str | None:
    import trafilatura

    # its parsers' complaints about single pages would drown the run's own messages
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    text: str | None = trafilatura.extract(html, url=url, fast=True, include_comments=False)
    return text


def _resiliparse(html: str, url: str | None) -> str | None:
    from resiliparse.extract.html2text import extract_plain_text

    text: str = extract_plain_text(html, main_content=True, alt_texts=False, list_bullets=False, comments=False)
    return text
