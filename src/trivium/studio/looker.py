"""Looking through models of runs, in a process of its own: what it holds in memory goes when it ends, and a model that
is too large takes nothing but that process with it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

from trivium.errors import TriviumError

REST_SECONDS = 600.0
"""A process that nobody asked anything for this time ends."""
MOST_SECONDS = 180.0
"""How long an answer may take, the loading of models included."""


class Looker:
    """Asks the process, which is begun with the first question; one question at a time."""

    def __init__(self, most_seconds: float = MOST_SECONDS) -> None:
        self.guard = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self.asked = 0.0
        self.most_seconds = most_seconds

    def ask(self, what: str, **given: Any) -> Any:
        """What :class:`~trivium.planning.see_through.SeeThrough` says to a question, by its method's name and
        arguments. Raises :class:`TriviumError` with what it refuses, and when the process ends or takes too long."""
        with self.guard:
            if self.process is None or self.process.poll() is not None:
                self._begin()
            process = self.process
            assert process and process.stdin and process.stdout
            self.asked = time.monotonic()
            late = threading.Timer(self.most_seconds, process.kill)
            late.start()
            try:
                process.stdin.write(json.dumps({"what": what, **given}).encode() + b"\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except OSError:
                line = b""
            finally:
                late.cancel()
            if not line.endswith(b"\n"):
                self._end()
                took = time.monotonic() - self.asked
                raise TriviumError(f"looking took longer than {self.most_seconds:.0f} s" if took > self.most_seconds
                                   else "the process that looks through models ended before it answered; was memory "
                                        "short?")
            self.asked = time.monotonic()
        answer = json.loads(line)
        if "error" in answer:
            raise TriviumError(answer["error"])
        return answer["found"]

    def _begin(self) -> None:
        self._end()
        self.process = subprocess.Popen([sys.executable, "-m", "trivium.studio.looker"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def _end(self) -> None:
        if self.process is None:
            return
        self.process.kill()  # it writes nothing that could be left half done
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                assert stream
                stream.close()
        self.process = None

    def rest(self) -> None:
        """End the process if nobody asked it anything for a while; called now and then."""
        if self.process and time.monotonic() - self.asked > REST_SECONDS and self.guard.acquire(blocking=False):
            try:
                self._end()
            finally:
                self.guard.release()

    def end(self) -> None:
        """End the process."""
        if self.process:
            with contextlib.suppress(OSError):
                self.process.kill()
        with self.guard:
            self._end()


def answer(questions: IO[bytes], answers: IO[bytes]) -> None:
    """Answer questions, a line of JSON each, until they end."""
    from trivium.planning.see_through import SeeThrough
    looking = SeeThrough()
    for line in questions:
        asked = json.loads(line)
        method, folders = getattr(looking, asked.pop("what")), ("folder", "judged", "reference")
        try:
            found = method(**{key: Path(value) if key in folders else value for key, value in asked.items()})
            told = {"found": found}
        except TriviumError as error:
            told = {"error": str(error)}
        except MemoryError:
            told = {"error": "there is not enough memory for this model and this text"}
        except Exception as error:  # of a model of another family: the process lives on
            told = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        answers.write(json.dumps(told).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "wb") as lines:
        os.dup2(2, 1)  # what a library prints is no answer
        answer(sys.stdin.buffer, lines)
