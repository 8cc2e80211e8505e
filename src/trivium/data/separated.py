"""Text with separated columns: CSV and its likes, whose faults cost no more than the row that has them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from typing import IO, Any

from trivium.data.json_text import holds_bad_bytes, shown
from trivium.data.unpack import PIECE, Bad
from trivium.errors import counted

DELIMITERS = (",", ";", "\t", "|")
SAMPLE_LINES, SAMPLE = 40, 1 << 20
"""Lines and characters by which the delimiter is told."""
SWALLOWED = 8
"""So many lines inside one quoted field, each of which reads as a row of its own, betray a quote that was never
closed."""
MOST_LINES, MOST_FIELDS = 1 << 20, 1 << 21
"""The most lines and fields of one row."""
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r(?=[^\n])|\n)")
_END = re.compile(r"\r\n|\r(?=[^\n])|\n")
"""A line with its end, and the end alone; a carriage return at the end of what is held may be half of one."""


class _TooLong(Exception):
    """A row is longer than it may be."""


class _Lines:
    """Lines of a text, of which some can be put back. Of one that is longer than ``limit`` characters a beginning is
    given that is longer by one."""

    def __init__(self, text: IO[str] | None, limit: int, back: list[str] | None = None) -> None:
        self._text, self._limit, self._back = text, limit, list[str]()
        self._held, self._at = "", 0
        self.put_back(back or [])

    def put_back(self, lines: list[str]) -> None:
        self._back += reversed(lines)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._back:
            return self._back.pop()
        if match := _LINE.match(self._held, self._at):
            self._at = match.end()
            return match[0]
        return self._next()

    def _next(self) -> str:
        """The next line, whose end is not held yet."""
        held, self._held, self._at = self._held[self._at:], "", 0
        while True:
            more = self._text.read(max(PIECE, len(held))) if self._text else ""
            seen, held = max(0, len(held) - 1), held + more
            end = next((match.end() for match in [_END.search(held, seen)] if match), 0)
            if not end and not more:
                end = len(held)
            if end or len(held) > self._limit:
                break
            if not more:
                raise StopIteration
        if not end:
            self._pass_over(held)
            return held[:self._limit + 1]
        self._held, self._at = held, end
        return held[:end]

    def _pass_over(self, held: str) -> None:
        """The rest of a line that is too long."""
        while self._text and (more := self._text.read(PIECE)):
            if match := _END.search(held[-1] + more):
                self._held, self._at = more, max(0, match.end() - 1)
                return
            held = more

    def skip_blank(self) -> None:
        """Pass over empty lines, many at a time."""
        while not self._back:
            if self._at < len(self._held):
                if self._held[self._at] not in "\r\n":
                    return
                rest = self._held[self._at:]
                self._at += len(rest) - len(rest.lstrip("\r\n"))
            if self._at < len(self._held):
                return
            self._held, self._at = self._text.read(PIECE) if self._text else "", 0
            if not self._held:
                return


def separated_rows(stream: IO[bytes], delimiter: str | None, limit: int,
                   say: Callable[[str], None] = lambda text: None,
                   heads: frozenset[str] | None = None) -> Iterator[tuple[int, dict[str, Any] | Bad]]:
    """``(row from 1, the row)`` of a table whose first line names its columns; no field may be longer than ``limit``.
    Without a ``delimiter`` it is told by the first lines, and ``say`` is told where it is no comma. With ``heads``, a
    first line that holds none of these names (in small letters) is a row, and the columns are called 1, 2 and so on."""
    text = io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape", newline="")
    csv.field_size_limit(limit)
    lines = _Lines(text, limit)
    try:
        if delimiter is None:
            delimiter = _delimiter(lines, limit)
            if delimiter != ",":
                say(f"columns are separated by {'tabs' if delimiter == chr(9) else repr(delimiter)}")
        names = (_names(lines, delimiter, limit) if heads is None else
                 _names_if(lines, delimiter, limit, heads, say))
        for row, (values, held) in enumerate(_records(lines, delimiter, len(names), limit), 1):
            raw = "".join(held)
            if isinstance(values, Bad):
                yield row, values
            elif len(values) != len(names):
                yield row, Bad(f"{counted(len(values), 'field')}, where the first line names "
                               f"{counted(len(names), 'column')}", shown(raw))
            elif holds_bad_bytes(raw):
                yield row, Bad("invalid UTF-8 in the row", shown(raw))
            else:
                yield row, dict(zip(names, values, strict=True))
    finally:
        text.detach()


def _names(lines: _Lines, delimiter: str, limit: int) -> list[str]:
    """The columns' names, which the first line that is not empty holds; a column without one is called by its
    number."""
    values, _ = next(_records(lines, delimiter, 0, limit), ([], []))
    if isinstance(values, Bad):
        raise Bad(f"line 1: {values.reason}", values.text)
    names = [name.strip() for name in values]
    names = [name or f"column {number}" for number, name in enumerate(names, 1)] if any(names) else []
    if not names or len(set(names)) < len(names):
        raise Bad("the first line of a CSV must name its columns, each once")
    return names


def _names_if(lines: _Lines, delimiter: str, limit: int, heads: frozenset[str],
              say: Callable[[str], None]) -> list[str]:
    """The columns' names where the first line has one of ``heads``, else their numbers."""
    values, held = next(_records(lines, delimiter, 0, limit), ([], []))
    lines.put_back(held)
    if isinstance(values, Bad) or not values or heads & {value.strip().lower() for value in values}:
        return _names(lines, delimiter, limit)
    say("the first line names no columns known here, and counts as a row")
    return [str(number) for number in range(1, len(values) + 1)]


