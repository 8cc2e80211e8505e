"""Rows of tables: Parquet and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import IO, Any

from trivium.corpus.unpack import Bad


def parquet_rows(stream: IO[bytes], documents: bool = True) -> Iterator[tuple[int, dict[str, Any] | Bad]]:
    """``(row from 1, the row)``, batch by batch; of ``documents`` a column must be text or HTML."""
    import pyarrow
    from pyarrow import parquet

    row = 0
    try:
        table = parquet.ParquetFile(stream)
        columns = table.schema_arrow.names
        if documents and not {"text", "html"} & set(columns):
            raise Bad(f"no column 'text' or 'html'; there are {', '.join(columns)}")
        for batch in table.iter_batches(batch_size=256):
            for value in batch.to_pylist():
                row += 1
                yield row, value
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise Bad(f"damaged Parquet: {str(error)[:120]}") from error


def csv_rows(text: str, delimiter: str) -> Iterator[tuple[int, dict[str, Any] | Bad]]:
    """``(row from 1, the row)`` of a CSV whose first line names its columns; a row of too many or too few fields is bad."""
    csv.field_size_limit(1 << 27)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    row = 0
    try:
        columns = next(reader, None)
        if not columns or len(set(columns)) < len(columns):
            raise Bad("the first line of a CSV must name its columns, each once")
        for values in reader:
            if not values:
                continue
            row += 1
            if len(values) == len(columns):
                yield row, dict(zip(columns, values, strict=True))
            else:
                yield row, Bad(f"{len(values)} fields, where the first line names {len(columns)} columns", delimiter.join(values))
    except csv.Error as error:
        raise Bad(f"line {reader.line_num}: not valid CSV: {error}") from error
