"""Rows of tables that are no text: Parquet, Arrow, and Excel's sheets."""

from __future__ import annotations

import datetime
import zipfile
from collections.abc import Iterator
from typing import IO, Any

from trivium.data.unpack import Bad, Budget
from trivium.errors import extra
from trivium.files import is_away

Rows = Iterator[tuple[int, dict[str, Any] | Bad]]


def parquet_rows(stream: IO[bytes], named: set[str] | None = None) -> Rows:
    """``(row from 1, the row)``, batch by batch. The table needs a column ``text`` or ``html``, or one in ``named``;
    any will do without it."""
    with extra("corpus"):
        import pyarrow
        from pyarrow import parquet

    try:
        table = parquet.ParquetFile(stream)
        _check_columns(table.schema_arrow.names, named)
        yield from _rows_of(table.iter_batches(batch_size=256))
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, OverflowError, MemoryError) as error:
        if is_away(error):
            raise
        raise Bad(f"damaged Parquet: {str(error)[:120]}") from error


def arrow_rows(stream: IO[bytes], named: set[str] | None = None) -> Rows:
    """:func:`parquet_rows` for an Arrow file, as ``datasets.save_to_disk`` and ``datasets``' cache write it: a stream
    of batches, or the file format (Feather)."""
    with extra("corpus"):
        import pyarrow
        from pyarrow import ipc

    try:
        magic = stream.read(6)
        stream.seek(0)
        if magic == b"ARROW1":
            table = ipc.open_file(stream)
            _check_columns(table.schema.names, named)
            batches = (table.get_batch(number) for number in range(table.num_record_batches))
        else:
            batches = ipc.open_stream(stream)
            _check_columns(batches.schema.names, named)
        yield from _rows_of(part for batch in batches
                            for part in (batch.slice(start, 256) for start in range(0, batch.num_rows, 256)))
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, OverflowError, MemoryError) as error:
        if is_away(error):
            raise
        raise Bad(f"damaged Arrow data: {str(error)[:120]}") from error


def _check_columns(columns: list[str], named: set[str] | None) -> None:
    if named is not None and not ({"text", "html"} | named) & set(columns):
        raise Bad(f"no column 'text' or 'html'; there are {', '.join(columns)[:500]}; name one under fields")


def _rows_of(batches: Iterator[Any]) -> Rows:
    row = 0
    for batch in batches:
        for value in batch.to_pylist():
            row += 1
            yield row, value


def sheet_rows(stream: IO[bytes], budget: Budget) -> Rows:
    """``(row from 1, the row)`` of all sheets of an Excel workbook (.xlsx), each of which names its columns in its
    first row. Cells are texts, as in CSV: numbers as Excel keeps them, dates in ISO's form; empty cells are None and
    empty rows passed over. Of a formula the value that Excel last saw is taken."""
    with extra("corpus"):
        import openpyxl
        from openpyxl.utils.exceptions import InvalidFileException

    row = 0
    try:
        with zipfile.ZipFile(stream) as archive:
            budget.take(sum(info.file_size for info in archive.infolist()))
        book = openpyxl.load_workbook(stream, read_only=True, data_only=True)
        for sheet in book.worksheets:
            cells = (values for values in sheet.iter_rows(values_only=True) if any(v is not None for v in values))
            head = [None if value is None else str(value).strip() for value in next(cells, ())]
            names = [name for name in head if name is not None]
            if len(set(names)) < len(names):
                raise Bad(f"the first row of the sheet {sheet.title!r} must name its columns, each once")
            for values in cells:
                row += 1
                if any(value is not None for name, value in zip([*head, *[None] * len(values)], values)
                       if name is None):
                    yield row, Bad("a cell in a column without a name", str(values)[:2000])
                else:
                    yield row, {name: _cell(value) for name, value in zip(head, values) if name is not None}
    except (zipfile.BadZipFile, InvalidFileException, KeyError, ValueError, OSError, TypeError) as error:
        if is_away(error):
            raise
        raise Bad(f"damaged Excel workbook: {str(error)[:120]}") from error


def _cell(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat(" ") if isinstance(value, datetime.datetime) else value.isoformat()
    return None if value is None else str(value)
