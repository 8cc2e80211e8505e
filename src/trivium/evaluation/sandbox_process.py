"""What stands between the examination and a program that a model wrote: run as a file, in the process that becomes the
program. It takes away what the program does not need, and then its own rights.

    python -I -S sandbox_process.py ROOM SECONDS MEMORY PROCESSES FILE_BYTES
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
LOCKED = {"nosuid": 2, "nodev": 4, "noexec": 8, "noatime": 1024, "nodiratime": 2048, "relatime": 1 << 21}
"""Options of a mount that a remount must repeat (mount(2))."""
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
NOBODY = 65534


def read_only(room: str, python: str) -> str:
    """Make every file system but ``room`` read-only, in a mount namespace of its own, and Python reachable in the room
    for those who may not see where it lies. Returns the interpreter. Does nothing where the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    mount = libc.mount
    if mount(None, b"/", None, MS_REC | MS_PRIVATE, None) != 0:
        return python
    mount(room.encode(), room.encode(), None, MS_BIND, None)
    inside = os.path.join(room, "python")
    os.makedirs(inside, exist_ok=True)
    if mount(sys.base_prefix.encode(), inside.encode(), None, MS_BIND | MS_REC, None) == 0:
        there = os.path.join(inside, os.path.relpath(python, os.path.realpath(sys.base_prefix)))
        python = there if os.path.exists(there) else python
    mount(b"proc", b"/proc", b"proc", 0, None)  # of its own processes alone
    with open("/proc/self/mounts", encoding="utf-8") as file:
        mounted = [line.split()[1:4:2] for line in file]
    for place, options in mounted:
        place = place.encode().decode("unicode_escape")
        if place != room:
            kept = sum(flag for name, flag in LOCKED.items() if name in options.split(","))
            mount(None, place.encode(), None, MS_REMOUNT | MS_BIND | MS_RDONLY | kept, None)
    return python


def limit(name: str, value: int) -> None:
    """Lower a limit of this process and its children, where the system has it."""
    kind = getattr(resource, name, None)
    if kind is not None:
        with contextlib.suppress(ValueError, OSError):  # one that is lower already stays
            resource.setrlimit(kind, (value, value))


def nobody_reaches(python: str) -> bool:
    """Whether nobody may run the interpreter."""
    os.seteuid(NOBODY)
    try:
        return os.access(python, os.X_OK, effective_ids=True)
    finally:
        os.seteuid(0)


def lower_rights(python: str) -> None:
    """Never gain rights again, and be nobody where this is the system's own root: limits do not bind root."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        for capability in range(64):
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    with contextlib.suppress(OSError):
        if os.getuid() == 0 and nobody_reaches(python):
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)


def main() -> None:
    """Become the program."""
    room, python = sys.argv[1], os.path.realpath(sys.executable)
    seconds, memory, processes, file_bytes = map(int, sys.argv[2:])
    if os.environ.pop("APART", ""):
        python = read_only(room, python)
    os.chdir(room)
    for name, value in (("RLIMIT_CPU", seconds), ("RLIMIT_AS", memory), ("RLIMIT_DATA", memory),
                        ("RLIMIT_FSIZE", file_bytes), ("RLIMIT_NOFILE", 64), ("RLIMIT_CORE", 0)):
        limit(name, value)
    lower_rights(python)
    limit("RLIMIT_NPROC", processes)
    os.execv(python, [python, "-I", "-S", "program.py"])


if __name__ == "__main__":
    main()
