"""Live progress on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import copy
import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.text import Text

from trivium.visible import visible

PLAIN_SECONDS = 10.0
"""How often a line is printed where there is no terminal."""


def span(seconds: float) -> str:
    """A time as ``4 s``, ``3:20 min`` or ``2:05 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60}:{whole % 60:02} min" if whole < 3600 else f"{whole // 3600}:{whole % 3600 // 60:02} h"


class Pace:
    """How long the rest of a stage's steps will take, by the speed since the first of them that was heard of: what a
    run did before it was interrupted was not done in this time."""

    def __init__(self) -> None:
        self.total, self.done, self.first, self.begun = 0, 0, 0, time.monotonic()
        self.end: float | None = None
        """When the last step will be done, as far as is known."""

    def __call__(self, done: int, total: int) -> float | None:
        """The seconds that are left after ``done`` of ``total`` steps; None where that cannot be said yet."""
        now = time.monotonic()
        if total != self.total or done < self.done:  # another piece of the stage's work
            self.total, self.first, self.begun = total, done, now
        self.done = done
        if done <= self.first:
            self.end = None
            return None
        left = (now - self.begun) / (done - self.first) * (total - done)
        self.end = now + left
        return left

    @property
    def left(self) -> str:
        """The time that is left of it by now, in words; nothing where it cannot be said."""
        return "" if self.end is None else f"{span(max(0.0, self.end - time.monotonic()))} left"


class Terminal(Console):
    """A console whose reader may go away: training goes on without words. What it prints is made visible first."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print texts, without the escapes that stand in them."""
        super().print(*(visible(one) if isinstance(one, str) else Text(visible(one.plain))
                        if isinstance(one, Text) and visible(one.plain) != one.plain else one for one in objects),
                      **options)

    def on_broken_pipe(self) -> None:
        """Say no more, where rich would end the program."""
        self.quiet = True
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stderr.fileno())
            os.close(nowhere)


class Progress:
    """Says what is going on, on standard error; ``quiet`` says nothing."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Terminal(stderr=True, quiet=quiet, highlight=False)
        self.live = self.console.is_terminal and not quiet
        columns = (TextColumn("[bold]{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn(),
                   TextColumn("{task.fields[left]}{task.fields[text]}"))
        self.bars = Bars(*columns, console=self.console, transient=True, disable=not self.live)
        self.task = self.bars.add_task("", total=None, text="", left="")
        self.name, self.printed, self.begun, self.last = "", 0.0, time.monotonic(), ""
        self.pace = Pace()
        self.listener: Callable[[str, dict[str, Any]], None] = lambda stage, told: None
        """Is told, too, what each stage does: ``begun``; ``done`` of ``total`` with ``text`` and the seconds ``left``;
        ``text`` alone; ``said``, a line that stays; or ``finished``."""

    def beside(self, name: str) -> Progress:
        """The progress of a stage that runs beside others, with a bar of its own until :meth:`end`."""
        other = copy.copy(self)
        self.bars.update(self.task, visible=False)
        other.task = self.bars.add_task("", total=None, text="", left="")
        other.stage(name)
        return other

    def end(self) -> None:
        """Take the bar away."""
        self.bars.remove_task(self.task)

    def __enter__(self) -> Progress:
        self.bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.bars.stop()

    def stage(self, name: str) -> None:
        """A new stage begins."""
        self.name, self.printed, self.begun, self.last = name, time.monotonic(), time.monotonic(), ""
        self.pace = Pace()
        self.bars.reset(self.task, description=escape(visible(name)), total=None, text="", left="")
        self.listener(name, {"begun": True})
        if not self.live:
            self.say("begins")

    def update(self, done: int, total: int, text: str = "") -> None:
        """``done`` of ``total`` steps of the stage are done."""
        left = self.pace(done, total)
        self.listener(self.name, {"done": done, "total": total, "text": text, "left": left})
        rest = f"{span(left)} left  " if left is not None and done < total else ""
        self.bars.update(self.task, completed=done, total=total, text=escape(visible(text)), left=rest)
        line = f"{done}/{total} {text}"
        if not self.live and line != self.last and (time.monotonic() - self.printed > PLAIN_SECONDS or
                                                    (text and done == total)):
            self.printed, self.last = time.monotonic(), line
            self.say(f"{line}  {span(time.monotonic() - self.begun)} passed{f', {rest.strip()}' if rest else ''}")

    def within(self, done: int, total: int, what: str) -> None:
        """``done`` of ``total`` pieces of the step that is under way are done: what a step that takes long shows
        meanwhile."""
        text, left = f"{done}/{total} {what}", self.pace.left
        self.listener(self.name, {"text": text})
        self.bars.update(self.task, text=escape(visible(text)), left=f"{left}  " if left else "")
        if not self.live and time.monotonic() - self.printed > PLAIN_SECONDS:
            self.printed = time.monotonic()
            self.say(f"{self.pace.done}/{self.pace.total}, then {text}  "
                     f"{span(time.monotonic() - self.begun)} passed{f', {left}' if left else ''}")

    def say(self, text: str) -> None:
        """A line that stays."""
        self.listener(self.name, {"said": text})
        with contextlib.suppress(BrokenPipeError):
            self.console.print(f"[bold]{escape(self.name)}[/bold]  {escape(text)}", soft_wrap=not self.live)
            sys.stderr.flush()
