"""Runs programs that a model wrote: in a process of their own with limits of time, memory, files and processes, a
folder of their own that is deleted afterwards, an empty environment and, where the kernel allows it, without a network,
without a sight of other processes and with every other file system read-only."""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from trivium.errors import TriviumError

LAUNCHER = Path(__file__).with_name("sandbox_process.py")
NAMESPACES = ["--net", "--pid", "--mount", "--ipc", "--fork", "--kill-child"]
PROCESSES = 32
"""Processes and threads that a program may have."""
FILE_BYTES = 4 << 20
"""The longest file that a program may write."""


@dataclass(frozen=True)
class Verdict:
    """What became of a program."""

    passed: bool
    """Whether it ran to its last line."""
    why: str
    """The last line that it said about its failure, or that its time was up; empty where it passed."""


@lru_cache(maxsize=1)
def apart() -> tuple[str, ...]:
    """The command that gives a program namespaces of its own; none where the system has none for us."""
    tool = shutil.which("unshare")
    for ways in ([] if tool is None else [[*NAMESPACES], ["--user", "--map-root-user", *NAMESPACES]]):
        command = (str(tool), *ways)
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            if subprocess.run([*command, sys.executable, "-I", "-S", "-c", ""], capture_output=True,
                              timeout=20).returncode == 0:
                return command
    return ()


def run_programs(programs: Sequence[str], seconds: float = 3.0, memory_bytes: int = 1 << 30,
                 at_once: int | None = None) -> list[Verdict]:
    """Run each program by itself, a few at once. ``seconds`` of computing time are given to each, and four times as
    long on the clock. Raises :class:`TriviumError` on a system without limits for processes."""
    if os.name != "posix":
        raise TriviumError("programs that a model wrote are run on Linux and macOS alone: this system has no limits "
                           "for processes")
    apart()
    with ThreadPoolExecutor(at_once or os.cpu_count() or 1) as pool:
        return list(pool.map(lambda one: run_program(one, seconds, memory_bytes), programs))


def run_program(program: str, seconds: float = 3.0, memory_bytes: int = 1 << 30) -> Verdict:
    """Run one program; it passes when its last line was reached and it ended well, not by merely ending."""
    word = secrets.token_hex(16)  # said behind the last line
    with tempfile.TemporaryDirectory(prefix="trivium-program-", ignore_cleanup_errors=True) as place, \
            tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        room = os.path.realpath(place)
        Path(room, "program.py").write_text(f"{program}\n__import__('os').write(1, b'\\n{word}\\n')\n",
                                            encoding="utf-8", errors="replace")
        os.chmod(room, 0o777)
        command = [*apart(), sys.executable, "-I", "-S", str(LAUNCHER), room,
                   *map(str, (math.ceil(seconds), memory_bytes, PROCESSES, FILE_BYTES))]
        environment = {"PATH": "/usr/bin:/bin", "HOME": room, "TMPDIR": room, "LC_ALL": "C.UTF-8",
                       "OMP_NUM_THREADS": "1"} | ({"APART": "1"} if apart() else {})
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, cwd=room,
                                   env=environment, start_new_session=True)
        try:
            code = process.wait(4 * seconds + 2)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if code == 0 and word.encode() in _end(out, FILE_BYTES):
            return Verdict(True, "")
        if code is None or code in (-signal.SIGXCPU, -signal.SIGKILL, 128 + signal.SIGXCPU, 128 + signal.SIGKILL):
            return Verdict(False, "its time was up")
        said = _end(errors, 4096).decode("utf-8", "replace").strip().splitlines()
        if said and said[-1].startswith("unshare:"):  # which cannot pass on the signal
            said = ["it was ended by a signal: its computing time was up, or the interpreter broke"]
        return Verdict(False, said[-1] if said else "it ended before its last line")


def _end(file: BinaryIO, size: int) -> bytes:
    """The last bytes of a file."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - size))
    return file.read()
