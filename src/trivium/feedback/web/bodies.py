"""The JSON that the pages' scripts send, and what they get back."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

from trivium.feedback.rows import LONGEST_ID

Number = Annotated[int, Path(ge=1, lt=2**53)]
"""The number of a piece of work or a person, in a path."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Mark(_Body):
    """An error in a part of a response, in characters of the text as a page shows it: a line ends by one."""

    start: int
    end: int
    kind: str


class JudgementBody(_Body):
    """Places are those of the responses as they were shown, from 0."""

    ranking: list[list[int]] | None = None
    ratings: list[int | None] | None = None
    flags: list[list[str]] | None = None
    marks: list[list[Mark]] | None = None
    all_bad: bool = False
    note: str = ""
    seconds: float | None = None


class SkipBody(_Body):
    reason: str
    note: str = ""
    seconds: float | None = None


class DemonstrationBody(_Body):
    """``prompt`` is needed for a prompt of one's own, and ignored otherwise."""

    prompt: str = ""
    answer: str
    seconds: float | None = None


class SettleBody(JudgementBody):
    item: str = Field(max_length=LONGEST_ID)


class Said(_Body):
    """``next`` is where to go."""

    next: str


class Wrong(_Body):
    error: str
