"""Documents from tables: Parquet, and text with separated columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import IO, Any

from trivium.data.unpack import Bad
from trivium.errors import extra


def parquet_rows(stream: IO[bytes], named: set[str] | None = None) -> Iterator[tuple[int, dict[str, Any] | Bad]]:
    """``(row from 1, the row)``, batch by batch. The table needs a column ``text`` or ``html``, or one in ``named``;
    any will do without it."""
    with extra("corpus"):
        import pyarrow
        from pyarrow import parquet

    row = 0
    try:
        table = parquet.ParquetFile(stream)
        columns = table.schema_arrow.names
        if named is not None and not ({"text", "html"} | named) & set(columns):
            raise Bad(f"no column 'text' or 'html'; there are {', '.join(columns)[:500]}; name one under fields")
        for batch in table.iter_batches(batch_size=256):
            for value in batch.to_pylist():
                row += 1
                yield row, value
    except Bad:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, OverflowError, MemoryError) as error:
        raise Bad(f"damaged Parquet: {str(error)[:120]}") from error


def separated_rows(stream: IO[bytes], delimiter: str, limit: int) -> Iterator[tuple[int, dict[str, Any] | Bad]]:
    """``(row from 1, the row)`` of a table whose first line names its columns; no field may be longer than
    ``limit``."""
    text = io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape", newline="")
    csv.field_size_limit(limit)
    row = 0
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    try:
        names = next(reader, [])
        if not names or len(set(names)) < len(names):
            raise Bad("the first line of a CSV must name its columns, each once")
        for values in reader:
            if not values:
                continue
            row += 1
            if len(values) != len(names):
                yield row, Bad(f"{len(values)} fields, where the first line names {len(names)} columns",
                               delimiter.join(values)[:2000])
            elif any("\udc80" <= c <= "\udcff" for value in values for c in (() if value.isascii() else value)):
                yield row, Bad("invalid UTF-8 in the row",
                               delimiter.join(values)[:2000].encode("utf-8", "replace").decode())
            else:
                yield row, dict(zip(names, values, strict=True))
    except csv.Error as error:
        raise Bad(f"line {reader.line_num}: not valid CSV: {error}") from error
    finally:
        text.detach()
