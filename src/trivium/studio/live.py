"""Curves and samples as a run writes them: what its logs hold beyond what was read of them before."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trivium.files import Row
from trivium.report.formats import is_number
from trivium.status import logs_of, rows_in

MOST_ROWS = 2000
"""Rows of a log that are sent at a time; of a longer one, as many evenly apart."""
MOST_SAMPLES = 20
"""Samples that are sent at a time, the last ones."""
MOST_CHARACTERS = 4000
"""Of a sample that are sent."""
RECENT = 0.2
"""The part of a run that an alarm compares with what was before."""
ENOUGH = 20
"""Points of a curve without which nothing is said of its course."""


@dataclass
class Followed:
    """How far a log was read."""

    file: Path
    inode: int = 0
    offset: int = 0
    rows: list[Row] = field(default_factory=list)


class Follower:
    """Follows the logs of a run, whose stages write each its own: first into a folder of work, which is renamed when
    the stage is done."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.followed: dict[str, Followed] = {}

    def news(self) -> Iterator[dict[str, Any]]:
        """For every stage whose log has grown: ``{"stage", "anew", "rows", "samples", "left_out", "alarms"}``.
        ``anew`` says that what was sent before is void, as when a killed stage went back to its last checkpoint."""
        for stage, file in logs_of(self.run).items():
            known = self.followed.setdefault(stage, Followed(file))
            try:
                with open(file, "rb") as log:
                    about = file.stat()
                    anew = known.inode != about.st_ino or about.st_size < known.offset
                    if anew:
                        known.inode, known.offset, known.rows = about.st_ino, 0, []
                    log.seek(known.offset)
                    whole, _, _ = log.read().rpartition(b"\n")
            except OSError:
                continue  # it is being put in its place: its next reading finds it
            if not whole and not anew:
                continue
            known.offset += len(whole) + 1 if whole else 0
            rows = list(rows_in(whole.splitlines()))
            known.rows += rows
            sent = spread(rows, MOST_ROWS)
            yield {"stage": stage, "anew": anew, "rows": [numbers_of(row) for row in sent],
                   "samples": [sample_of(row) for row in rows if isinstance(row.get("sample"), str)][-MOST_SAMPLES:],
                   "left_out": len(rows) - len(sent), "alarms": list(alarms(known.rows))}


def spread(rows: list[Row], most: int) -> list[Row]:
    """At most so many rows, evenly apart, the first and the last among them."""
    if len(rows) <= most:
        return rows
    return [rows[round(place * (len(rows) - 1) / (most - 1))] for place in range(most)]


def numbers_of(row: Row) -> dict[str, float]:
    """The numbers of a row that are finite."""
    return {key: value for key, value in row.items() if is_number(value) and math.isfinite(value)}


def sample_of(row: Row) -> dict[str, Any]:
    """What a policy said at a step."""
    return {"step": row["step"], "prompt": str(row.get("sample_prompt", ""))[:MOST_CHARACTERS],
            "text": str(row["sample"])[:MOST_CHARACTERS], "score": row.get("sample_score")}


def alarms(rows: list[Row]) -> Iterator[dict[str, Any]]:
    """What deserves a look: ``{"what", "key", "step"}`` with ``what`` one of

    - ``not_finite``: a figure is no number any more;
    - ``collapse``: the entropy of the policy, or the length of its answers, fell to a tenth of what it was at first;
    - ``fooled``: the reward rose over the last measurements of the watch while what it stands for fell;
    - ``plateau``: over the last fifth of the steps the loss came down by less than its noise.
    """
    columns = column_of(rows)
    for row in rows:
        for key, value in row.items():
            if value in ("nan", "inf", "-inf"):
                yield {"what": "not_finite", "key": key, "step": row["step"]}
                break
        else:
            continue
        break
    for key in ("entropy", "length"):
        points = columns.get(key, [])
        if len(points) > 1 and points[0][1] > 0 and points[-1][1] < points[0][1] / 10:
            yield {"what": "collapse", "key": key, "step": points[-1][0]}
    score, gold = columns.get("watched_score", []), columns.get("watched_gold", [])
    if len(score) > 2 and len(score) == len(gold) and score[-1][1] > score[-2][1] and (
            gold[-1][1] < gold[-2][1] < gold[-3][1]):
        yield {"what": "fooled", "key": "watched_gold", "step": gold[-1][0]}
    losses = [value for _, value in columns.get("loss", [])]
    recent = losses[-max(1, round(len(losses) * RECENT)):]
    if len(recent) >= ENOUGH:
        half = len(recent) // 2
        before, after = recent[:half], recent[half:]
        if mean(before) - mean(after) < 2 * (variance(before) / len(before) + variance(after) / len(after)) ** 0.5:
            yield {"what": "plateau", "key": "loss", "step": columns["loss"][-1][0]}


def column_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """``(step, value)`` of every figure."""
    columns: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for key, value in row.items():
            if key != "step" and is_number(value) and math.isfinite(value):
                columns.setdefault(key, []).append((row["step"], value))
    return columns


def mean(values: list[float]) -> float:
    """The mean."""
    return math.fsum(values) / len(values)


def variance(values: list[float]) -> float:
    """The variance of a sample."""
    middle = mean(values)
    return math.fsum((value - middle) ** 2 for value in values) / max(1, len(values) - 1)
