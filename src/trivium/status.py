"""What a run is doing, for whoever looks at it from outside: one small file in its folder, written anew as it goes on.

The file says what the run last knew. Whether it still runs, its lock says: one that was killed wrote no last word.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NotRequired

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from trivium.errors import TriviumError, unexpected
from trivium.files import Row

SECONDS = 0.5
"""How often progress is written at most."""
LINES = 200
"""Lines that were said and are kept."""


def status_file(run: Path) -> Path:
    """Where a run's folder holds its status."""
    return run / ".work" / "status.json"


class StageStatus(TypedDict):
    """What one stage does. Times are seconds since 1970."""

    state: Literal["waiting", "running", "finished", "failed"]
    begun: NotRequired[float]
    ended: NotRequired[float]
    done: NotRequired[int]
    """Steps that are done ..."""
    total: NotRequired[int]
    """... of so many."""
    text: NotRequired[str]
    """What is said beside them."""
    end: NotRequired[float | None]
    """When the last step will be done, where that can be said."""


class RunStatus(TypedDict):
    """What a run does."""

    state: Literal["running", "finished", "failed", "interrupted", "killed"]
    error: str
    process: int
    begun: float
    ended: float | None
    recipe: str
    """The recipe's file; empty for one that was made by a program."""
    overrides: list[str]
    said: list[tuple[float, str, str]]
    """``(time, stage, line)`` of the last lines that were said."""
    stages: dict[str, StageStatus]
    """In the order of the recipe."""


KNOWN = TypeAdapter(RunStatus)


class Status:
    """Writes the status of a run. It is called with a stage's name and what
    :attr:`trivium.progress.Progress.listener` is told. A folder that cannot be written changes nothing for the run."""

    def __init__(self, run: Path, recipe: str, overrides: Iterable[str], stages: Iterable[str]) -> None:
        self.file, self.guard, self.written = status_file(run), threading.Lock(), 0.0
        self.said: deque[tuple[float, str, str]] = deque(maxlen=LINES)
        self.stages: dict[str, dict[str, Any]] = {name: {"state": "waiting"} for name in stages}
        self.told: dict[str, Any] = {"process": os.getpid(), "begun": time.time(), "ended": None, "state": "running",
                                     "error": "", "recipe": recipe, "overrides": list(overrides)}
        self.write()

    def __call__(self, stage: str, told: dict[str, Any]) -> None:
        now = time.time()
        with self.guard:
            of_stage = self.stages.setdefault(stage, {"state": "waiting"})
            if told.get("begun"):
                of_stage.clear()
                of_stage |= {"state": "running", "begun": now}
            elif told.get("finished"):
                of_stage |= {"state": "finished", "ended": now}
            elif "said" in told:
                self.said.append((now, stage, told["said"]))
            elif "done" in told:
                left = told["left"]
                of_stage |= {"done": told["done"], "total": told["total"], "text": told["text"],
                             "end": None if left is None else now + left}
            else:
                of_stage["text"] = told["text"]
        if told.keys() & {"begun", "finished"} or time.monotonic() - self.written > SECONDS:
            self.write()

    def end(self, state: str, error: str = "") -> None:
        """The run ends; what it was doing ends with it."""
        with self.guard:
            for of_stage in self.stages.values():
                if of_stage["state"] == "running":
                    of_stage |= {"state": "failed" if state == "failed" else "waiting", "ended": time.time()}
            self.told |= {"state": state, "error": error, "ended": time.time()}
        self.write()

    def write(self) -> None:
        """Write it, whole or not at all. It is no result: nothing waits until it is on the disk."""
        with self.guard, contextlib.suppress(OSError):
            self.written = time.monotonic()
            aside = self.file.with_suffix(".tmp")
            aside.write_text(json.dumps({**self.told, "said": list(self.said), "stages": self.stages}), "utf-8",
                             errors="replace")
            os.replace(aside, self.file)


@contextlib.contextmanager
def told(status: Status) -> Iterator[None]:
    """Write down how the run within it ends."""
    try:
        yield
    except TriviumError as error:
        status.end("failed", str(error))
        raise
    except KeyboardInterrupt:
        status.end("interrupted")
        raise
    except Exception as error:
        status.end("failed", unexpected(error))
        raise
    else:
        status.end("finished")


def read_status(run: Path) -> RunStatus | None:
    """What a run last wrote of itself; None where it wrote nothing, or nothing that can be read. A run that says that
    it runs and holds no lock was ``killed``."""
    try:
        status = KNOWN.validate_json(status_file(run).read_bytes())
    except (OSError, ValueError):
        return None
    if status["state"] == "running" and not is_locked(run):
        status["state"] = "killed"
        for stage in status["stages"].values():
            if stage["state"] == "running":
                stage["state"] = "waiting"
    return status


def is_locked(run: Path) -> bool:
    """Whether a process works on a run: it holds the run's lock."""
    try:
        with open(run / ".work" / "lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EAGAIN)
    return False


def logs_of(run: Path) -> dict[str, Path]:
    """Where each stage of a run logs: in its finished artifact, or, where one is being made, in its folder of work. The
    one that was written last counts."""
    found: dict[str, tuple[float, Path]] = {}
    for file in (*run.glob("*/log.jsonl"), *run.glob(".work/*/artifact/log.jsonl")):
        inside = file.parent.name == "artifact"
        name = file.parents[1].name.rpartition("-")[0] if inside else file.parent.name
        try:
            changed = file.stat().st_mtime
        except OSError:
            continue
        if name != "superseded" and changed > found.get(name, (-1.0, file))[0]:
            found[name] = changed, file
    return {name: file for name, (_, file) in sorted(found.items(), key=lambda one: one[1][0])}


def rows_in(lines: Iterable[bytes]) -> Iterator[Row]:
    """The rows of a log; a line that is torn is left out, as the stage itself will when it goes on."""
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), (int, float)):
            yield row


def rows_so_far(log: Path) -> Iterator[Row]:
    """The rows that a log holds now; none where it is away."""
    try:
        yield from rows_in(log.read_bytes().splitlines())
    except OSError:
        return
