"""Documents from Parquet tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

from trivium.corpus.unpack import Bad


def parquet_rows(stream: IO[bytes]) -> Iterator[tuple[int, dict[str, Any] | Bad]]:
    """``(row from 1, the row)``, batch by batch."""
    import pyarrow
    from pyarrow import parquet

    row = 0
    try:
        table = parquet.ParquetFile(stream)
        columns = table.schema_arrow.names
        if not {"text", "html"} & set(columns):
            raise Bad(f"no column 'text' or 'html'; there are {', '.join(columns)}")
        for batch in table.iter_batches(batch_size=256):
            for value in batch.to_pylist():
                row += 1
                yield row, value
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise Bad(f"damaged Parquet: {str(error)[:120]}") from error
