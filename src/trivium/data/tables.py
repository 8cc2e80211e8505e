"""Rows of tables that are no text: Parquet and Arrow. A few bytes of a table can stand for a great many rows or values,
so what a batch would unpack to is found before it is unpacked, and batches are as small as that asks for."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import IO, Any

from trivium.data.columns import values_of, weight
from trivium.data.unpack import Bad, Budget
from trivium.errors import counted, extra
from trivium.files import is_away

Rows = Iterator[tuple[int, dict[str, Any] | Bad]]

BATCH = 256
"""The most rows that are unpacked together."""
PACKED = 100
"""More than so many times its packed size no text unpacks to."""
VALUES_PER_BYTE = 64
"""More than so many values a byte of the file no text has."""


def parquet_rows(stream: IO[bytes], budget: Budget, limit: int, named: Mapping[str, str] | None = None) -> Rows:
    """``(row from 1, the row)``, batch by batch; ``limit`` is the most bytes of one row. With ``named`` only the
    columns that it holds are read, and what each is there (``text``, ``html``, ``id`` ...); without it, all are."""
    with extra("corpus"):
        import pyarrow
        from pyarrow import parquet

    try:
        size = stream.seek(0, 2)
        stream.seek(0)
        table = parquet.ParquetFile(stream)
        chosen = _columns(table.schema_arrow.names, named)
        leaves = [number for number in range(len(table.schema))
                  if chosen is None or table.schema.column(number).path.split(".")[0] in chosen]
        paths = [table.schema.column(number).path for number in leaves]
        nested = [path for number, path in zip(leaves, paths)
                  if table.schema.column(number).physical_type == "BYTE_ARRAY" and "." in path]
        if nested:  # as dictionaries, else one row of a list could unpack to any size
            table = parquet.ParquetFile(stream, read_dictionary=nested)
        for group in range(table.num_row_groups):
            about = table.metadata.row_group(group)
            batch = min([BATCH, *(_batch(about.column(number), about.num_rows, size, limit, stream)
                                  for number in leaves)])
            yield from _counted(about.num_rows, _rows_of(
                table.iter_batches(batch_size=batch, row_groups=[group], columns=chosen), budget, limit, named))
    except MemoryError as error:
        raise Bad("needs more memory than there is") from error
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
        if is_away(error):
            raise
        raise Bad(f"damaged Parquet: {_first_line(error)}") from error


def _counted(rows: int, found: Rows) -> Rows:
    """Rows of a row group, which must be as many as it says."""
    number = 0
    for row in found:
        number += 1
        yield row
    if number != rows:
        raise Bad(f"damaged Parquet: {counted(number, 'row')}, where {rows:,} were announced")


def _batch(column: Any, rows: int, size: int, limit: int, stream: IO[bytes]) -> int:
    """How many rows of a column may be unpacked together, so that they take no more than ``limit`` bytes at the most.
    Raises :class:`Bad` for a column that stands for more than a file of ``size`` bytes can mean."""
    whole = column.total_uncompressed_size
    if column.num_values > 1_000_000 + VALUES_PER_BYTE * size:
        raise Bad(f"a column stands for {column.num_values:,} values, in a file of {size:,} bytes")
    if whole > limit and whole > PACKED * size:
        raise Bad(f"a column unpacks to {whole:,} bytes, in a file of {size:,} bytes")
    largest = whole // max(1, rows)
    if "DELTA_BYTE_ARRAY" in column.encodings:  # a value may be made of all that stand before
        largest = whole
    elif column.has_dictionary_page:
        place = stream.tell()
        stream.seek(column.dictionary_page_offset)
        largest = max(largest, _page_size(stream.read(16), whole))
        stream.seek(place)
    return max(1, min(BATCH, limit // max(1, largest)))


def _page_size(header: bytes, otherwise: int) -> int:
    """The unpacked size that a page's header tells in its second field, a zigzag varint of Thrift's compact protocol
    (the Parquet format's PageHeader); ``otherwise`` where it does not begin as one."""
    place, values = 0, []
    for _ in range(2):
        if header[place:place + 1] != b"\x15":
            return otherwise
        value = shift = 0
        place += 1
        while place < len(header):
            byte = header[place]
            value, shift, place = value | (byte & 127) << shift, shift + 7, place + 1
            if byte < 128:
                break
        values.append(value >> 1)
    return values[1]


def arrow_rows(stream: IO[bytes], budget: Budget, limit: int, named: Mapping[str, str] | None = None) -> Rows:
    """:func:`parquet_rows` for an Arrow file, as ``datasets.save_to_disk`` and ``datasets``' cache write it: a stream
    of batches, or the file format (Feather), which is such a stream with a table of contents behind it."""
    with extra("corpus"):
        import pyarrow
        from pyarrow import ipc

    try:
        size = stream.seek(0, 2)
        stream.seek(0)
        start = 8 if stream.read(6) == b"ARROW1" else 0
        _check_batches(stream, start, size, limit)
        stream.seek(start)
        batches = ipc.open_stream(stream)
        chosen = _columns(batches.schema.names, named)
        met: list[Any] = []
        yield from _rows_of(_slices(batches, chosen, size, met), budget, limit, named)
        if start:
            _check_end(stream, len(met))
    except MemoryError as error:
        raise Bad("needs more memory than there is") from error
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
        if is_away(error):
            raise
        raise Bad(f"damaged Arrow data: {_first_line(error)}") from error


def _check_end(stream: IO[bytes], batches: int) -> None:
    """Raise :class:`Bad` where a file's table of contents is missing, or names more batches than were there."""
    import pyarrow
    from pyarrow import ipc

    try:
        stream.seek(0)
        announced = ipc.open_file(stream).num_record_batches
    except (pyarrow.ArrowException, OSError) as error:
        raise Bad("truncated Arrow data: its end mark is missing") from error
    if announced != batches:
        raise Bad(f"damaged Arrow data: {batches:,} batches, where {announced:,} were announced")


def _slices(batches: Any, chosen: list[str] | None, size: int, met: list[Any]) -> Iterator[Any]:
    """Parts of batches; of each batch the number of rows is noted in ``met``."""
    for batch in batches:
        met.append(batch.num_rows)
        if batch.num_rows > 1_000_000 + VALUES_PER_BYTE * size:
            raise Bad(f"a batch stands for {counted(batch.num_rows, 'row')}, in a file of {counted(size, 'byte')}")
        batch = batch if chosen is None else batch.select(chosen)
        _validate(batch)
        for start in range(0, batch.num_rows, BATCH):
            yield batch.slice(start, BATCH)


def _validate(batch: Any) -> None:
    """Raise for a batch whose offsets point outside; texts that are no UTF-8 cost their rows alone."""
    import pyarrow
    try:
        batch.validate(full=True)
    except pyarrow.ArrowInvalid as error:
        if "utf8" not in str(error).lower():
            raise


def _check_batches(stream: IO[bytes], start: int, size: int, limit: int) -> None:
    """Raise :class:`Bad` for a batch that unpacks to more than a file of ``size`` bytes can mean. Damage is left to the
    one who reads the batches, and meets it at the same place."""
    import pyarrow
    from pyarrow import ipc

    stream.seek(start)
    try:
        messages = ipc.MessageReader.open_stream(stream)
        while True:
            message = messages.read_next_message()
            whole = 0 if message.body is None else _unpacked(message.metadata.to_pybytes(), message.body)
            if whole > limit and whole > PACKED * message.body.size:
                raise Bad(f"a batch unpacks to {whole:,} bytes, in a file of {size:,} bytes")
    except (StopIteration, pyarrow.ArrowException, OSError, struct.error, IndexError):
        return


def _unpacked(head: bytes, body: Any) -> int:
    """Bytes that the packed buffers of a batch unpack to, which each tells in its first eight; 0 where they are not
    packed. ``head`` is a Message of Arrow's columnar format, a FlatBuffer: offsets of fields stand in a table's
    table."""
    def number(kind: str, place: int) -> int:
        return int(struct.unpack_from(kind, head, place)[0])

    def field(table: int, index: int) -> int:
        fields = table - number("<i", table)
        offset = number("<H", fields + 4 + 2 * index) if 4 + 2 * index < number("<H", fields) else 0
        return table + offset if offset else 0

    def inside(place: int) -> int:
        return place + number("<i", place)

    root = number("<i", 0)
    batch = inside(field(root, 2))
    if head[field(root, 1)] == 2:  # a dictionary holds its batch in its second field
        batch = inside(field(batch, 1))
    if not field(batch, 3) or not field(batch, 2):
        return 0
    buffers, whole = inside(field(batch, 2)), 0
    for index in range(number("<i", buffers)):
        offset, length = struct.unpack_from("<qq", head, buffers + 4 + 16 * index)
        if length >= 8:
            whole += max(0, struct.unpack("<q", body.slice(offset, 8).to_pybytes())[0])
    return whole


def _columns(columns: list[str], named: Mapping[str, str] | None) -> list[str] | None:
    """Which columns are read; None for all."""
    if named is None:
        return None
    chosen = [name for name in dict.fromkeys(columns) if name in named]
    if not any(named[name] in ("text", "html") for name in chosen):
        raise Bad(f"no column 'text' or 'html'; there are {', '.join(columns)[:500]}; name one under fields")
    twice = [name for name in chosen if columns.count(name) > 1]
    if twice:
        raise Bad(f"several columns are called {twice[0]!r}")
    return chosen


def _rows_of(batches: Iterator[Any], budget: Budget, limit: int, named: Mapping[str, str] | None) -> Rows:
    row = 0
    for batch in batches:
        for part in _parts(batch, budget, limit):
            for value in [part] if isinstance(part, Bad) else values_of(part, named):
                row += 1
                yield row, value


def _parts(batch: Any, budget: Budget, limit: int) -> Iterator[Any]:
    """A batch in parts whose values take no more than ``limit`` bytes each; a row that takes more is bad."""
    whole = sum(map(weight, batch.columns))
    if batch.num_rows == 0 or whole <= limit:
        budget.take(whole)
        yield batch
    elif batch.num_rows == 1:
        yield Bad(f"a row of more than {limit:,} bytes")
    else:
        half = batch.num_rows // 2
        yield from _parts(batch.slice(0, half), budget, limit)
        yield from _parts(batch.slice(half), budget, limit)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:120]
