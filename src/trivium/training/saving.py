"""When checkpoints are written, and by whom: by a thread, from a copy, while training goes on.

All that an update waits for is the copy. What a save costs is measured: the seconds that training waited, and the
writer's own on the processor, which training could have used. The next save comes when 20 times as many have passed
since the end of this one, so that all of them together take at most 5 % of the time. Where there is no memory for a
copy, training waits until the checkpoint is written.

Of several processes each writes its own part. The first sees by the attempt's number in the others' notes that all are
there, and makes them a checkpoint. No process waits for another in that, and no thread but the main one takes part in a
collective operation.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import secrets
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from trivium.errors import out_of_memory
from trivium.files import disk_errors, fsync_folder
from trivium.resources import available_memory
from trivium.training.checkpoint import (
    Damaged,
    Places,
    part_path,
    parts_of,
    prune,
    prune_best,
    read_note,
    seal,
    sweep,
    write_part,
)
from trivium.training.parallel import World
from trivium.training.settings import Saving

SHARE = 0.05
"""Of the time that saving may take, where no setting says how often it is done."""

LEAST = 20.0
"""Seconds between two saves, at least, where no setting says so."""

PATIENCE = 20.0
"""Seconds that a process which is stopped waits for the other processes' parts of a checkpoint."""

EVERY_STEP = "TRIVIUM_SAVE_EVERY_STEP"
"""The environment variable that has a checkpoint written after every update, for tests."""


class Written(NamedTuple):
    """A save that has ended."""

    step: int
    best: bool
    processor: float
    """Seconds of the processor that the writer took."""
    at: float
    """When it ended, by the monotonic clock."""


