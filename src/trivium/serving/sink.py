"""Where thumbs and side-by-side choices go."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from trivium.files import disk_errors

Messages = Sequence[Mapping[str, str]]


class Sink(Protocol):
    """The part of a feedback store that a chat page writes to."""

    def add_thumb(self, prompt: Messages, completion: str, label: bool | None, who: str = "", model: str = "") -> Any:
        """A thumb up (True) or down (False); None takes it back."""

    def add_choice(self, prompt: Messages, responses: Sequence[str], ranking: Sequence[Sequence[int]] | None, who: str = "",
                   models: Sequence[str] = ()) -> Any:
        """A vote between answers: groups of their numbers, the best first; None says that all are bad."""


class JsonLines:
    """Feedback as rows that training reads: ``thumbs.jsonl`` for KTO and ``choices.jsonl`` for DPO. A row is on the disk when
    a method returns. What is neither up nor down, or prefers nothing, is no row."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()

    def add_thumb(self, prompt: Messages, completion: str, label: bool | None, who: str = "", model: str = "") -> None:
        """Append ``{"prompt", "completion", "label", "model", "who"}``."""
        if label is not None:
            self._append("thumbs.jsonl", {"prompt": list(prompt), "completion": completion, "label": label, "model": model, "who": who})

    def add_choice(self, prompt: Messages, responses: Sequence[str], ranking: Sequence[Sequence[int]] | None, who: str = "",
                   models: Sequence[str] = ()) -> None:
        """Append ``{"prompt", "chosen", "rejected", "models", "who"}``, the preferred answer's model first."""
        if ranking is not None and len(ranking) == 2:
            better, worse = ranking[0][0], ranking[1][0]
            self._append("choices.jsonl", {"prompt": list(prompt), "chosen": responses[better], "rejected": responses[worse],
                                           "models": [models[better], models[worse]] if models else [], "who": who})

    def _append(self, name: str, row: dict[str, Any]) -> None:
        line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
        with self._lock, disk_errors(self.folder / name):
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(self.folder / name, "ab", buffering=0) as file:
                file.write(line)
                os.fsync(file.fileno())


def open_sink(folder: str) -> Sink:
    """The feedback store of a project, made when it is not there."""
    try:
        from trivium.feedback.store import Store
    except ModuleNotFoundError:
        return JsonLines(Path(folder))
    return Store(folder, create=True)
