"""Stages side by side: each in a worker process, as soon as what it is made from is there and cores are free for it.

On a few cores this is faster than giving each stage all of them: a small model's products are too short for threads to
share well, while two stages never wait for one another. Which stages share the cores is the recipe's to say
(``threads``), never a clock's, so that every run gives the same numbers.

A worker is told of a stage by a line of JSON on its standard input, and answers on its standard output. It ends when
its input does, so none outlives the run that started it; until then it holds the run's lock.
"""

from __future__ import annotations

import json
import os
import queue
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from trivium.artifacts import Artifact, Span, open_artifact
from trivium.errors import TriviumError, unexpected
from trivium.pipeline.one_stage import cores, finished, need, plan, run_stage
from trivium.progress import Progress
from trivium.recipe.load import Recipe, parse_stage
from trivium.resources import peak_memory_mb
from trivium.stages.registry import Stages

SECONDS_TO_END = 30.0
"""How long a worker may take to end."""


class Worker:
    """A process that runs one stage after another."""

    def __init__(self, lock: IO[str]) -> None:
        # the worker inherits it: the run that started it hears the keyboard
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process = subprocess.Popen([sys.executable, "-m", "trivium.pipeline.workers"], stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, bufsize=0, pass_fds=(lock.fileno(),))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        assert self.process.stdin and self.process.stdout
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.stage, self.shown, self.torn = "", Progress(quiet=True), b""

    def begin(self, job: dict[str, Any], shown: Progress) -> None:
        """Start a stage."""
        self.stage, self.shown = str(job["stage"]), shown
        data = memoryview(json.dumps(job).encode() + b"\n")
        while data:
            data = data[self.stdin.write(data):]

    def lines(self) -> list[bytes]:
        """The whole lines that it has written since; raises :class:`TriviumError` when it has ended."""
        data = os.read(self.stdout.fileno(), 1 << 16)
        if not data:
            code = self.process.wait()
            why = "was killed; is there enough memory?" if code == -signal.SIGKILL else f"ended with status {code}"
            raise TriviumError(f"{self.stage}: its process {why} (the same command goes on from the last checkpoint)")
        *whole, self.torn = (self.torn + data).split(b"\n")
        return whole

    def end(self) -> None:
        """Let it go, whatever it is doing; a checkpoint that it is writing it may write to the end."""
        self.process.terminate()
        try:
            self.process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.stdin.close()
        self.stdout.close()


def as_told(recipe: Recipe) -> dict[str, Any]:
    """A recipe as a worker is told of it: what its stages were given, and no defaults, as some settings are refused
    where they would have no effect."""
    return {**recipe.model_dump(mode="json", exclude={"stages"}),
            "stages": {name: {"kind": stage.kind, **stage.model_dump(mode="json", exclude_unset=True)}
                       for name, stage in recipe.stages.items()}}


def run_beside(recipe: Recipe, wanted: set[str], artifacts: dict[str, Artifact], shown: Progress, earlier: list[Span],
               wall_seconds: Callable[[], float], lock: IO[str]) -> None:
    """Run the ``wanted`` stages and add them to ``artifacts``: in the recipe's order, but none waits for one that it is
    not made from. Raises :class:`TriviumError` at the first that fails; the others' checkpoints are kept."""
    waiting = [name for name in recipe.stages if name in wanted]
    whole = as_told(recipe)
    idle: list[Worker] = []
    busy: list[Worker] = []
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or busy:
                for name in list(waiting):
                    stage = recipe.stages[name]
                    if any(reference in recipe.stages and reference not in artifacts
                           for _, reference in stage.references()):
                        continue
                    free = cores(recipe) - sum(need(recipe, recipe.stages[worker.stage]) for worker in busy)
                    if need(recipe, stage) > free:
                        continue
                    waiting.remove(name)
                    bar = shown.beside(name)
                    if found := finished(recipe, plan(recipe, name, stage, artifacts, None), bar, earlier):
                        artifacts[name] = found
                        bar.listener(name, {"finished": True})
                        bar.end()
                        break  # others may be ready now, and come before those that follow
                    if not idle:
                        idle.append(Worker(lock))
                        selector.register(idle[-1].stdout, selectors.EVENT_READ, idle[-1])
                    worker = idle.pop()
                    busy.append(worker)
                    worker.begin(
                        {
                            "recipe": whole, "stage": name, "wall": wall_seconds(), "at": time.time(),
                            "shared_mb": peak_memory_mb(),
                            "made": {made: str(artifact.folder)
                                     for made, artifact in artifacts.items()}
                        }, bar)
                else:
                    for key, _ in selector.select():
                        worker = key.data
                        if any(heard(worker, json.loads(line), earlier) for line in worker.lines()):
                            artifacts[worker.stage] = open_artifact(recipe.folder / worker.stage)
                            worker.shown.listener(worker.stage, {"finished": True})
                            worker.shown.end()
                            busy.remove(worker)
                            idle.append(worker)
        finally:
            for worker in (*busy, *idle):
                worker.end()


