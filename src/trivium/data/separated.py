"""Text with separated columns: CSV and its likes, whose faults cost no more than the row that has them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from itertools import islice
from typing import IO, Any

from trivium.data.json_text import holds_bad_bytes, shown
from trivium.data.unpack import Bad

DELIMITERS = (",", ";", "\t", "|")
SAMPLE_LINES = 40
SWALLOWED = 8
"""So many lines inside one quoted field, each of which reads as a row of its own, betray a quote that was never
closed."""


class _Lines:
    """Lines of a text, of which some can be put back."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines, self._back = lines, list[str]()

    def put_back(self, lines: list[str]) -> None:
        self._back += reversed(lines)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return self._back.pop() if self._back else next(self._lines)


def separated_rows(stream: IO[bytes], delimiter: str | None, limit: int,
                   say: Callable[[str], None] = lambda text: None,
                   heads: frozenset[str] | None = None) -> Iterator[tuple[int, dict[str, Any] | Bad]]:
    """``(row from 1, the row)`` of a table whose first line names its columns; no field may be longer than ``limit``.
    Without a ``delimiter`` it is told by the first lines, and ``say`` is told where it is no comma. With ``heads``, a
    first line that holds none of these names (in small letters) is a row, and the columns are called 1, 2 and so on."""
    text = io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape", newline="")
    csv.field_size_limit(limit)
    lines = _Lines(iter(text))
    try:
        if delimiter is None:
            delimiter = _delimiter(lines)
            if delimiter != ",":
                say(f"columns are separated by {'tabs' if delimiter == chr(9) else repr(delimiter)}")
        names = _names(lines, delimiter) if heads is None else _names_if(lines, delimiter, heads, say)
        for row, (values, held) in enumerate(_records(lines, delimiter, len(names)), 1):
            raw = "".join(held)
            if isinstance(values, Bad):
                yield row, values
            elif len(values) != len(names):
                yield row, Bad(f"{len(values)} fields, where the first line names {len(names)} columns", shown(raw))
            elif holds_bad_bytes(raw):
                yield row, Bad("invalid UTF-8 in the row", shown(raw))
            else:
                yield row, dict(zip(names, values, strict=True))
    finally:
        text.detach()


def _names(lines: _Lines, delimiter: str) -> list[str]:
    """The columns' names, which the first line that is not empty holds."""
    try:
        names = next((values for values in csv.reader(lines, delimiter=delimiter, strict=True) if values), [])
    except csv.Error as error:
        raise Bad(f"line 1: not valid CSV: {error}") from error
    names = [name.strip() for name in names]
    if not names or len(set(names)) < len(names):
        raise Bad("the first line of a CSV must name its columns, each once")
    return names


def _names_if(lines: _Lines, delimiter: str, heads: frozenset[str], say: Callable[[str], None]) -> list[str]:
    """The columns' names where the first line has one of ``heads``, else their numbers."""
    values, held = next(_records(lines, delimiter, 0), ([], []))
    lines.put_back(held)
    if isinstance(values, Bad) or not values or heads & {value.strip().lower() for value in values}:
        return _names(lines, delimiter)
    say("the first line names no columns known here, and counts as a row")
    return [str(number) for number in range(1, len(values) + 1)]


def _delimiter(lines: _Lines) -> str:
    """What stands between the columns: what splits the first line, and most of the following ones into as many."""
    first = list(islice(lines, SAMPLE_LINES))
    if first and first[0].startswith("sep=") and len(first[0].strip()) == 5:  # Excel's own way to say it
        lines.put_back(first[1:])
        return first[0][4]
    lines.put_back(first)

    def fitting(delimiter: str) -> float:
        counts = [0 if isinstance(values, Bad) else len(values)
                  for values, _ in _records(_Lines(iter(first)), delimiter, 0)]
        if not counts or counts[0] < 2:
            return 0.0
        return 1.0 + sum(count == counts[0] for count in counts[1:]) / max(1, len(counts) - 1)

    return max(DELIMITERS, key=fitting)


def _records(lines: _Lines, delimiter: str, columns: int) -> Iterator[tuple[list[str] | Bad, list[str]]]:
    """The fields of each record, and its lines. A quote that does not close as it should costs the line that it stands
    in, and reading goes on behind that line."""
    held: list[str] = []

    def feed() -> Iterator[str]:
        for line in lines:
            held.append(line)
            yield line

    reader = csv.reader(feed(), delimiter=delimiter, strict=True)
    while True:
        held.clear()
        reason = "a quote that is never closed"
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            reason = str(error)
        else:
            if not values:
                continue
            if not _swallowed(values, held, delimiter, columns):
                yield values, list(held)
                continue
        rest = held[1:]
        yield Bad(f"not valid CSV: {reason}", shown(held[0])), held[:1]
        lines.put_back(rest)
        reader = csv.reader(feed(), delimiter=delimiter, strict=True)


def _swallowed(values: list[str], held: list[str], delimiter: str, columns: int) -> bool:
    """Whether a record of several lines is one with a stray quote and others that it swallowed: those would be rows of
    their own, and it has too many or too few fields, or swallowed very many."""
    if columns == 0 or len(held) < 2:
        return False
    wrong = len(values) != columns
    inner = held[1:] if wrong else held[1:-1]
    if not wrong and (columns < 2 or len(inner) < SWALLOWED):
        return False
    return all(_fields(line, delimiter) == columns for line in inner)


def _fields(line: str, delimiter: str) -> int:
    """How many fields a line has by itself; 0 for one that is none."""
    try:
        return len(next(csv.reader([line], delimiter=delimiter, strict=True), []))
    except csv.Error:
        return 0
