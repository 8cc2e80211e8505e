"""The main text of a web page, without its menus, banners and footers.

Pages are hostile, and the parsers are C: nothing but the system can stop them. So they run in a process of their own,
see :mod:`trivium.corpus.killable`: the pages of a shard in one call, a single page in one for each attempt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import ClassVar, Literal

from trivium.corpus.extractors import attempted, load
from trivium.corpus.killable import Log, Stopped, call, limited
from trivium.errors import TriviumError

Profile = Literal["accurate", "fast"]

Attempt = Callable[[str, str, str | None, "ExtractionLimits"], str | None]
"""``attempt(the extractor's name, html, url, limits)`` gives the text, if any; raises :class:`Stopped`."""


@dataclass(frozen=True)
class ExtractionLimits:
    """What a single page may cost."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    seconds: float = 3.0
    """Processor seconds that each of the two extractors may take for one page; then its process is ended and the other
    is asked. The time is that process's own, so a busy machine changes nothing."""
    tags: int = 30_000
    """Pages with more tags than this are left to resiliparse, for trafilatura's time and memory grow with them."""
    depth: int = 200
    """Elements nested deeper than this are laid flat before trafilatura sees them, so that their text is kept; 250 is
    the most that it takes."""

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.tags < 1 or not 0 < self.depth <= 250:
            raise TriviumError(
                f"corpus: limits: seconds is {self.seconds}, tags {self.tags} and depth {self.depth}; "
                "all must be above 0, and depth at most 250"
            )


def versions() -> dict[str, str]:
    """The extractors' versions, a part of every extraction's name: another version may give other text."""
    return {name: version(name) for name in ("trafilatura", "resiliparse")}


def extract(html: str, profile: Profile = "accurate", url: str | None = None,
            limits: ExtractionLimits = ExtractionLimits()) -> tuple[str | None, str]:
    """``(the page's main text, how it was found)``; the text is ``None`` when neither extractor finds any. ``accurate``
    asks trafilatura first, ``fast`` resiliparse; the other is the fallback. How: the extractor's name, and why the
    first one was not it: ``too_many_tags``, ``too_deep``, ``too_slow``, ``crashed`` or ``found_nothing``."""
    return find(html, profile, url, limits, lambda *attempt: call(try_once, *attempt))


def find(html: str, profile: Profile, url: str | None, limits: ExtractionLimits,
         attempt: Attempt) -> tuple[str | None, str]:
    """As :func:`extract`, by such attempts."""
    why = ""
    for name in ("trafilatura", "resiliparse") if profile == "accurate" else ("resiliparse", "trafilatura"):
        if name == "trafilatura" and html.count("<") > limits.tags:
            why = why or " (too_many_tags)"
            continue
        try:
            text = attempt(name, html, url, limits)
        except Stopped as stopped:
            why = f" ({stopped})"
            continue
        if text:
            return text, name + why
        why = why or " (found_nothing)"
    return None, "none" + why


def try_once(name: str, html: str, url: str | None, limits: ExtractionLimits) -> str | None:
    """One attempt at a page, in the process that calls it; raises :class:`Stopped`."""
    load()
    return limited(limits.seconds, lambda: attempted(name, html, url, limits.depth))


def try_logged(log: Log) -> Attempt:
    """Attempts at the pages of one call, in the process that calls it."""
    load()

    def attempt(name: str, html: str, url: str | None, limits: ExtractionLimits) -> str | None:
        return log.attempt(limits.seconds, lambda: attempted(name, html, url, limits.depth))
    return attempt
