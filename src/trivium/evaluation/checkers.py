"""Checkers: what says how good a response is, without a model. The world's truth, a number, an exact answer, or a
function of the user's own, which runs in a process of its own with a time limit."""

from __future__ import annotations

import importlib.util
import math
import multiprocessing
import re
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from trivium.errors import TriviumError, nearest
from trivium.world import rubric

Row = dict[str, Any]
Check = Callable[[Row, str], float]


def last_number(text: str) -> float | None:
    """The last number in a text, its thousands separated or not; None when there is none."""
    found = re.findall(r"-?\d[\d,]*(?:\.\d+)?", text)
    return float(found[-1].replace(",", "").rstrip(".")) if found else None


def _number(row: Row, text: str) -> float:
    said, wanted = last_number(text), last_number(str(row["answer"]))
    return float(said is not None and wanted is not None and math.isclose(said, wanted, rel_tol=1e-6, abs_tol=1e-9))


CHECKS: dict[str, tuple[str, Check]] = {
    "world": ("truth", lambda row, text: float(rubric.is_right(row, text))),
    "rubric": ("truth", lambda row, text: float(rubric.score(row, text).total)),
    "number": ("answer", _number),
    "exact": ("answer", lambda row, text: float(text.strip() == str(row["answer"]).strip())),
}
"""By name: the field that a prompt's row must have, and the check."""


class Checker:
    """A checker by its name, or ``FILE.py:FUNCTION`` with ``FUNCTION(row, responses) -> list of numbers``.

    A function of the user's own is called in a process of its own. One that raises, hangs longer than ``seconds`` or
    gives anything but a finite number for each response ends the run with a :class:`TriviumError` that names the
    prompt."""

    def __init__(self, name: str, seconds: float = 10.0) -> None:
        self.name, self.seconds = name, seconds
        self.process: Any = None
        self.needs: str | None
        self.check: Check | None
        self.needs, self.check = CHECKS.get(name, (None, None))
        if self.check is None:
            file, colon, function = name.rpartition(":")
            if not colon:
                raise TriviumError(
                    f"checker: there is no checker {name!r}{nearest(name, CHECKS)}; one of your own is FILE.py:FUNCTION"
                )
            if not Path(file).is_file():
                raise TriviumError(f"checker: {file}: no such file")
            self.file, self.function = file, function

    def suits(self, rows: Sequence[Row]) -> None:
        """Raise :class:`TriviumError` where a row lacks what the checker needs."""
        bad = next((row for row in rows if self.needs and self.needs not in row), None)
        if bad is not None:
            raise TriviumError(
                f"checker {self.name!r} needs the field {self.needs!r}, which prompt {bad.get('id')!r} does not have")

    def __call__(self, row: Row, responses: Sequence[str]) -> list[float]:
        """How good each response is."""
        if self.check is not None:
            return [self.check(row, text) for text in responses]
        if self.process is None:
            context = multiprocessing.get_context("spawn")
            self.pipe, theirs = context.Pipe()
            self.process = context.Process(target=_serve, args=(theirs, self.file, self.function), daemon=True)
            self.process.start()
            theirs.close()  # so that the end of the process is seen
            if not self.pipe.poll(60.0):
                raise TriviumError(f"checker {self.name}: the file did not load within 60 seconds")
            self._heard(row)
        self.pipe.send((row, list(responses)))
        if not self.pipe.poll(self.seconds):
            self.close()
            raise TriviumError(
                f"checker {self.name}: no answer about prompt {row.get('id')!r} within {self.seconds:g} seconds; raise "
                "`checker_seconds` or mend the function")
        found = self._heard(row)
        if not isinstance(found, list) or len(found) != len(responses) or not all(
                isinstance(value, (int, float)) and math.isfinite(value) for value in found):
            raise TriviumError(
                f"checker {self.name}: {len(responses)} finite numbers were expected for prompt {row.get('id')!r}, not "
                f"{found!r:.200}"
            )
        return [float(value) for value in found]

    def _heard(self, row: Row) -> Any:
        try:
            kind, value = self.pipe.recv()
        except EOFError as error:
            raise TriviumError(f"checker {self.name}: its process ended at prompt {row.get('id')!r}") from error
        if kind == "error":
            raise TriviumError(f"checker {self.name}: at prompt {row.get('id')!r}: {value}")
        return value

    def close(self) -> None:
        """End the process, if there is one."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.pipe.close()
            self.process = None

    def __enter__(self) -> Checker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _serve(pipe: Connection, file: str, function: str) -> None:
    """The process of a user's function."""
    try:
        spec = importlib.util.spec_from_file_location("checker", file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        call = getattr(module, function)
    except BaseException as error:
        pipe.send(("error", f"{type(error).__name__}: {error}"))
        return
    pipe.send(("ready", None))
    while True:
        row, responses = pipe.recv()
        try:
            pipe.send(("value", [float(value) for value in call(row, responses)]))
        except Exception as error:
            pipe.send(("error", f"{type(error).__name__}: {error}"))
