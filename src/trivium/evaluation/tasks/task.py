"""What every kind of task has, and what comes of one."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from trivium.evaluation.model import EvaluatedModel
from trivium.files import Row


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression ({error})") from error
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]
"""A setting that holds a regular expression."""


class Task(BaseModel, ABC):
    """What every task has."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)
    kind: ClassVar[str]
    """What the YAML file calls it."""
    needs_opponent: ClassVar[bool] = False
    """Whether the model is compared with another one."""

    name: str = ""
    """What results are called by; the file's name when empty."""
    about: str = ""
    """What the task is, for people."""
    data: list[str] = []
    """Files of rows, patterns with ``*`` too: beside the task's file, or else from the folder that the command runs
    in."""
    rows: str = ""
    """The field that holds the rows, in files that are one JSON object."""
    limit: int | None = Field(None, ge=1)
    """Most rows of each group, chosen by a hash of their content; null takes all."""

    def files(self) -> list[str]:
        """Every file, folder or pattern that the task reads."""
        return list(self.data)

    def check(self, file: Path) -> None:
        """Read the task's rows, and raise :class:`TriviumError` that names file and row for one that cannot be asked:
        before any model is loaded."""

    @abstractmethod
    def examine(self, file: Path, model: EvaluatedModel, opponent: EvaluatedModel | None = None) -> Result:
        """Examine a model. ``file`` is the task's YAML file, beside which its data are looked for.

        Raises :class:`TriviumError` that names file and row."""

    def result(self, metrics: dict[str, Any], rows: list[Row], notes: dict[str, Any] | None = None) -> Result:
        """The result of this task."""
        return Result(self.name, self.kind, metrics, rows, notes or {})


@dataclass
class Result:
    """What one model got in one task."""

    task: str
    kind: str
    metrics: dict[str, Any]
    """Figures; a rate is ``{"value", "low", "high", "n"}``."""
    rows: list[Row] = field(default_factory=list)
    """Every question with the model's answer; the headline rate is the mean of ``score``."""
    notes: dict[str, Any] = field(default_factory=dict)
    """How the questions were asked."""

    def summary(self) -> dict[str, Any]:
        """The figures without the rows, as JSON."""
        return {"kind": self.kind, **self.metrics, **({"asked": self.notes} if self.notes else {})}
