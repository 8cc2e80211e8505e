"""The log of a run: metrics as JSON lines, and for those who track them elsewhere."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trivium.files import write_bytes
from trivium.training.trackers import Tracking


class Log:
    """Metrics as JSON lines, and for the trackers of ``tracking``. A line after the step that a run resumes from is
    taken back, so no step is logged twice; damaged lines are left out, and ``say`` is told how many."""

    def __init__(self, path: Path, resume: int, tracking: Tracking | None = None,
                 say: Callable[[str], None] = lambda text: None) -> None:
        self.path, self.say = path, say
        self.trackers = (tracking or Tracking()).begin(resume, say)
        self._take_back(resume)

    def back(self, step: int) -> None:
        """Go back to ``step``."""
        self._take_back(step)
        for tracker in self.trackers:
            tracker.back(step)

    def _take_back(self, step: int) -> None:
        kept, damaged = [], 0
        for line in self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else ():
            try:
                if json.loads(line)["step"] < step:
                    kept.append(line)
            except (ValueError, KeyError, TypeError, RecursionError):
                damaged += line.endswith(b"\n")  # else it was torn by a crash, and is written again
        if damaged:
            self.say(f"{self.path}: {damaged} damaged line{'s were' if damaged > 1 else ' was'} left out")
        write_bytes(self.path, b"".join(kept))

    def __call__(self, step: int, values: dict[str, Any]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            finite = {k: v if not isinstance(v, float) or math.isfinite(v) else str(v) for k, v in values.items()}
            file.write(json.dumps({"step": step, **finite}, ensure_ascii=False) + "\n")
        for tracker in self.trackers:
            tracker(step, values)

    def close(self) -> None:
        """Nothing more is logged."""
        for tracker in self.trackers:
            tracker.close()
