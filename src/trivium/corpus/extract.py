"""The main text of a web page, without its menus, banners and footers.

Pages are hostile, and the parsers are C: nothing but the system can stop them. So they run in a process of their own,
which is kept from page to page and ended by the system when a page has used up its time.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from importlib.metadata import version
from typing import ClassVar, Literal

from trivium.errors import TriviumError, extra

Profile = Literal["accurate", "fast"]
ROOM = 1 << 26
"""Bytes of the memory in which pages go to their extractors: a page of 16 MB at four bytes a character."""
ATTEMPTS = 3
"""How often a page is tried whose process somebody else ends."""


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
    why = ""
    for name in ("trafilatura", "resiliparse") if profile == "accurate" else ("resiliparse", "trafilatura"):
        if name == "trafilatura" and html.count("<") > limits.tags:
            why = why or " (too_many_tags)"
            continue
        try:
            text = _ask({"extractor": name, "url": url, "seconds": limits.seconds, "depth": limits.depth}, html)
        except _Stopped as stopped:
            why = f" ({stopped})"
            continue
        if text:
            return text, name + why
        why = why or " (found_nothing)"
    return None, "none" + why


class _Stopped(Exception):
    """A page that its extractor cannot take: ``too_deep``, ``too_slow`` or ``crashed``."""


class _Ended(Exception):
    """The extractor's process ended, and the page is not known to be why."""


_PROGRAM = ("import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
            "from trivium.corpus.extractors import serve; serve(int(sys.argv[2]), int(sys.argv[3]))")
_CRASHES = {-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL}


class _Extractors:
    """The process of the extractors. Pages go to it through shared memory; requests
    and texts are lines of JSON. It ends when its input does, so it does not outlive this process."""

    def __init__(self, room: int) -> None:
        self.owner, self.room = os.getpid(), room
        with (os.fdopen(os.memfd_create("page"), "w+b", 0) if hasattr(os, "memfd_create") else
              tempfile.TemporaryFile(buffering=0)) as file:
            os.ftruncate(file.fileno(), room)  # takes no more memory than the largest page did
            self.page = mmap.mmap(file.fileno(), room)
            self._start(file.fileno())

    def _start(self, page: int) -> None:
        # the process inherits it: this one hears the keyboard
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, json.dumps(sys.path), str(page), str(self.room)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(page,))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def ask(self, request: dict[str, object], page: bytes) -> str | None:
        """The text that an extractor finds; raises :class:`_Stopped` or :class:`_Ended` when the process has ended."""
        assert self.process.stdin and self.process.stdout
        self.page[:len(page)] = page
        try:
            self.process.stdin.write(json.dumps({**request, "size": len(page)}).encode() + b"\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if line.endswith(b"\n"):
            text: str | bool | None = json.loads(line)
            if isinstance(text, bool):
                raise _Stopped("too_deep")
            return text
        code = self.process.wait()
        if code == -signal.SIGPROF:
            raise _Stopped("too_slow")
        raise _Stopped("crashed") if code in _CRASHES else _Ended

    def close(self) -> None:
        """End the process, whatever it is doing."""
        if self.owner == os.getpid():
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.page):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


_kept: list[_Extractors] = []
_lock = threading.Lock()


def _ask(request: dict[str, object], html: str) -> str | None:
    with extra("corpus"):
        import resiliparse  # noqa: F401 (its lack is told here, not by the other process)
    # as Python holds the characters already, so that nothing is computed
    codec = {0: "latin-1", 1: "latin-1", 2: "utf-16-le", 3: "utf-16-le"}.get(
        sys.getsizeof(html) // (len(html) or 1), "utf-32-le") if len(html) > 1000 else "utf-32-le"
    request["codec"], page = codec, html.encode(codec, "surrogatepass")
    with _lock:
        for _ in range(ATTEMPTS):
            if _kept and (_kept[0].owner != os.getpid() or _kept[0].room < len(page)):
                _close()  # another process started it, of which this one is a copy, or the page is large
            if not _kept:
                _kept.append(_Extractors(max(ROOM, len(page))))
            try:
                return _kept[0].ask(request, page)
            except _Ended:
                _close()
            except BaseException:
                _close()
                raise
    raise TriviumError("corpus: the process that extracts the text of pages was ended from outside, most often for "
                       "want of memory; run the same command with fewer workers: it goes on from what is done")


def _close() -> None:
    while _kept:
        _kept.pop().close()


atexit.register(_close)
