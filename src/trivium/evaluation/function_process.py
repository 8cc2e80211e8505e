"""A function of the user's own in a process of its own, which can be ended when it hangs.

The two processes speak lines of JSON. What the function prints goes to standard error. The program that uses Trivium is
not imported again in the new process, so it needs no ``if __name__ == "__main__"``.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import selectors
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trivium.errors import TriviumError
from trivium.extensions import file_of, load_object

LOADING_SECONDS = 60.0
"""The time that the file may take to load."""

_PROGRAM = ("import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
            "from trivium.evaluation.function_process import serve; serve(sys.argv[2])")


class FunctionProcess:
    """The process of the function that ``FILE.py:FUNCTION`` names. Raises :class:`TriviumError` where it does not
    load."""

    def __init__(self, reference: str) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", _PROGRAM, json.dumps(sys.path), reference],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self.unread = b""
        try:
            self._reply(LOADING_SECONDS)
        except (TimeoutError, TriviumError) as error:
            self.close()
            problem = str(error) or f"the file did not load within {LOADING_SECONDS:g} seconds"
            raise TriviumError(problem) from error

    def call(self, arguments: list[Any], seconds: float) -> Any:
        """What the function gives. Raises :class:`TimeoutError` when ``seconds`` have passed, and :class:`TriviumError`
        when it fails or its process ends."""
        deadline = time.monotonic() + seconds
        assert self.process.stdin is not None
        request = memoryview(json.dumps(arguments).encode() + b"\n")
        try:
            while request:
                self._wait(self.process.stdin.fileno(), selectors.EVENT_WRITE, deadline)
                request = request[os.write(self.process.stdin.fileno(), request[:4096]):]
        except BrokenPipeError as error:
            raise TriviumError("its process ended") from error
        return self._reply(deadline - time.monotonic())

    def _reply(self, seconds: float) -> Any:
        """The next line that the process writes."""
        deadline = time.monotonic() + seconds
        assert self.process.stdout is not None
        while b"\n" not in self.unread:
            self._wait(self.process.stdout.fileno(), selectors.EVENT_READ, deadline)
            piece = os.read(self.process.stdout.fileno(), 1 << 16)
            if not piece:
                raise TriviumError("its process ended")
            self.unread += piece
        line, _, self.unread = self.unread.partition(b"\n")
        reply = json.loads(line)
        if "error" in reply:
            raise TriviumError(reply["error"])
        return reply["value"]

    def _wait(self, descriptor: int, event: int, deadline: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, event)
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def serve(reference: str) -> None:
    """The work of the new process: load the function, and answer until nothing more is asked."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the function prints is no reply

    file = file_of(reference)

    def reply(make: Callable[[], Any]) -> None:
        try:
            line = json.dumps({"value": make()})
        except TriviumError as error:
            line = json.dumps({"error": str(error)})
        except Exception as error:
            where = [frame for frame in traceback.extract_tb(error.__traceback__)
                     if file and Path(frame.filename).resolve() == file.resolve()]
            said = f"{type(error).__name__}: {error}"
            line = json.dumps({"error": f"{said} (line {where[-1].lineno})" if where else said})
        replies.write(line + "\n")
        replies.flush()

    function: list[Callable[..., Any]] = []
    reply(lambda: function.append(load_object(reference)))
    if not function:
        return
    for line in sys.stdin:
        arguments = json.loads(line)
        reply(lambda: scores_of(function[0], *arguments))  # noqa: B023


def scores_of(function: Callable[..., Any], row: Any, responses: list[str], finished: list[bool],
              tokens: list[int] | None = None) -> list[float]:
    """What a function says of responses, as numbers. Raises :class:`TriviumError` where it cannot be called as a reward
    is, and where it gives no numbers."""
    more, named = told(function, {"finished": finished, "tokens": tokens})
    with contextlib.suppress(ValueError):  # of a built-in that does not say what it takes
        try:
            inspect.signature(function).bind(row, responses, *more, **named)
        except TypeError as error:
            raise TriviumError("it is called as FUNCTION(row, responses), or with `finished` and `tokens` too, and "
                               f"{error}") from error
    given = function(row, responses, *more, **named)
    try:
        return [float(value) for value in given]
    except (TypeError, ValueError) as error:
        raise TriviumError(f"{len(responses)} numbers were expected, not {given!r:.200}") from error


def told(function: Callable[..., Any], known: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """What a function wants to be told beside the row and the responses: the arguments of ``known`` that it names, and
    the first of them for a third argument of any other name that has no default."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return [], {}
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return [], known
    named = {one.name: known[one.name] for one in parameters[2:] if one.name in known}
    third = next(iter(parameters[2:]), None)
    if third is not None and third.name not in known and third.default is third.empty and third.kind in (
            third.POSITIONAL_ONLY, third.POSITIONAL_OR_KEYWORD):
        return [known["finished"]], {name: value for name, value in named.items() if name != "finished"}
    return [], named
