"""Kills a run of the tiny recipe again and again, at random instants and by every means, and compares what comes of it
with an undisturbed run, file by file.

    python tests/kills/kill.py --kills 1000 --seed 1 --precision bf16
    python tests/kills/kill.py --recipe others --kills 200
    python tests/kills/kill.py --way command --kills 100
    python tests/kills/kill.py --way disk --kills 50

``fork``: the run is a fork of this process, and one process. ``command``: it is the command, whose stages run side by
side in workers; the whole group is killed, or the parent alone, or a worker alone. ``disk``: the disk fills up, runs
out of inodes, becomes read-only or refuses large files at random instants (a file system in memory of this process's
own, where the system lets it have one).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import scene

from trivium.cli import app
from trivium.files import TEMPORARY

for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # before PyTorch is there: this process is forked, so nothing may have threads
os.environ["TOKENIZERS_PARALLELISM"] = "false"

LONGEST = 600.0
"""Seconds after which an attempt is taken to hang."""


class Play:
    """One run of the recipe in a folder of its own: attempts that are killed, and one that comes to its end."""

    def __init__(self, folder: Path, recipe: str, precision: str, dice: random.Random, tally: Counter[str],
                 words: Sequence[str] = (), half_written: float = 0.25) -> None:
        self.folder, self.dice, self.tally, self.half_written = folder, dice, tally, half_written
        self.words, self.stages = ["run", "recipe.yaml", "--quiet", *words], scene.stages_of(recipe)
        scene.write(folder, recipe, precision)
        self.run, self.log = folder / "runs/killed", folder / "said.txt"

    def fork(self, before: Callable[[], None] = lambda: None) -> int:
        """Start an attempt as a fork; its process."""
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until what follows can hear of it
        process = os.fork()
        if process:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            with contextlib.suppress(OSError):
                os.setpgid(process, process)
            return process
        code = 1
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            os.setpgid(0, 0)
            with open(self.log, "ab", 0) as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            os.chdir(self.folder)
            before()
            sys.argv = ["trivium", *self.words, "--set", "threads=1"]
            app.main()
        except SystemExit as error:
            code = int(error.code or 0)
        except KeyboardInterrupt:  # before the command has begun, or after it has ended
            code = 130
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            sys.stderr.flush()
            os._exit(code)

    def command(self) -> int:
        """Start an attempt as the command, with workers; its process."""
        with open(self.log, "ab") as log:
            self.started = subprocess.Popen([sys.executable, "-m", "trivium.cli", *self.words], cwd=self.folder,
                                            stdout=log, stderr=log, start_new_session=True)
        return self.started.pid

    def aim(self) -> Callable[[], bool]:
        """An instant: after some time, a while after a stage began, or as soon as a file is half written."""
        begun, kind = time.monotonic(), self.dice.random()
        after = self.dice.expovariate(1 / 0.5)
        if kind > self.half_written + 0.35:
            return lambda: time.monotonic() - begun > after
        if kind > self.half_written:
            left = [stage for stage in self.stages if not (self.run / stage).exists()] or self.stages
            stage, delay, seen = self.dice.choice(left[:4]), self.dice.random() * 0.3, [0.0]

            def in_stage() -> bool:
                with contextlib.suppress(OSError):
                    if not seen[0] and any((self.run / ".work").glob(f"{stage}-*")):
                        seen[0] = time.monotonic()
                return bool(seen[0]) and time.monotonic() - seen[0] > delay

            return in_stage
        skip = [self.dice.randrange(15)]

        def half_written() -> bool:
            with contextlib.suppress(OSError):  # gone again while it was looked for
                skip[0] -= any(TEMPORARY.fullmatch(path.name) for path in (self.run / ".work").glob("*/*/.*.tmp"))
            return skip[0] < 0

        return half_written

    def disturb(self, process: int, workers: bool) -> int | None:
        """Wait for an instant and do something to an attempt; its exit status where it has ended."""
        reached, started = self.aim(), time.monotonic()
        while not reached():
            if (code := ended(process)) is not None:
                return code
            if time.monotonic() - started > LONGEST:
                os.killpg(process, signal.SIGKILL)
                raise AssertionError(f"{self.folder}: an attempt hangs")
            time.sleep(0.001)
        sort = self.dice.choices([signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSTOP], [70, 10, 10, 10])[0]
        whom = self.dice.choice(["group", "parent", "worker"]) if workers else "parent"
        targets = children(process) if whom == "worker" else []
        if whom == "worker" and (not targets or sort == signal.SIGINT):  # workers leave the keyboard to the run
            whom, targets = "parent", []
        victim = self.dice.choice(targets) if targets else process
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if whom == "group" else os.kill)(victim, sort)
        self.tally[f"{sort.name} {whom}" if workers else sort.name] += 1
        if sort == signal.SIGSTOP:
            time.sleep(self.dice.random() * 0.3)
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if whom == "group" else os.kill)(victim, signal.SIGCONT)
            return self.disturb(process, workers)
        return wait(process)

    def perform(self, workers: bool, most: int) -> None:
        """Attempts until one ends well."""
        for _ in range(most):
            code = self.disturb(self.command() if workers else self.fork(), workers)
            if code == 0:
                break
            self.check_said(code)
        else:
            code = wait(self.command() if workers else self.fork())
        assert code == 0, f"{self.folder}: an undisturbed attempt ends with {code}: {self.said()}"

    def said(self) -> str:
        """The last that attempts have said."""
        return self.log.read_text(errors="replace")[-1500:] if self.log.exists() else ""

    def check_said(self, code: int | None) -> None:
        """An attempt that was killed says at most one line, never a traceback."""
        assert "Traceback" not in self.said() and "fault of Trivium" not in self.said(), self.said()
        assert code in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, 130, 2), (code, self.said())


def kills_in(tally: Counter[str]) -> int:
    """How many kills there were; to be stopped for a while is none."""
    return sum(count for what, count in tally.items() if not what.startswith("SIGSTOP"))


def ended(process: int) -> int | None:
    """The exit status of a child, or None while it runs."""
    number, status = os.waitpid(process, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if number else None


def wait(process: int) -> int:
    """The exit status of a child, when it has ended."""
    started = time.monotonic()
    while (code := ended(process)) is None:
        assert time.monotonic() - started < LONGEST, f"process {process} hangs"
        time.sleep(0.002)
    return code


def children(process: int) -> list[int]:
    """The processes that one has started."""
    with contextlib.suppress(OSError):
        return [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return []


@contextlib.contextmanager
def own_disk(place: Path, options: str) -> Iterator[Callable[[str], None]]:
    """A file system in memory at a place; gives what mounts it anew with other options."""
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(place)], check=True)
    try:
        yield lambda options: subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True) and None
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def on_a_bad_disk(play: Play, most: int) -> None:
    """Attempts on a disk that fails in several ways, until it is well again."""
    room = {"full": lambda: f"size={play.dice.randrange(40, 3000)}k,nr_inodes=0",
            "inodes": lambda: f"size=64m,nr_inodes={play.dice.randrange(5, 300)}"}
    with own_disk(play.folder / "runs", "size=64m,nr_inodes=0") as mount:
        for _ in range(most):
            kind = play.dice.choice(["full", "inodes", "read-only", "small files"])
            play.tally[kind] += 1
            limit = play.dice.randrange(1, 200) << 10
            if kind == "small files":
                process = play.fork(lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
            else:
                if kind in room:
                    with contextlib.suppress(subprocess.CalledProcessError):  # less than what is there already
                        mount(room[kind]())
                process = play.fork()
                if kind == "read-only":
                    time.sleep(play.dice.expovariate(1 / 1.0))
                    os.kill(process, signal.SIGSTOP)
                    with contextlib.suppress(subprocess.CalledProcessError):  # something is being written
                        mount("ro")
                    os.kill(process, signal.SIGCONT)
            code = wait(process)
            mount("rw,size=64m,nr_inodes=0")
            play.check_said(code) if code else None
        assert wait(play.fork()) == 0, play.said()
        mount("ro")
        assert wait(play.fork()) == 0, f"a finished run on a read-only disk: {play.said()}"
        mount("rw")
        shutil.copytree(play.folder / "runs", play.folder / "kept")
    play.run = play.folder / "kept/killed"


def main() -> None:
    """Kill until there were so many kills, and say what differs; exit status 1 where something does."""
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("--kills", type=int, default=1000)
    told.add_argument("--seed", type=int, default=0)
    told.add_argument("--way", choices=["fork", "command", "disk"], default="fork")
    told.add_argument("--recipe", choices=[*scene.RECIPES], default="training")
    told.add_argument("--precision", choices=["float32", "bf16", "bf16-weights"], default="float32")
    told.add_argument("--most", type=int, default=14, help="kills of one run before it may end")
    told.add_argument("--minutes", type=float, default=1e9, help="begin no run after so many minutes")
    told.add_argument("--only", action="append", default=[], help="make this stage and what it needs, not all")
    told.add_argument("--half-written", type=float, default=0.25, help="the share of kills at a half-written file")
    asked = told.parse_args()
    if asked.way == "disk" and os.environ.get("TRIVIUM_OWN_DISK") is None:
        os.environ["TRIVIUM_OWN_DISK"] = "1"
        os.execvp("unshare", ["unshare", "-rm", sys.executable, *sys.argv])
    words = [word for stage in asked.only for word in ("--only", stage)]
    print(json.dumps(play_all(asked.kills, asked.seed, asked.way, asked.precision, asked.most, asked.minutes * 60,
                              words, asked.half_written, asked.recipe)))


def play_all(kills: int, seed: int, way: str, precision: str, most: int = 14,
             seconds: float = float("inf"), words: Sequence[str] = (), half_written: float = 0.25,
             recipe: str = "training") -> dict[str, Any]:
    """Play until there were so many kills. Returns what was done, and how many runs, files and digests differed.
    Raises :class:`AssertionError` where something does, and leaves the folder as it is."""
    tally: Counter[str] = Counter()
    begun, runs, files = time.monotonic(), 0, 0
    root = Path(tempfile.mkdtemp(prefix="kills-"))
    first = Play(root / "undisturbed", recipe, precision, random.Random(0), Counter(), words)
    if way != "command":  # here, so that every fork has imported what stages import
        os.chdir(first.folder)
        from trivium.pipeline.run import run
        run("recipe.yaml", ["threads=1"], words[1::2])
        os.chdir("/")
    else:
        assert wait(first.command()) == 0, first.said()
    wanted = scene.picture(first.run)
    different: dict[str, list[str]] = {}
    while kills_in(tally) < kills and time.monotonic() - begun < seconds:
        play = Play(root / f"run{runs}", recipe, precision, random.Random(f"{seed}/{way}/{precision}/{runs}"), tally,
                    words, half_written)
        fewest = min(most, kills - kills_in(tally))
        if way == "disk":
            on_a_bad_disk(play, min(fewest, 6))
        else:
            play.perform(way == "command", fewest)
        runs, files = runs + 1, files + len(wanted)
        if found := scene.differences(play.run, wanted):
            different[str(play.folder)] = found
            print(f"{play.folder}: {found}", file=sys.stderr, flush=True)
        else:
            shutil.rmtree(play.folder)
        print(f"{kills_in(tally)} kills, {runs} runs, {len(different)} differ", file=sys.stderr, flush=True)
    if not different:
        shutil.rmtree(root)
    assert not different, different
    return {"way": way, "recipe": recipe, "precision": precision, "seed": seed, "kills": kills_in(tally), "runs": runs,
            "files_compared": files, "weights": runs * sum(name.endswith(".safetensors") for name in wanted),
            "different": len(different), "by": dict(sorted(tally.items())),
            "seconds": round(time.monotonic() - begun)}


if __name__ == "__main__":
    main()
