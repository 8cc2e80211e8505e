"""Starting, queueing and stopping runs. A run is a process of its own, ``trivium run RECIPE``: it lives on when the
page, or the studio itself, goes away.

The queue is a folder: every job is a file, so what was asked for is still there when the studio starts again.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trivium.errors import TriviumError
from trivium.files import read_json, runs, write_json, write_text
from trivium.model.fetch import is_fetched
from trivium.recipe.load import Recipe, parse_recipe, read_yaml
from trivium.status import is_locked, read_status
from trivium.studio.runs import Runs

LARGEST = 1_000_000
"""Characters of a recipe."""
LAST_WORDS = 4000
"""Characters of a run's output that are shown."""


class Jobs:
    """The runs that this studio is to start, in the order in which they were asked for, so many at a time."""

    def __init__(self, found: Runs, at_once: int = 1) -> None:
        self.runs, self.at_once = found, at_once
        self.folder = found.root / ".studio"
        self.guard = threading.Lock()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def parse(self, text: str) -> Recipe:
        """A recipe, checked as the command line checks it. Raises :class:`TriviumError` with the place of the fault."""
        if len(text) > LARGEST:
            raise TriviumError(f"a recipe may have {LARGEST:,} characters")
        return parse_recipe(there(read_yaml(text)), Path("recipe"), [f"out={self.out}"])

    @property
    def out(self) -> str:
        """The folder of the runs, as a recipe names it."""
        return os.path.abspath(self.runs.root)

    def add(self, text: str) -> dict[str, Any]:
        """Put a recipe in the queue: it starts at once where nothing else runs. Raises :class:`TriviumError` for a
        wrong recipe, and for one whose run is under way."""
        recipe = self.parse(text)
        with self.guard:
            if is_locked(recipe.folder) or self.begins(recipe) or any(
                    job["run"] == recipe.name for _, job in self.waiting()):
                raise TriviumError(f"the run {recipe.name!r} is under way or waits already; stop it first, or give "
                                   "the recipe another `name`")
            name = f"{time.time_ns():020}-{secrets.token_hex(3)}"  # in the order in which they were asked for
            self.folder.joinpath("jobs").mkdir(parents=True, exist_ok=True)
            self.folder.joinpath("recipes").mkdir(exist_ok=True)
            file = self.folder / "recipes" / f"{recipe.name}-{name}.yaml"
            write_text(file, text)
            job = {"run": recipe.name, "recipe": str(file), "asked": time.time()}
            write_json(self.folder / "jobs" / f"{name}.json", job)
        self.start_next()
        return job | {"id": name}

    def begins(self, recipe: Recipe) -> bool:
        """Whether a run was started that holds no lock yet: it is still reading its recipe."""
        process = self.processes.get(recipe.name)
        status = read_status(recipe.folder)
        return process is not None and process.poll() is None and (status is None or status["process"] != process.pid)

    def again(self, name: str) -> dict[str, Any]:
        """Let a run that was interrupted go on, by the recipe that it was started with."""
        status = read_status(self.runs.folder(name))
        file = Path(status["recipe"]) if status and status["recipe"] else None
        if file is None or not file.is_file():
            raise TriviumError(f"{name}: the recipe that it was started with is not there any more; start it by its "
                               "recipe")
        if status and set(status["overrides"]) - {f"out={self.out}"}:
            raise TriviumError(f"{name}: it was started with --set on the command line; go on there: trivium run "
                               f"{file} {' '.join(f'--set {one}' for one in status['overrides'])}")
        return self.add(file.read_text(encoding="utf-8"))

    def waiting(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The jobs that have not been started, the oldest first."""
        for file in sorted(self.folder.glob("jobs/*.json")):
            with contextlib.suppress(TriviumError):
                job = read_json(file)
                if isinstance(job, dict) and isinstance(job.get("run"), str) and isinstance(job.get("recipe"), str):
                    yield file.stem, job

    def withdraw(self, identity: str) -> None:
        """Take a job out of the queue."""
        if not re.fullmatch(r"[0-9]+-[0-9a-f]+", identity):
            raise TriviumError("there is no such job")
        with self.guard:
            self.folder.joinpath("jobs", f"{identity}.json").unlink(missing_ok=True)

    def start_next(self) -> None:
        """Start what waits, where there is room for it."""
        with self.guard:
            for identity, job in list(self.waiting()):
                if self.running() >= self.at_once:
                    return
                self.start(job)
                self.folder.joinpath("jobs", f"{identity}.json").unlink(missing_ok=True)

    def running(self) -> int:
        """How many runs are under way here, those that another program started included."""
        self.processes = {name: one for name, one in self.processes.items() if one.poll() is None}
        locked = {about["name"] for about in self.runs.all() if about["state"] == "running"}
        return len(locked | self.processes.keys())

    def start(self, job: dict[str, Any]) -> None:
        """Start a run in a session of its own. What it prints goes to a file beside its recipe."""
        with open(self.output(job["run"]), "wb") as output:
            self.processes[job["run"]] = subprocess.Popen(
                [sys.executable, "-m", "trivium.cli", "run", job["recipe"], "--set", f"out={self.out}"],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)

    def output(self, run: str) -> Path:
        """Where the output of a run goes that was started here."""
        return self.folder / "recipes" / f"{run}.log"

    def last_words(self, run: str) -> str:
        """The end of what a run printed that was started here."""
        try:
            with open(self.output(run), "rb") as output:
                output.seek(max(0, output.seek(0, os.SEEK_END) - LAST_WORDS))
                return output.read().decode("utf-8", "replace")
        except OSError:
            return ""

    def stop(self, name: str, at_once: bool = False) -> None:
        """Interrupt a run: it goes on from its last checkpoint when it is started again. ``at_once`` does not wait for
        what it is doing. Raises :class:`TriviumError` where it cannot be found."""
        folder = self.runs.folder(name)
        status = read_status(folder)
        if status is None or status["state"] != "running" or not is_trivium(int(status["process"])):
            raise TriviumError(f"{name}: is not under way on this machine")
        os.kill(int(status["process"]), signal.SIGKILL if at_once else signal.SIGINT)


def there(settings: Any) -> Any:
    """Settings in which a folder that is there stands for every model that is still to be fetched: the run itself will
    fetch it, which may take long."""
    if isinstance(settings, dict):
        return {name: there(value) for name, value in settings.items()}
    if isinstance(settings, list):
        return [there(value) for value in settings]
    if isinstance(settings, str) and re.fullmatch(r"pypi:[\w.=+!-]+", settings) and not is_fetched(settings):
        return os.getcwd()
    return settings


def is_trivium(process: int) -> bool:
    """Whether a process of this number is alive and is one of ours, as far as the system tells."""
    if process < 2 or not runs(process):
        return False
    try:
        return b"trivium" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return not Path("/proc").is_dir()
