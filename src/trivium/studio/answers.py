"""What the models of a run answered, side by side, to be searched and filtered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, NamedTuple

from trivium.artifacts import MANIFEST, open_artifact
from trivium.errors import TriviumError
from trivium.files import Row
from trivium.recipe.load import is_name
from trivium.report.gather import marked

MOST_COMPARED = 2000
"""Characters of an answer that are held against another's."""


class Wanted(NamedTuple):
    """Which answers are shown."""

    text: str = ""
    """What the prompt or an answer holds."""
    right: str = ""
    """A model that is right ..."""
    wrong: str = ""
    """... and one that is wrong."""
    order: str = ""
    """``longest``, ``shortest`` or ``different``; by default as they were asked."""


class Answers:
    """The answers of examinations. Those of the last few that were asked for are kept."""

    def __init__(self) -> None:
        self.known: dict[tuple[Path, int], list[Row]] = {}

    def of(self, folder: Path, stage: str) -> list[Row]:
        """The rows of a stage, each with its ``number``. Raises :class:`TriviumError` where it has none."""
        place = folder / stage
        if not is_name(stage) or not (place / MANIFEST).is_file() or not (place / "answers.jsonl").is_file():
            raise TriviumError(f"{stage[:80]!r} has no answers")
        key = place, (place / MANIFEST).stat().st_mtime_ns
        if key not in self.known:
            rows = [row | {"number": number} for number, row in enumerate(marked(open_artifact(place)))]
            self.known = dict([*self.known.items(), (key, rows)][-4:])
        return self.known[key]

    def page(self, folder: Path, stage: str, wanted: Wanted, first: int, count: int) -> dict[str, Any]:
        """``{"models", "total", "rows"}``: a page of those that are wanted."""
        rows = self.of(folder, stage)
        models = list(dict.fromkeys(name for row in rows for name in row["answers"]))
        found = [row for row in rows if fits(row, wanted)]
        if wanted.order in ORDERS:
            found.sort(key=ORDERS[wanted.order], reverse=True)
        return {"models": models, "total": len(found), "rows": [
            {key: row.get(key) for key in ("number", "id", "task", "prompt", "answers", "truth", "answer")} |
            {"right": verdicts(row)} for row in found[first:first + count]]}


def fits(row: Row, wanted: Wanted) -> bool:
    """Whether a row is one of those that are wanted."""
    verdict = verdicts(row)
    if (wanted.right and verdict.get(wanted.right) is not True) or (
            wanted.wrong and verdict.get(wanted.wrong) is not False):
        return False
    text = wanted.text.casefold()
    return not text or any(text in part.casefold() for part in (*row["answers"].values(), asked(row)))


def verdicts(row: Row) -> dict[str, bool]:
    """Which models are right, where that is known: by the truth of the prompt, or by the first checker."""
    if isinstance(row.get("right"), Mapping):
        return {name: bool(value) for name, value in row["right"].items()}
    checked = row.get("checked") or {}
    return {name: next(iter(values.values())) >= 1 for name, values in checked.items() if values}


def asked(row: Row) -> str:
    """A row's prompt as text."""
    return "\n".join(str(message.get("content") or "") for message in row.get("prompt") or ())


def difference(answers: Sequence[str]) -> float:
    """How much the two most different of some answers differ, from 0 to 1."""
    cut = [answer[:MOST_COMPARED] for answer in answers]
    return max((1 - SequenceMatcher(None, one, other, autojunk=False).quick_ratio()
                for place, one in enumerate(cut) for other in cut[:place]), default=0.0)


ORDERS: dict[str, Callable[[Row], float]] = {
    "longest": lambda row: max(map(len, row["answers"].values()), default=0),
    "shortest": lambda row: -max(map(len, row["answers"].values()), default=0),
    "different": lambda row: difference(list(row["answers"].values()))}
"""What answers may be ordered by, the greatest first."""
