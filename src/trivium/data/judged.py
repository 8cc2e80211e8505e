"""Comparisons and thumbs as people have them, read from a source, each once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from trivium import randomness
from trivium.data.demonstrations import digest, kind_of, shown
from trivium.data.row_kinds.fields import Fields, Notes
from trivium.data.row_kinds.messages import Reading
from trivium.data.sources import Source, rows_of_source
from trivium.errors import TriviumError, plain
from trivium.files import Reject, Row


@dataclass
class Judged:
    """What one source gave."""

    made: list[Row] = field(default_factory=list)
    rows: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """Rows by the kind of reason."""
    notes: Notes = field(default_factory=Notes)


def read_judged(source: Path, settings: Source, make: Callable[[Fields, Reading], Row], reject: Reject,
                seen: set[bytes], say: Callable[[str], None] = lambda text: None) -> Judged:
    """All good rows of a source, as ``make`` makes them of a row's fields; bad ones go to ``reject`` with their reason.
    A row that says what one in ``seen`` said is counted and left out. ``say`` is told what was guessed."""
    found = Judged()

    def refuse(file: str, number: int, reason: str, text: str) -> None:
        found.rejected[kind_of(reason)] += 1
        reject(file, number, reason, text)

    def unreadable(file: str, number: int, reason: str, text: str) -> None:
        found.rows += 1
        refuse(file, number, reason, text)

    for file, number, raw in rows_of_source(source, unreadable, settings, say):
        found.rows += 1
        reading = settings.reading()
        try:
            fields = settings.fields(raw)
            made = make(fields, reading)
        except KeyError as error:
            refuse(file, number, f"the field {error} is missing or its value unknown", shown(raw))
        except (TriviumError, TypeError, AttributeError, ValueError) as error:
            refuse(file, number, plain(error), shown(raw))
        else:
            reading.notes.unused.update(fields.unused())
            key = digest(json.dumps(made, sort_keys=True, ensure_ascii=False))
            if key in seen:
                reading.note("the same as an earlier row, and kept once")
            else:
                seen.add(key)
                found.made.append(made)
            found.notes.add(reading.notes)
    return found


def by_hash(rows: list[Row], limit: int | None, seed: int) -> list[Row]:
    """The rows in an order by hash, at most ``limit`` of them."""
    return sorted(rows, key=lambda row: randomness.derive(
        seed, "import", json.dumps(row, sort_keys=True, ensure_ascii=False)))[:limit]
