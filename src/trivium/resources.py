"""What this process may use of the machine, and what it has used."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from pathlib import Path


def usable_cores() -> int:
    """The processor cores to use: as many as ``OMP_NUM_THREADS`` says, else all that this process may use."""
    usable = getattr(os, "sched_getaffinity", None)  # not there on macOS
    count = len(usable(0)) if usable else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(count, max(1, int(asked))) if asked.isdecimal() else count


def peak_memory_mb() -> float:
    """The most memory this process has held so far, plus the most that one of its children held. Linux gives a child
    what this process held when it started it, so of children that stayed below this process's own most nothing can be
    told, and none is counted."""
    own, child = (resource.getrusage(who).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
                  for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    # Linux counts in what the process that started this one held then
    with contextlib.suppress(OSError, StopIteration):
        own = next(
            int(line.split()[1])
            for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")) / 1024
    return round(own + (child if child > own else 0.0), 1)


def available_memory() -> float:
    """Bytes that this process may still take: what the system has without swapping, within the limits of its group and
    of its own. Infinite where the system does not say."""
    found = [float("inf")]
    with contextlib.suppress(OSError, StopIteration, ValueError):
        found.append(1024 * next(int(line.split()[1])
                                 for line in Path("/proc/meminfo").read_text().splitlines()
                                 if line.startswith("MemAvailable:")))
    with contextlib.suppress(OSError, ValueError):  # a container's own, which counts what can be dropped as taken
        group = Path("/sys/fs/cgroup")
        held = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        found.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()) +
                     int(held["inactive_file"]))
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    with contextlib.suppress(OSError, ValueError):
        if limit != resource.RLIM_INFINITY:
            found.append(limit - resource.getpagesize() * int(Path("/proc/self/statm").read_text().split()[0]))
    return max(0.0, min(found))


def running_and_waiting() -> tuple[float, float]:
    """The seconds that this process's threads have run, and those that they have waited for a core that others used.
    Both are 0 where the system does not say."""
    ran, waited = 0, 0
    with contextlib.suppress(OSError, ValueError):
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):  # a thread that has ended
                run, wait, _ = map(int, (task / "schedstat").read_text(encoding="ascii").split())
                ran, waited = ran + run, waited + wait
    return ran / 1e9, waited / 1e9
