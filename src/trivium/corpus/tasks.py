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
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from typing import Any, Self

from trivium.errors import TriviumError
from trivium.files import digest_json, disk_errors, fsync_folder, read_json

VERSION = 7  # raise it when a step's code comes to give other bytes for the same parameters

Progress = Callable[[str, int, int], None]
"""Called as ``progress(step, tasks done, tasks in all)``."""

Function = Callable[[dict[str, Any], list[Path], Path], dict[str, Any]]
"""A task's function: ``(parameters, input paths, folder to write into) -> counts``. It lives at a module's top
level."""


@dataclass(frozen=True)
class Task:
    """One call of ``function``. ``inputs`` are paths, and ``digests`` what those paths hold."""

    step: str
    function: Function
    parameters: dict[str, Any]
    inputs: list[Path] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        """The task's name: the same work has the same name."""
        return digest_json([VERSION, self.step, self.parameters, self.digests])


def perform(task: Task, scratch: Path) -> None:
    """Do one task, unless it has been done."""
    done = scratch / task.key
    if done.exists():
        return
    aside = scratch / f".{task.key}.tmp"
    with disk_errors(aside):
        if aside.exists():
            shutil.rmtree(aside)
        aside.mkdir(parents=True)
        counts = task.function(task.parameters, task.inputs, aside)
        with open(aside / "counts.json", "w", encoding="utf-8") as file:
            json.dump(counts, file, sort_keys=True, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        fsync_folder(aside)
        aside.rename(done)
        fsync_folder(scratch)


def counts_of(folder: Path) -> dict[str, Any]:
    """What the task that filled ``folder`` counted."""
    counts: dict[str, Any] = read_json(folder / "counts.json")
    return counts


class Pool:
    """``run`` performs tasks and gives their folders in the tasks' order; use it as a context."""

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
        waiting = [task for task, folder in zip(tasks, folders, strict=True) if not folder.exists()]
        done = total - len(waiting)
        self.progress(step, done, total)
        for _ in self._perform(waiting):
            done += 1
            self.progress(step, done, total)
        return folders

    def _perform(self, tasks: list[Task]) -> Iterator[None]:
        if self.workers == 1 or (len(tasks) == 1 and self._executor is None):
            for task in tasks:
                perform(task, self.scratch)
                yield
            return
        if self._executor is None:
            self._executor = ProcessPoolExecutor(self.workers, mp_context=_Context(), initializer=_end_with_parent)
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


class _Context(SpawnContext):
    Process = _Process


@contextmanager
def _main_hidden() -> Iterator[None]:
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _end_with_parent() -> None:
    """Workers wait on a queue whose other end they hold too, so they would outlive a killed parent. Watch for it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
