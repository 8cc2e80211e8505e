"""Runs what a study lacks, several runs side by side. One that fails does not keep the others from going on."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trivium.artifacts import Artifact
from trivium.errors import TriviumError, counted
from trivium.files import disk_errors
from trivium.pipeline.run import current, locked, make_folder
from trivium.pipeline.workers import SECONDS_TO_END
from trivium.progress import Progress
from trivium.resources import usable_cores
from trivium.study.settings import Plan, Run
from trivium.training.machine import choose_device


@dataclass
class Outcome:
    """What there is of a run."""

    run: Run
    artifacts: dict[str, Artifact]
    """Its finished stages, as the study is now."""
    missing: list[str]
    """The stages that are not finished."""
    why: str = ""
    """What ended it, where it failed just now."""


def outcome(run: Run, why: str = "") -> Outcome:
    """Look at what there is of a run."""
    from trivium.recipe.load import needed
    made = current(run.recipe, run.only)
    wanted = needed(run.recipe.stages, run.only)
    return Outcome(run, made, [name for name in run.recipe.stages if name in wanted and name not in made], why)


def carry_out(plan: Plan, jobs: int | None = None, quiet: bool = False, go: bool = True) -> list[Outcome]:
    """Run what is missing, ``jobs`` runs at a time, and look at all of them; without ``go`` look only.

    Raises :class:`TriviumError` where another study runs in the same folder."""
    found = {id(run): outcome(run) for run in plan.runs}
    todo = [run for run in plan.runs if found[id(run)].missing]
    if todo and go:
        make_folder(plan.study.folder)
        with Progress(quiet) as shown, locked(plan.study.folder, shown.say):
            shown.name = plan.study.name
            jobs, threads = share_out(plan, todo, jobs)
            shown.say(f"{counted(len(todo), 'run')} to do of {len(plan.runs)}, {jobs} at a time with "
                      f"{counted(threads, 'core')} each")
            failed = run_all(todo, jobs, threads, shown)
        for run in todo:
            found[id(run)] = outcome(run, failed.get(id(run), ""))
    return [found[id(run)] for run in plan.runs]


def share_out(plan: Plan, todo: Sequence[Run], jobs: int | None) -> tuple[int, int]:
    """How many runs go on at once, and how many cores each has. On an accelerator one at a time, unless ``jobs`` says
    otherwise: its memory is one run's."""
    threads = plan.study.threads or next((run.recipe.threads for run in todo if run.recipe.threads), None)
    cores = usable_cores()
    if jobs is None:
        jobs = max(1, cores // (threads or 1)) if choose_device().type == "cpu" else 1
    jobs = min(jobs, len(todo))
    return jobs, threads or max(1, cores // jobs)


class Job:
    """A process that does one run."""

    def __init__(self, run: Run, threads: int, shown: Progress) -> None:
        self.run, self.shown, self.torn, self.error, self.done = run, shown, b"", "", False
        log = run.recipe.folder / ".work" / "study.log"
        with disk_errors(log):
            make_folder(run.recipe.folder)
            errors = open(log, "ab")
        # the run inherits it: the study that started it hears the keyboard
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with errors:
                self.process = subprocess.Popen([sys.executable, "-m", "trivium.study.worker"], stdin=subprocess.PIPE,
                                                stdout=subprocess.PIPE, stderr=errors, bufsize=0)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        assert self.process.stdin and self.process.stdout
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        job = {"recipe": str(run.file), "overrides": [*run.overrides, f"threads={threads}"], "only": run.only}
        data = memoryview(json.dumps(job).encode() + b"\n")
        while data:
            data = data[self.stdin.write(data):]

    def hear(self) -> bool:
        """Take note of what it says; whether it has ended."""
        data = os.read(self.stdout.fileno(), 1 << 16)
        *whole, self.torn = (self.torn + data).split(b"\n")
        for line in whole:
            self.heard(json.loads(line))
        if data:
            return False
        code = self.process.wait()
        if not self.done and not self.error:
            why = "was killed; is there enough memory?" if code == -signal.SIGKILL else f"ended with status {code}"
            self.error = f"its process {why}"
        return True

    def heard(self, told: dict[str, Any]) -> None:
        """One thing that it says."""
        if "say" in told:
            self.shown.say(told["say"])
        elif "update" in told:
            self.shown.update(*told["update"])
        elif "error" in told:
            self.error = str(told["error"])
        self.done = self.done or "done" in told

    def end(self) -> None:
        """Let it go, whatever it is doing; it goes on from its last checkpoint when the study does."""
        self.process.terminate()
        try:
            self.process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.stdin.close()
        self.stdout.close()
        self.shown.end()


def run_all(todo: Sequence[Run], jobs: int, threads: int, shown: Progress) -> dict[int, str]:
    """Do the runs, so many at a time; why each of those that failed did."""
    waiting, busy, failed = list(todo), list[Job](), dict[int, str]()
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or busy:
                while waiting and len(busy) < jobs:
                    run = waiting.pop(0)
                    busy.append(Job(run, threads, shown.beside(run.label)))
                    selector.register(busy[-1].stdout, selectors.EVENT_READ, busy[-1])
                for key, _ in selector.select():
                    job: Job = key.data
                    if not job.hear():
                        continue
                    selector.unregister(job.stdout)
                    busy.remove(job)
                    if job.error:
                        failed[id(job.run)] = job.error
                        job.shown.say(f"failed: {job.error}")
                    else:
                        left = len(waiting) + len(busy)
                        job.shown.say(f"done; {counted(left, 'run')} to go" if left else "done")
                    job.end()
        finally:
            for job in busy:
                job.end()
    return failed


def lacking(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The runs that lack stages, each with what it lacks and why."""
    return [{"setting": one.run.setting, "seed": one.run.seed, "stages": one.missing,
             "why": one.why or "not run to the end yet"} for one in outcomes if one.missing]


def left_over(plan: Plan) -> list[str]:
    """Folders of runs that the study does not name any more."""
    named = {run.recipe.folder for run in plan.runs}
    return sorted(str(place) for place in plan.study.folder.glob("*/seed-*") if place not in named)


def check_any(outcomes: Sequence[Outcome]) -> None:
    """Raise :class:`TriviumError` where no run has anything finished."""
    if not any(one.artifacts for one in outcomes):
        first = next((one.why for one in outcomes if one.why), "")
        raise TriviumError(f"no run of the study has finished a stage{': ' + first if first else ''}")
