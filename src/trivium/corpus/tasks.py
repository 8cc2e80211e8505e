"""Deterministic tasks on a pool of processes.

A task is a pure function of its parameters and its inputs. Its output is one folder of files, named by the digest of
(version, step, parameters, inputs' digests), written aside and renamed when complete. So a folder that exists is a
finished task: a killed run goes on behind it, changed settings get other names, and the bytes cannot depend on the
number of workers.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from multiprocessing.connection import wait
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from typing import Any, Self

import numpy as np

from trivium.errors import TriviumError
from trivium.files import (
    digest_file,
    digest_json,
    disk_errors,
    fsync_folder,
    read_json,
    unreadable,
    write_bytes,
    write_json,
)

VERSION = 7  # raise it when a step's code comes to give other bytes for the same parameters

Progress = Callable[[str, int, int], None]
"""Called as ``progress(step, tasks done, tasks in all)``."""

Function = Callable[[dict[str, Any], Any, Path], dict[str, Any]]
"""A task's function: ``(parameters, input paths, folder to write into) -> counts``. It lives at a module's top
level."""

Gather = Callable[[dict[str, Any], list[Path]], dict[str, np.ndarray]]
"""Takes what a task needs out of its many inputs, ``(parameters, input paths) -> arrays``, which its function is given
instead of them: a shuffle's range, from all shards."""


@dataclass(frozen=True)
class Task:
    """One call of ``function``. ``inputs`` are paths, and ``digests`` what those paths hold. ``watched`` are users'
    files with their digests: they may change at any time, and the function's work counts only if they did not."""

    step: str
    function: Function
    parameters: dict[str, Any]
    inputs: list[Path] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    gather: Gather | None = None
    watched: list[tuple[Path, str]] = field(default_factory=list)

    @property
    def key(self) -> str:
        """The task's name: the same work has the same name."""
        return digest_json([VERSION, self.step, self.parameters, self.digests])


FILES = "files.json"
"""What a finished task's folder says of its files: the size and SHA-256 of each."""


def is_whole(folder: Path) -> bool:
    """Whether a folder is a finished task's, and each of its files is as it was written."""
    try:
        listed = json.loads((folder / FILES).read_bytes())
        return "counts.json" in listed and all(
            (folder / name).stat().st_size == size and digest_file(folder / name) == digest
            for name, (size, digest) in listed.items())
    except (OSError, ValueError, TypeError, AttributeError):
        return False


def check_watched(task: Task) -> None:
    """Raise :class:`TriviumError` for a file that is not what it was when the task was named by it."""
    for path, digest in task.watched:
        try:
            now = digest_file(path)
        except OSError as error:
            raise unreadable(path, error) from error
        if now != digest:
            raise TriviumError(f"{path}: was changed while it was read; run the same command again: it reads what is "
                               "there now")


def perform(task: Task, scratch: Path) -> None:
    """Do one task, unless it has been done."""
    if not (scratch / task.key).exists():
        given = task.gather(task.parameters, task.inputs) if task.gather else task.inputs
        keep(task, scratch, lambda aside: task.function(task.parameters, given, aside))


def keep(task: Task, scratch: Path, fill: Callable[[Path], dict[str, Any]]) -> None:
    """Put a finished task into its folder, which ``fill`` fills; it gives what the task counted."""
    done, aside = scratch / task.key, scratch / f".{task.key}.tmp"
    with disk_errors(aside):
        if aside.exists():
            shutil.rmtree(aside)
        aside.mkdir(parents=True)
        counts = fill(aside)
        with open(aside / "counts.json", "w", encoding="utf-8") as file:
            json.dump(counts, file, sort_keys=True, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        check_watched(task)
        write_json(aside / FILES, {path.name: [path.stat().st_size, digest_file(path)]
                                   for path in sorted(aside.iterdir()) if path.is_file()})
        fsync_folder(aside)
        aside.rename(done)
        fsync_folder(scratch)


def counts_of(folder: Path) -> dict[str, Any]:
    """What the task that filled ``folder`` counted."""
    counts: dict[str, Any] = read_json(folder / "counts.json")
    return counts


def share(scratch: Path, name: str, data: bytes) -> tuple[Path, str]:
    """Put something that tasks share into the scratch folder, under its own digest."""
    digest = sha256(data).hexdigest()
    path = scratch / f"{digest}-{name}"
    if not path.exists():
        write_bytes(path, data)
    return path, digest


class Pool:
    """``run`` performs tasks and gives their folders in the tasks' order; use it as a context."""

    say: Callable[[str], None] = staticmethod(lambda text: None)
    """Told of damage that is mended."""

    def __init__(self, scratch: Path, workers: int, progress: Progress) -> None:
        if workers < 1:
            raise TriviumError(f"workers is {workers}; it must be at least 1")
        self.scratch, self.workers, self.progress = scratch, workers, progress
        self._executor: ProcessPoolExecutor | None = None
        with disk_errors(scratch):
            scratch.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=kind is not None)

    def run(self, tasks: Sequence[Task]) -> list[Path]:
        """Perform what is not done yet, in this process when there is one worker, else in the pool."""
        folders = [self.scratch / task.key for task in tasks]
        if not tasks:
            return folders
        step, total = tasks[0].step, len(tasks)
        self._take_back(folders)
        waiting = [task for task, folder in zip(tasks, folders, strict=True) if not folder.exists()]
        done = total - len(waiting)
        self.progress(step, done, total)
        for _ in self._perform(waiting):
            done += 1
            self.progress(step, done, total)
        return folders

    def _take_back(self, folders: Sequence[Path]) -> None:
        """Remove finished tasks' folders that are damaged, and say so: they are done again."""
        found = [folder for folder in dict.fromkeys(folders) if folder.exists()]
        with ThreadPoolExecutor(self.workers) as threads:
            for folder, whole in zip(found, threads.map(is_whole, found), strict=True):
                if not whole:
                    self.say(f"{folder}: this finished piece of work is damaged; it is done again")
                    shutil.rmtree(folder)

    def _perform(self, tasks: list[Task]) -> Iterator[None]:
        if self.workers == 1 or (len(tasks) == 1 and self._executor is None):
            for task in tasks:
                perform(task, self.scratch)
                yield
            return
        if self._executor is None:
            self._executor = ProcessPoolExecutor(self.workers, mp_context=FreshContext(), initializer=end_with_parent)
        try:
            futures: list[Future[None]] = [self._executor.submit(perform, task, self.scratch) for task in tasks]
            for future in as_completed(futures):
                future.result()
                yield
        except BrokenProcessPool as error:
            raise TriviumError(f"{self.scratch}: a worker of the step {tasks[0].step!r} was killed, most often for "
                               "want of memory; run the same command with fewer workers: it goes on from what is done"
                               ) from error


class _Process(SpawnProcess):
    """A fresh interpreter that does not import the caller's main module again: every task's function is importable by
    its own name, and the main module may be an unguarded script, or have loaded PyTorch."""

    def start(self) -> None:
        with _main_hidden():
            super().start()


class FreshContext(SpawnContext):
    """Starts processes that hold nothing of this one's."""

    Process = _Process


@contextmanager
def _main_hidden() -> Iterator[None]:
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def end_with_parent() -> None:
    """Workers wait on a queue whose other end they hold too, so they would outlive a killed parent. Watch for it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
