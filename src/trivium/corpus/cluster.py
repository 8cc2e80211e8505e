"""Tasks on a Ray cluster: the same tasks, folders and names as on one machine, so the same bytes.

The cluster's machines share the scratch folder (a network file system), see the documents under the same paths and have
this package installed. ``RAY_ADDRESS`` names the cluster; without it, one is started on this machine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from trivium.corpus.tasks import Pool, Progress, Task, perform
from trivium.errors import TriviumError, missing


def pool_of(executor: str, scratch: Path, workers: int, progress: Progress,
            say: Callable[[str], None] = lambda text: None) -> Pool:
    """The pool that a recipe's ``executor`` names: ``local`` or ``ray``. ``say`` is told of damage that is mended."""
    pool = RayPool(scratch.absolute(), workers, progress) if executor == "ray" else Pool(scratch, workers, progress)
    pool.say = say
    return pool


class RayPool(Pool):
    """A :class:`Pool` whose tasks run on a Ray cluster, at most ``workers`` of them at a time on each of its machines'
    processors."""

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
        # a task that was killed with its machine is done again: it leaves nothing behind but what it finished
        self.remote: Any = ray.remote(max_retries=3)(perform)

    def __exit__(self, kind: object, *_: object) -> None:
        if self.started:
            self.ray.shutdown()

    def _perform(self, tasks: list[Task]) -> Iterator[None]:
        todo = iter(tasks)
        under_way = [self.remote.remote(task, self.scratch) for task in islice(todo, 4 * max(1, self._processors()))]
        while under_way:
            ready, under_way = self.ray.wait(under_way, num_returns=1)
            try:
                self.ray.get(ready)
            except self.ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, TriviumError):
                    raise error.cause from error
                raise
            except self.ray.exceptions.RayError as error:
                raise TriviumError(
                    f"{self.scratch}: a worker of the step {tasks[0].step!r} was lost ({type(error).__name__}); "
                    "run the same command again: it goes on from what is done") from error
            under_way += [self.remote.remote(task, self.scratch) for task in islice(todo, 1)]
            yield

    def _processors(self) -> int:
        return int(self.ray.cluster_resources().get("CPU", 1))


def _address() -> str:
    return os.environ.get("RAY_ADDRESS", "")
