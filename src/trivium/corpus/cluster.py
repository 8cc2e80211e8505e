"""Tasks on a Ray cluster: the same tasks and names as on one machine, so the same bytes.

The machines share no folder. The one that started the run keeps every finished task on its own disk; what a task reads
travels from there through Ray's object store, and what it wrote comes back the same way. The searches for duplicates
and repeated passages shuffle through it: each of their tasks is sent its range of all shards, and no more. Documents at
URLs are fetched where they are extracted. So a worker that is lost takes nothing with it that is not made again.

The machines have this package installed, and the user's own readers under the same paths. ``RAY_ADDRESS`` names the
cluster; without it, one is started on this machine.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from trivium.corpus.tasks import Pool, Progress, Task, keep
from trivium.errors import TriviumError, missing
from trivium.files import disk_errors

PIECE = 64 << 20
LOSSES = 10
"""How many workers may be lost with the same task in hand."""

Packed = list[tuple[str, list[Any]]]
"""Files by their names below a folder, each in pieces (or references to them)."""


def pool_of(executor: str, scratch: Path, workers: int, progress: Progress,
            say: Callable[[str], None] = lambda text: None) -> Pool:
    """The pool that a recipe's ``executor`` names: ``local`` or ``ray``. ``say`` is told of damage that is mended."""
    pool = RayPool(scratch.absolute(), workers, progress) if executor == "ray" else Pool(scratch, workers, progress)
    pool.say = say
    return pool


class RayPool(Pool):
    """A :class:`Pool` whose tasks run on a Ray cluster, at most ``workers`` of them at a time where it starts one on
    this machine."""

    def __init__(self, scratch: Path, workers: int, progress: Progress) -> None:
        super().__init__(scratch, workers, progress)
        try:
            import ray
        except ImportError as error:
            raise TriviumError(f'{missing("distributed", error)}, or set executor: local') from error
        self.ray: Any = ray
        self.started = False
        if not ray.is_initialized():
            try:
                ray.init(num_cpus=None if _address() else workers, log_to_driver=False, include_dashboard=False,
                         configure_logging=False)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise TriviumError(
                    f"executor: no Ray cluster can be reached at {_address() or 'this machine'} ({error})") from error
            self.started = True
        self.remote: Any = ray.remote(max_retries=LOSSES)(perform_there)
        self.shared: dict[Path, Packed] = {}

    def __exit__(self, kind: object, *_: object) -> None:
        if self.started:
            self.ray.shutdown()

    def _perform(self, tasks: list[Task]) -> Iterator[None]:
        todo = iter(tasks)
        uses = Counter(path for task in tasks if not task.gather for path in task.inputs)
        self.shared = {path: self._sent(path) for path, times in uses.items() if times > 1}
        under_way = dict(map(self._begin, islice(todo, 2 * max(1, self._processors()))))
        while under_way:
            ready, _ = self.ray.wait(list(under_way), num_returns=1)
            try:
                counts, files = self.ray.get(ready[0])
            except self.ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, TriviumError):
                    raise error.cause from None
                raise
            except self.ray.exceptions.RayError as error:
                raise TriviumError(
                    f"{self.scratch}: a worker of the step {tasks[0].step!r} was lost ({type(error).__name__}); "
                    "run the same command again: it goes on from what is done") from error
            keep(under_way.pop(ready[0]), self.scratch, lambda aside: _laid(files, aside, counts))  # noqa: B023
            del files
            under_way |= dict(map(self._begin, islice(todo, 1)))
            yield
        self.shared = {}

    def _begin(self, task: Task) -> tuple[Any, Task]:
        """Send one task off; its reference, and the task."""
        if task.gather:
            given = self.ray.put(task.gather(task.parameters, task.inputs))
        else:
            given = [(path.name, digest if path in self.shared else None, self.shared.get(path) or self._sent(path))
                     for path, digest in zip(task.inputs, task.digests, strict=True)]
        return self.remote.remote(replace(task, inputs=[], digests=[], watched=[]), given), task

    def _sent(self, path: Path) -> Packed:
        """A file or a folder in the object store."""
        return _packed(path, self.ray.put)

    def _processors(self) -> int:
        return int(self.ray.cluster_resources().get("CPU", 1))


def perform_there(task: Task, given: Any) -> tuple[dict[str, Any], Packed]:
    """Do one task on a worker: what it counted, and the files that it wrote."""
    import ray
    with tempfile.TemporaryDirectory(prefix="trivium-task-") as place:
        folder = Path(place)
        (folder / "out").mkdir()
        if isinstance(given, list):
            given = [_unpacked(folder / str(number), name, digest, files, ray.get)
                     for number, (name, digest, files) in enumerate(given)]
        counts = task.function(task.parameters, given, folder / "out")
        return counts, _packed(folder / "out", bytes)


def _packed(path: Path, put: Any) -> Packed:
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    found: Packed = []
    for file in files:
        with open(file, "rb") as stream:
            pieces = [put(piece) for piece in iter(lambda: stream.read(PIECE), b"")]
        found.append((file.relative_to(path).as_posix(), pieces))
    return found


def _unpacked(folder: Path, name: str, digest: str | None, files: Packed, get: Any) -> Path:
    """Lay an input in a folder; one that many tasks share is kept, under its digest, for those that follow."""
    place = (_shared_folder() / digest if digest else folder) / name
    if not place.exists():
        aside = place.with_name(f".{name}.tmp")
        shutil.rmtree(aside.parent, ignore_errors=True)
        aside.mkdir(parents=True)
        _laid([(inner, get(pieces)) for inner, pieces in files], aside)
        single = [inner for inner, _ in files] == ["."]
        (aside / "file" if single else aside).rename(place)
    return place


def _laid(files: Packed, folder: Path, counts: dict[str, Any] | None = None) -> dict[str, Any]:
    """Write files below a folder, safe on disk."""
    for name, pieces in files:
        path = folder / ("file" if name == "." else name)
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as file:
                file.writelines(pieces)
                file.flush()
                os.fsync(file.fileno())
    return counts or {}


@lru_cache(maxsize=1)
def _shared_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="trivium-worker-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _address() -> str:
    return os.environ.get("RAY_ADDRESS", "")
