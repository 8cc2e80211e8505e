"""The one exception a user is meant to see: what is wrong, where, and how to mend it."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable


class TriviumError(Exception):
    """A fault in the user's input or surroundings. The command line prints it as one line and exits with status 2."""


def check_system() -> None:
    """Raise :class:`TriviumError` on Windows, whose Python has no file locks and timers as they are used here."""
    if sys.platform == "win32":
        raise TriviumError("Trivium runs on Linux and macOS; on Windows use WSL2")


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint such as ``; did you mean 'steps'?`` for a misspelt ``word``, or the known names when none is close."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def missing(extra: str, error: ImportError) -> TriviumError:
    """What to raise where a package of an extra is not installed: one line that says how to get it."""
    return TriviumError(f'{error.name} is not installed: pip install "trivium[{extra}]"')
