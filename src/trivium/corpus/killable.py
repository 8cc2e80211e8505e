"""Work whose C code nothing but the system can stop: it runs in a process of its own, which is kept from call to call.

A long call notes what came of each of its attempts in a log. When an attempt takes too long, or crashes the process,
the system ends it; the log is given one more line, which says why, and another process takes the same call from the
start: it finds the outcomes of all attempts so far in the log, so it goes on behind the one that ended the first.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.pool import ExceptionWithTraceback  # type: ignore[attr-defined]
from pathlib import Path
from typing import Any

from trivium.corpus.tasks import FreshContext, end_with_parent
from trivium.errors import TriviumError

RETRIES = 3
"""How often a call is made whose process somebody else ends."""
_CRASHES = {-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL}


class Stopped(Exception):
    """An attempt that was given up: ``too_slow``, ``crashed``, or what it says itself."""


def limited(seconds: float, attempt: Callable[[], str | None]) -> str | None:
    """What an attempt gives; the system ends this process when it takes more processor time: the signal has no
    handler, as Python's would wait for the C code to return."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        return attempt()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


class Log:
    """The outcomes of a call's attempts, in their order: a line of JSON for each."""

    def __init__(self, path: Path) -> None:
        self._past = deque(path.read_bytes().splitlines())
        self._file = open(path, "ab", buffering=0)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def attempt(self, seconds: float, attempt: Callable[[], str | None]) -> str | None:
        """As :func:`limited`, unless its outcome is known; raises :class:`Stopped`."""
        outcome: str | dict[str, str] | None
        if self._past:
            outcome = json.loads(self._past.popleft())
        else:
            try:
                outcome = limited(seconds, attempt)
            except Stopped as stopped:
                outcome = {"stopped": str(stopped)}
            self._file.write(json.dumps(outcome).encode() + b"\n")
        if isinstance(outcome, dict):
            raise Stopped(outcome["stopped"])
        return outcome


def call(function: Callable[..., Any], *arguments: Any, log: Path | None = None) -> Any:
    """``function(*arguments)`` in the kept process. Its attempts are written to ``log``, a file that the function opens
    as a :class:`Log`; a function without a log is one attempt. Raises what it raises, :class:`Stopped` for an attempt
    without a log, and :class:`TriviumError` when the process is ended from outside again and again."""
    with _lock:
        for _ in range(RETRIES):
            if log is not None:
                log.write_bytes(b"")
            with contextlib.suppress(_EndedFromOutside):
                return _until_done(function, arguments, log)
    raise TriviumError("corpus: the process that extracts the text of pages was ended from outside, most often for "
                       "want of memory; run the same command with fewer workers: it goes on from what is done")


class _EndedFromOutside(Exception):
    """The process ended, and no attempt is known to be why."""


def _until_done(function: Callable[..., Any], arguments: tuple[Any, ...], log: Path | None) -> Any:
    while True:
        if _kept and _kept[0].owner != os.getpid():
            _kept.clear()  # another process started it, of which this one is a copy
        if not _kept:
            _kept.append(_Process())
        try:
            return _kept[0].call(function, arguments)
        except Stopped as stopped:
            if log is None:
                raise
            with open(log, "ab") as file:
                file.write(json.dumps({"stopped": str(stopped)}).encode() + b"\n")


class _Process:
    """The process; it does not outlive this one."""

    def __init__(self) -> None:
        self.owner, context = os.getpid(), FreshContext()
        self.calls, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        # the process inherits it: this one hears the keyboard
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        theirs.close()

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """What the function returns; raises what it raises, :class:`Stopped` or :class:`_EndedFromOutside`."""
        try:
            self.calls.send((function, arguments))
            answer = self.calls.recv()
        except (EOFError, OSError):
            close()
            code = self.process.exitcode
            if code == -signal.SIGPROF:
                raise Stopped("too_slow") from None
            raise (Stopped("crashed") if code in _CRASHES else _EndedFromOutside) from None
        except BaseException:  # such as the keyboard's: the answer to this call would be taken for the next one's
            close()
            raise
        if isinstance(answer, Exception):
            raise answer
        return answer


def _serve(calls: Connection) -> None:
    end_with_parent()
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    while True:
        try:
            function, arguments = calls.recv()
        except EOFError:
            return
        try:
            answer = function(*arguments)
        except Stopped as stopped:
            answer = stopped
        except Exception as error:
            answer = ExceptionWithTraceback(error, error.__traceback__)
        calls.send(answer)


_kept: list[_Process] = []
_lock = threading.Lock()


def close() -> None:
    """End the kept process, whatever it is doing."""
    while _kept:
        kept = _kept.pop()
        kept.process.kill()
        kept.process.join()
        kept.calls.close()
