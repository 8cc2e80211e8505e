"""What runs of one pool make once for all: a finished stage of the same key is linked into the folder of the run that
needs it, and of two runs that need it at once one makes it and the other waits.

Links are hard links, so that nothing is stored twice and each run stays whole when another is removed; where the file
system has none, files are copied. The key says all that decides what a stage makes, so nothing else is compared.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from trivium import remote
from trivium.artifacts import MANIFEST, open_artifact, read_manifest
from trivium.errors import TriviumError
from trivium.files import disk_errors, write_json

POLL_SECONDS = 0.2
NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def pooled(pool: str | None, folder: Path, name: str, key: str, target: Path) -> Path | None:
    """``target``, made an artifact of links to what another run of the ``pool`` has finished under ``key``; None where
    there is no pool, or none has. ``folder`` is the run's own.

    Raises :class:`TriviumError` for a full or failing disk, and for an artifact that was damaged."""
    for made in candidates(pool, name) if pool else ():
        try:
            if made.parent == folder or read_manifest(made)["key"] != key:
                continue
            open_artifact(made)
        except TriviumError:
            if not made.exists():  # it was superseded just now
                continue
            raise
        with contextlib.suppress(FileNotFoundError), disk_errors(target):
            link(made, target, folder / name)
            return target
    return None


def candidates(pool: str, name: str) -> Iterator[Path]:
    """Where runs of a pool may have a finished stage of that name: runs lie in the pool, or in folders in it."""
    for depth in ("*", "*/*"):
        for place in (glob.escape(name), f"superseded/{glob.escape(name)}-*"):
            yield from (found.parent for found in sorted(Path(pool).glob(f"{depth}/{place}/{MANIFEST}")))


def link(made: Path, target: Path, place: Path) -> None:
    """Link an artifact's files into ``target``, which is to be put at ``place``; its manifest names the inputs as seen
    from there. Raises :class:`FileNotFoundError` where the artifact goes away meanwhile."""
    shutil.rmtree(target, ignore_errors=True)
    manifest = read_manifest(made)
    for name in (*manifest["files"], *manifest.get("records", {})):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        link_file(made / name, target / name)
    for one in manifest["inputs"].values():
        if remote.elsewhere(one["path"]):
            continue
        origin = Path(os.path.normpath(made.absolute() / one["path"]))
        beside = origin.parent == made.absolute().parent  # a stage of the same run: this run has its own
        one["path"] = os.path.relpath(place.absolute().parent / origin.name if beside else origin, place.absolute())
    target.mkdir(parents=True, exist_ok=True)
    write_json(target / MANIFEST, manifest)


def link_file(file: Path, place: Path) -> None:
    """A hard link, or a copy where there can be none."""
    try:
        os.link(file, place)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        shutil.copy2(file, place)


@contextlib.contextmanager
def alone(pool: str | None, key: str, say: Callable[[str], None]) -> Iterator[None]:
    """Within it, no other run of the pool makes what has this key. ``say`` is told when another one does. Where the
    file system has no locks, two may make the same."""
    if pool is None:
        yield
        return
    place = Path(pool) / ".locks" / key[:16]
    with disk_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = open(place, "a")
    with lock:
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EINTR):
                    break
            if not told:
                say("waits for another run, which makes the same")
                told = True
            time.sleep(POLL_SECONDS)
        yield
