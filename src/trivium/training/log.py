"""The log of a run: metrics as JSON lines, and for TensorBoard."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trivium.errors import TriviumError
from trivium.files import write_bytes


class Log:
    """Metrics as JSON lines, and for TensorBoard in the folder ``track``. A line after the step that a run resumes from
    is taken back, so no step is logged twice; damaged lines are left out, and ``say`` is told how many."""

    def __init__(self, path: Path, resume: int, track: Path | None = None,
                 say: Callable[[str], None] = lambda text: None) -> None:
        self.path = path
        self.writer: Any = None
        if track is not None:
            try:
                from torch.utils import tensorboard
            except ImportError as error:
                raise TriviumError('`track` needs TensorBoard: pip install "trivium[track]"') from error
            self.writer = tensorboard.SummaryWriter(str(track), purge_step=resume)
        kept, damaged = [], 0
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
            try:
                if json.loads(line)["step"] < resume:
                    kept.append(line)
            except (ValueError, KeyError, TypeError, RecursionError):
                damaged += line.endswith(b"\n")  # else it was torn by a crash, and is written again
        if damaged:
            say(f"{path}: {damaged} damaged line{'s were' if damaged > 1 else ' was'} left out")
        write_bytes(path, b"".join(kept))

    def __call__(self, step: int, values: dict[str, Any]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            finite = {k: v if not isinstance(v, float) or math.isfinite(v) else str(v) for k, v in values.items()}
            file.write(json.dumps({"step": step, **finite}, ensure_ascii=False) + "\n")
        if self.writer is not None:
            for name, value in values.items():
                if isinstance(value, str):
                    self.writer.add_text(name, value, step)
                else:
                    self.writer.add_scalar(name, value, step)
            self.writer.flush()
