"""The one exception a user is meant to see: what is wrong, where, and how to mend it."""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
import tempfile
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path


class TriviumError(Exception):
    """A fault in the user's input or surroundings. The command line prints it as one line and exits with status 2."""


def check_system() -> None:
    """Raise :class:`TriviumError` on Windows, whose Python has no file locks and timers as they are used here."""
    if sys.platform == "win32":
        raise TriviumError("Trivium runs on Linux and macOS; on Windows use WSL2")


def unexpected(error: BaseException) -> str:
    """One line for a fault that is Trivium's own: where it is, and the file that its details were written to."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if f"{os.sep}trivium{os.sep}" in frame.filename] or frames
    place = f"{Path(own[-1].filename).name}, line {own[-1].lineno}" if own else "no place"
    details = "".join(traceback.format_exception(error))
    with tempfile.NamedTemporaryFile("w", prefix="trivium-fault-", suffix=".txt", delete=False,
                                     encoding="utf-8", errors="backslashreplace") as file:
        file.write(details)
    stages = "".join(f"{note}: " for note in getattr(error, "__notes__", ()))
    return (f"{stages}this is a fault of Trivium itself ({place}), or an input that it does not know how to refuse; "
            f"the details are in {file.name}: please report them")


def plain(error: BaseException) -> str:
    """What is wrong with a row, in plain words: those of a :class:`TriviumError`; what Python says is not shown."""
    if isinstance(error, TriviumError):
        return str(error)
    if isinstance(error, KeyError):
        return f"the field {error} is missing, or its value is not one of those that are known"
    return "a field holds something of another kind than it should"


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was too little memory, the processor's or an accelerator's."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("not enough memory", "out of memory", "CUDA error: out of memory")))


def counted(number: int, noun: str) -> str:
    """A number of things in English: ``1 row``, ``1,234 rows``, ``2 processes``, ``3 entries``."""
    if number == 1:
        return f"1 {noun}"
    ending = "es" if noun.endswith(("s", "x", "ch", "sh")) else "s"
    several = f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2] not in "aeiou" else noun + ending
    return f"{number:,} {several}"


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
