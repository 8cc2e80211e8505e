"""The one exception a user is meant to see: what is wrong, where, and how to mend it."""

from __future__ import annotations

import contextlib
import difflib
import sys
from collections.abc import Iterable, Iterator


class TriviumError(Exception):
    """A fault in the user's input or surroundings. The command line prints it as one line and exits with status 2."""


def check_system() -> None:
    """Raise :class:`TriviumError` on Windows, whose Python has no file locks and timers as they are used here."""
    if sys.platform == "win32":
        raise TriviumError("Trivium runs on Linux and macOS; on Windows use WSL2")


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint such as ``; did you mean 'steps'?`` for a misspelt ``word``, or the known names when none is close."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def missing(extra: str, error: ImportError) -> TriviumError:
    """The fault that a package of an optional extra is not installed."""
    return TriviumError(f"{error.name} is not installed; this needs the extra `{extra}`: "
                        f'pip install "trivium[{extra}]"')


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Imports of what only the extra ``name`` installs. Raises :func:`missing` where a package is not there; a fault in
    Trivium's own modules stays an :class:`ImportError`."""
    try:
        yield
    except ImportError as error:
        if error.name is None or error.name.split(".")[0] == "trivium":
            raise
        raise missing(name, error) from error