class Saver:
    """Writes a run's checkpoints into ``folder``. Within a ``with`` block one that is being written is written to its
    end, also when the run is interrupted or terminated. ``least`` are the seconds between two saves that are not cut
    short, ``anchor`` the multiples of steps that must be reachable, ``kept`` the folder for those that stay for good.
    ``say`` is told what the user should know."""

    def __init__(self, folder: Path, world: World, device: torch.device, saving: Saving | None = None, *,
                 least: float = LEAST, anchor: int = 0, kept: Path | None = None,
                 say: Callable[[str], None] = lambda text: None) -> None:
        self.folder, self.world, self.device, self.saving = folder, world, device, saving or Saving()
        self.least, self.anchor, self.kept, self.say = least, anchor, kept, say
        self.writer = ThreadPoolExecutor(1, "checkpoints")
        self.pending: list[Future[Written]] = []
        self.cost = 0.0
        """Seconds that the last checkpoint, and all best weights since, have cost the training."""
        self.ended = time.monotonic()
        """When the last save ended."""
        self.saved: int | None = None
        """The step of the last checkpoint that is known to be whole."""
        self.deadline = float("inf")
        folder.mkdir(parents=True, exist_ok=True)
        if world.leader:
            sweep(folder)
            sweep(folder / "best")
        world.wait()

    def __enter__(self) -> Self:
        self.before: Any = None
        if threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGTERM, self._terminated)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                self.wait()
            else:
                self.stop()
        finally:
            self.writer.shutdown(wait=False)
            if self.before is not None:
                signal.signal(signal.SIGTERM, self.before)

    def _terminated(self, number: int, frame: FrameType | None) -> None:
        """End as if nobody had listened, but after the checkpoint."""
        self.stop()
        signal.signal(number, self.before)
        os.kill(os.getpid(), number)

    def stop(self) -> None:
        """Let the save under way come to its end, if the other processes have theirs in time. What goes wrong is not
        said: the run ends for another reason."""
        self.deadline = time.monotonic() + PATIENCE
        for save in self.pending:
            with contextlib.suppress(Exception):
                self._note(save.result())
        self.pending.clear()

    def wait(self) -> None:
        """Until all is written. Raises what has gone wrong."""
        while self.pending:
            self._await_first()

    def _await_first(self) -> None:
        """Until the first of the saves under way is written. It stays among them where this is interrupted."""
        self._note(self.pending[0].result())
        self.pending.pop(0)

    def _note(self, written: Written) -> None:
        self.cost += written.processor / max(1, torch.get_num_threads())
        self.ended = written.at
        if not written.best:
            self.saved = written.step

    @property
    def interval(self) -> float:
        """Seconds from the end of a save to the next one."""
        return max(self.least, self.cost / SHARE) if self.saving.seconds is None else self.saving.seconds

    def due(self, step: int) -> bool:
        """Whether it is time for a checkpoint, as all processes agree. Raises what has gone wrong with the last."""
        while self.pending and self.pending[0].done():
            self._await_first()
        if EVERY_STEP in os.environ or any(every and step % every == 0
                                           for every in (self.saving.steps, self.saving.keep_every)):
            return True
        now = not self.pending and time.monotonic() - self.ended > self.interval
        return self.world.agree(now, self.device)

    def save(self, step: int, model: nn.Module, optimizers: list[torch.optim.Optimizer], extra: dict[str, Any],
             best: bool = False) -> None:
        """Have the checkpoint of a step written, or the weights that are the best so far. All processes must call
        it."""
        begun = time.monotonic()
        while len(self.pending) > best:  # best weights may wait behind a checkpoint; more copies are not held
            self._await_first()
        if not best:
            self.cost = 0.0
        attempt = self.world.told(secrets.randbits(48), self.device)
        parts, places = parts_of(model, optimizers, self.world)
        copied = self._copied(parts)
        self.pending.append(self.writer.submit(functools.partial(
            self._write, step, attempt, dict(parts) if copied is None else copied, places, copy.deepcopy(extra),
            best)))
        if copied is None:
            self.wait()
        self.cost += time.monotonic() - begun

    def _copied(self, parts: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """A copy in the machine's memory; None where there is no room for it."""
        size = sum(part.nbytes for part in parts.values())
        if size * int(os.environ.get("LOCAL_WORLD_SIZE", "1")) < 0.9 * available_memory():
            try:
                return {name: part.to("cpu", copy=True) for name, part in parts.items()}
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
        self.say(f"there is too little memory for a copy of what a checkpoint holds ({size / 1e9:.3g} GB); training "
                 "waits until it is written")
        return None

    def _write(self, step: int, attempt: int, parts: dict[str, Tensor], places: Places, extra: dict[str, Any],
               best: bool) -> Written:
        """What the writer does for a save."""
        begun = time.thread_time()
        folder = self.folder / "best" if best else self.folder
        write_part(folder, step, self.world.rank, attempt, parts, places)
        parts.clear()
        if self.world.leader:
            self._await_others(folder, step, attempt)
            with disk_errors(folder):
                note = seal(folder, step, self.world.size, attempt, extra)
                if best:
                    prune_best(self.folder, step)
                else:
                    if step and self.kept and self.saving.keep_every and step % self.saving.keep_every == 0:
                        keep(note, self.kept)
                    prune(self.folder, step, self.anchor)
        return Written(step, best, time.thread_time() - begun, time.monotonic())

    def _await_others(self, folder: Path, step: int, attempt: int) -> None:
        """Until all processes have written their parts. Raises :class:`TimeoutError` when this one is stopped and they
        do not."""
        for rank in range(1, self.world.size):
            note = part_path(folder, step, rank).with_suffix(".json")
            while attempt_of(note) != attempt:
                if time.monotonic() > self.deadline:
                    raise TimeoutError(f"{note} is not there")
                time.sleep(0.02)


def attempt_of(note: Path) -> int | None:
    """The number of the attempt at which a part was written; None where it is not."""
    try:
        number: int | None = read_note(note).get("attempt")
    except Damaged:
        return None
    return number


def keep(note: Path, folder: Path) -> None:
    """Keep a checkpoint for good: a second name of its files where the disk has such, else a copy."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in [*note.parent.glob(f"{note.stem}.*.*"), note]:
        place = folder / file.name
        place.unlink(missing_ok=True)
        try:
            os.link(file, place)
        except OSError:
            shutil.copyfile(file, place)
    fsync_folder(folder)
