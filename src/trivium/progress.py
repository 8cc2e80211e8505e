"""Live progress on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import copy
import os
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

PLAIN_SECONDS = 10.0
"""How often a line is printed where there is no terminal."""


class Terminal(Console):
    """A console whose reader may go away: training goes on without words."""

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
        self.bars = Bars(TextColumn("[bold]{task.description}"), BarColumn(24), MofNCompleteColumn(),
                         TimeElapsedColumn(), TextColumn("{task.fields[text]}"), console=self.console, transient=True,
                         disable=not self.live)
        self.task = self.bars.add_task("", total=None, text="")
        self.name, self.printed = "", 0.0

    def beside(self, name: str) -> Progress:
        """The progress of a stage that runs beside others, with a bar of its own until :meth:`end`."""
        other = copy.copy(self)
        self.bars.update(self.task, visible=False)
        other.task = self.bars.add_task("", total=None, text="")
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
        self.name, self.printed = name, time.monotonic()
        self.bars.reset(self.task, description=escape(name), total=None, text="")
        if not self.live:
            self.say("begins")

    def update(self, done: int, total: int, text: str = "") -> None:
        """``done`` of ``total`` steps of the stage are done."""
        self.bars.update(self.task, completed=done, total=total, text=escape(text))
        if not self.live and (time.monotonic() - self.printed > PLAIN_SECONDS or (text and done == total)):
            self.printed = time.monotonic()
            self.say(f"{done}/{total} {text}")

    def say(self, text: str) -> None:
        """A line that stays."""
        with contextlib.suppress(BrokenPipeError):
            self.console.print(f"[bold]{escape(self.name)}[/bold]  {escape(text)}", soft_wrap=not self.live)
            sys.stderr.flush()
