"""Talking with models of runs: servers of their own, which end when the studio does."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from trivium.errors import TriviumError

KEYS = "TRIVIUM_API_KEYS"
"""Where `trivium serve` looks for its keys."""
MOST = 3
"""Servers at a time; the one that was begun first ends for another."""
SECONDS_TO_BEGIN = 120.0


class Talks:
    """The servers that were started for a talk. ``key`` is theirs, too, where the studio has one."""

    def __init__(self, host: str, key: str) -> None:
        self.host, self.key = host, key
        self.guard = threading.Lock()
        self.running: dict[tuple[Path, ...], tuple[subprocess.Popen[bytes], int]] = {}

    def begin(self, models: Sequence[Path]) -> int:
        """The port of a server of these models, which is started where there is none. Raises :class:`TriviumError` with
        what it said when it does not begin."""
        with self.guard:
            wanted = tuple(models)
            for known, (process, _) in list(self.running.items()):
                if process.poll() is not None:
                    del self.running[known]
            if wanted not in self.running:
                while len(self.running) >= MOST:
                    self._stop(next(iter(self.running)))
                self.running[wanted] = self._start(wanted)
            return self.running[wanted][1]

    def _start(self, models: tuple[Path, ...]) -> tuple[subprocess.Popen[bytes], int]:
        names = [f"{model.name}={model}" for model in models]
        environment = os.environ | ({KEYS: self.key} if self.key else {})
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "trivium.cli", "serve", *names, "--host", self.host, "--port", "0",
                 "--feedback", ""], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment)
            end = time.monotonic() + SECONDS_TO_BEGIN
            while time.monotonic() < end:
                ended = process.poll() is not None
                said = os.pread(output.fileno(), 1 << 16, 0).decode("utf-8", "replace")
                if found := re.search(r"chat at http://\S+:(\d+)", said):
                    return process, int(found[1])
                if ended:
                    raise TriviumError(said.strip().rpartition("error: ")[2][:2000] or "the server of the model ended")
                time.sleep(0.1)
            process.kill()
            process.wait()
        raise TriviumError(f"the server of the model did not begin within {SECONDS_TO_BEGIN:.0f} s")

    def _stop(self, known: tuple[Path, ...]) -> None:
        process, _ = self.running.pop(known)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        if process.poll() is None:
            process.kill()
            process.wait()

    def end(self) -> None:
        """Stop all of them."""
        with self.guard:
            for known in list(self.running):
                self._stop(known)