def heard(worker: Worker, told: dict[str, Any], earlier: list[Span]) -> bool:
    """Take note of what a worker says; whether its stage is done."""
    if "say" in told:
        worker.shown.say(told["say"])
    elif "update" in told:
        worker.shown.update(*told["update"])
    elif "within" in told:
        worker.shown.within(*told["within"])
    elif "error" in told:
        raise TriviumError(told["error"])
    elif "done" in told:
        earlier.extend((start, end) for start, end in told["done"])
    return "done" in told


class Told(Progress):
    """Progress that another process shows."""

    def __init__(self, tell: Callable[[dict[str, Any]], None]) -> None:
        super().__init__(quiet=True)
        self.tell = tell
        self.told = 0.0

    def update(self, done: int, total: int, text: str = "") -> None:
        """Ten times a second at most."""
        if done == total or time.monotonic() - self.told > 0.1:
            self.told = time.monotonic()
            self.tell({"update": [done, total, text]})

    def within(self, done: int, total: int, what: str) -> None:
        """Ten times a second at most."""
        if time.monotonic() - self.told > 0.1:
            self.told = time.monotonic()
            self.tell({"within": [done, total, what]})

    def say(self, text: str) -> None:
        """A line that stays."""
        self.tell({"say": text})


def work(stdin: IO[str], stdout: IO[str]) -> None:
    """A worker's life: stage after stage until its input ends."""

    def tell(message: dict[str, Any]) -> None:
        stdout.write(json.dumps(message) + "\n")
        stdout.flush()

    jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def listen() -> None:
        for line in stdin:
            jobs.put(json.loads(line))
        os._exit(1)  # the run has ended

    threading.Thread(target=listen, name="listen", daemon=True).start()
    while True:
        job = jobs.get()
        try:
            tell({"done": run_one(job, Told(tell))})
        except TriviumError as error:
            tell({"error": str(error)})
        except Exception as error:
            tell({"error": unexpected(error)})


def run_one(job: dict[str, Any], progress: Progress) -> list[Span]:
    """Run a job's stage; the time that killed attempts at it took."""
    header = {key: value for key, value in job["recipe"].items() if key != "stages"}
    known = Stages(map(Path, header["plugins"]))
    recipe = Recipe.model_construct(
        **header,
        stages={name: parse_stage(name, settings, known)
                for name, settings in job["recipe"]["stages"].items()})
    artifacts = {name: open_artifact(Path(folder)) for name, folder in job["made"].items()}
    earlier: list[Span] = []
    run_stage(recipe, job["stage"], recipe.stages[job["stage"]], artifacts, progress, None, earlier,
              lambda: float(job["wall"]) + time.time() - float(job["at"]), float(job["shared_mb"]))
    return earlier


def main() -> None:
    """What ``python -m trivium.pipeline.workers`` does. Whatever a stage prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    work(sys.stdin, answers)


if __name__ == "__main__":
    main()
