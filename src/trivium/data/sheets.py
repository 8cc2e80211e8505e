"""Rows of Excel's workbooks: zip archives of XML, which are looked through before they are opened, as a few bytes can
say that there are a billion rows."""

from __future__ import annotations

import datetime
import re
import zipfile
from collections.abc import Iterator
from typing import IO, Any

from trivium.data.unpack import PIECE, Bad, Budget
from trivium.errors import extra

Rows = Iterator[tuple[int, dict[str, Any] | Bad]]
MOST_ROWS, MOST_COLUMNS, MOST_SHEETS = 1 << 20, 1 << 14, 1000
"""What a sheet of Excel has at most, and how many sheets are read."""
MOST_TAGS = 1 << 22
"""The most elements besides a workbook's sheets: about a million texts."""
_ROW = re.compile(rb"<(?:\w+:)?row[\s/>][^>]{0,1000}")
_NUMBER = re.compile(rb"""\sr\s*=\s*["'](\d+)["']""")


def sheet_rows(stream: IO[bytes], budget: Budget, limit: int) -> Rows:
    """``(row from 1, the row)`` of all sheets of an Excel workbook (.xlsx), each of which names its columns in its
    first row. Cells are texts, as in CSV: numbers as Excel keeps them, dates in ISO's form; empty cells are None and
    empty rows passed over. Of a formula the value that Excel last saw is taken. ``limit`` is the most bytes of one row,
    and of what the workbook holds besides its sheets (its texts above all), which is kept in memory."""
    with extra("corpus"):
        import openpyxl

    row = 0
    try:
        with zipfile.ZipFile(stream) as archive:
            _check(archive, budget, limit)
        book = openpyxl.load_workbook(stream, read_only=True, data_only=True)
        if len(book.worksheets) > MOST_SHEETS:
            raise Bad(f"a workbook of more than {MOST_SHEETS:,} sheets")
        seen = set()
        for sheet in book.worksheets:
            if sheet._worksheet_path in seen:
                raise Bad("damaged Excel workbook: two of its sheets are the same part")
            seen.add(sheet._worksheet_path)
            sheet.reset_dimensions()  # what a sheet says of its own size is not always so
            for number, value in _of_sheet(sheet, row):
                row = number
                yield number, value
    except Bad:
        raise
    except MemoryError as error:
        raise Bad("needs more memory than there is") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise Bad("damaged Excel workbook") from error
    except Exception as error:  # what the library raises for damage has no common kind
        raise Bad(f"damaged Excel workbook: {str(error).partition(chr(10))[0][:120]}") from error


def _of_sheet(sheet: Any, row: int) -> Rows:
    cells = (values for values in sheet.iter_rows(values_only=True) if any(v is not None for v in values))
    head = [None if value is None else str(value).strip() for value in next(cells, ())]
    names = [name for name in head if name is not None]
    if len(set(names)) < len(names):
        raise Bad(f"the first row of the sheet {sheet.title!r} must name its columns, each once")
    for given in cells:
        row += 1
        values = (*given, *[None] * (len(head) - len(given)))
        if any(value is not None for name, value in zip([*head, *[None] * len(values)], values) if name is None):
            yield row, Bad("a cell in a column without a name", str(values)[:2000])
        else:
            yield row, {name: _cell(value) for name, value in zip(head, values) if name is not None}


def _check(archive: zipfile.ZipFile, budget: Budget, limit: int) -> None:
    """Raise :class:`Bad` for a workbook that no memory holds, or whose rows the library would leave out."""
    held = tags = 0
    for part in archive.infolist():
        budget.take(part.file_size)
        if part.filename.startswith("xl/worksheets/") and part.filename.endswith(".xml"):
            with archive.open(part) as file:
                _check_sheet(file, limit)
        elif not part.filename.startswith("xl/media/"):
            held += part.file_size
            if held > limit:
                raise Bad(f"a workbook with more than {limit:,} bytes of texts and styles; save it as CSV")
            with archive.open(part) as file:
                while piece := file.read(PIECE):
                    tags += piece.count(b"<")
    if tags > MOST_TAGS:
        raise Bad(f"a workbook with more than {MOST_TAGS:,} elements besides its sheets; save it as CSV")


def _check_sheet(file: IO[bytes], limit: int) -> None:
    """Go through a sheet's rows: their numbers must grow, and none may be larger than a row can be."""
    before = b""
    number = size = tags = 0
    while piece := file.read(PIECE):
        held = before + piece
        place = 0
        for match in _ROW.finditer(held):
            if match.end() == len(held):
                break  # a tag that the piece cuts
            named = _NUMBER.search(match[0])
            following = int(named[1][:12]) if named else number + 1
            if following <= number:
                raise Bad("damaged Excel workbook: a sheet's rows are not in their order")
            if following > MOST_ROWS:
                raise Bad(f"damaged Excel workbook: a sheet of more than {MOST_ROWS:,} rows")
            number, size, tags, place = following, 0, 0, match.end()
        rest = max(place, len(held) - 1100)  # what may be the beginning of a row's tag is looked at again
        size += rest - place
        tags += held.count(b"<", place, rest)
        before = held[rest:]
        if size > limit or tags > 16 * MOST_COLUMNS:
            raise Bad(f"a row of more than {limit:,} bytes or {MOST_COLUMNS:,} cells in a sheet")


def _cell(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat(" ") if isinstance(value, datetime.datetime) else value.isoformat()
    return None if value is None else str(value)