def _delimiter(lines: _Lines, limit: int) -> str:
    """What stands between the columns: what splits the first line, and most of the following ones into as many."""
    first: list[str] = []
    while len(first) < SAMPLE_LINES and sum(map(len, first)) < SAMPLE and (line := next(lines, "")):
        first.append(line)
    if first and first[0].startswith("sep=") and len(first[0].strip()) == 5:  # Excel's own way to say it
        lines.put_back(first[1:])
        return first[0][4]
    lines.put_back(first)

    def fitting(delimiter: str) -> float:
        counts = [0 if isinstance(values, Bad) else len(values)
                  for values, _ in _records(_Lines(None, limit, first), delimiter, 0, limit)]
        if not counts or counts[0] < 2:
            return 0.0
        return 1.0 + sum(count == counts[0] for count in counts[1:]) / max(1, len(counts) - 1)

    return max(DELIMITERS, key=fitting)


def _records(lines: _Lines, delimiter: str, columns: int,
             limit: int) -> Iterator[tuple[list[str] | Bad, list[str]]]:
    """The fields of each record, and its lines. A quote that does not close as it should costs the line that it stands
    in, and reading goes on behind that line; so does a record of more than ``limit`` characters."""
    held: list[str] = []

    def feed() -> Iterator[str]:
        size = fields = 0
        for line in lines:
            size, fields = (size, fields) if held else (0, 0)
            held.append(line)
            size, fields = size + len(line), fields + line.count(delimiter)
            if size > limit or len(held) > MOST_LINES or fields > MOST_FIELDS:
                raise _TooLong
            yield line

    reader = csv.reader(feed(), delimiter=delimiter, strict=True)
    while True:
        lines.skip_blank()
        held.clear()
        reason = "not valid CSV: a quote that is never closed"
        try:
            values = next(reader)
        except StopIteration:
            return
        except _TooLong:
            reason = f"a row of more than {limit:,} characters, {MOST_LINES:,} lines or {MOST_FIELDS:,} fields"
        except csv.Error as error:
            reason = f"not valid CSV: {error}"
        else:
            if not values:
                continue
            if not _swallowed(values, held, delimiter, columns):
                yield values, list(held)
                continue
        rest = held[1:]
        yield Bad(reason, shown(held[0])), held[:1]
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
