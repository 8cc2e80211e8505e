"""One run of a study, in a process of its own.

It is told of the run by a line of JSON on its standard input, and says on its standard output how it goes on. It ends
when its input does, so none outlives the study that started it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import IO, Any

from trivium.errors import TriviumError, unexpected
from trivium.pipeline.run import run
from trivium.pipeline.workers import Told

QUIET = ("begins", "unchanged", "made by another run: linked")
"""What the study's own lines need not say of every stage."""


class ToldOfRun(Told):
    """Progress of a whole run: each word comes with the stage that it is about."""

    def update(self, done: int, total: int, text: str = "") -> None:
        """As for a stage, but for its end, of which a line tells."""
        if done < total:
            super().update(done, total, f"{self.name}  {text}".rstrip())

    def say(self, text: str) -> None:
        """As for a stage."""
        if text not in QUIET:
            super().say(f"{self.name}: {text}")


def work(stdin: IO[str], stdout: IO[str]) -> None:
    """Do the run that the first line names."""

    def tell(message: dict[str, Any]) -> None:
        stdout.write(json.dumps(message) + "\n")
        stdout.flush()

    job = json.loads(stdin.readline())

    def listen() -> None:
        stdin.read()
        os._exit(1)  # the study has ended

    threading.Thread(target=listen, name="listen", daemon=True).start()
    try:
        run(job["recipe"], job["overrides"], job["only"], progress=ToldOfRun(tell))
        tell({"done": True})
    except TriviumError as error:
        tell({"error": str(error)})
    except Exception as error:
        tell({"error": unexpected(error)})


def main() -> None:
    """What ``python -m trivium.study.worker`` does. Whatever a stage prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    work(sys.stdin, answers)
    answers.flush()
    os._exit(0)  # the thread that listens waits for ever


if __name__ == "__main__":
    main()
