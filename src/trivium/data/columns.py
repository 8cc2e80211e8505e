"""Columns of Arrow as plain values: what they weigh before they are made, and the values, each of which JSON can
hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from trivium.data.page_text import decode_page
from trivium.data.plain_text import decode
from trivium.data.unpack import Bad

PART = 64
"""Bytes that a list or an object weighs besides what it holds."""


def weight(array: Any) -> int:
    """About how many bytes the values of an array take when they are written out: repeated ones as often as they are
    repeated. Of arrays of runs and of views, and of dictionaries of lists, it may be more."""
    import pyarrow.compute as pc
    from pyarrow import types

    kind = array.type
    if isinstance(kind, _extension()):
        return weight(array.storage)
    if types.is_dictionary(kind):
        if not _is_text(kind.value_type):
            return len(array) * (PART + weight(array.dictionary))
        return 8 * len(array) + _sum(pc.binary_length(array.dictionary).take(array.indices))
    if types.is_struct(kind):
        return PART * len(array) + sum(map(weight, array.flatten()))
    if types.is_run_end_encoded(kind):
        return len(array) * weight(array.values) if len(array) > 1 else weight(pc.run_end_decode(array))
    if types.is_map(kind):
        start, stop = array.offsets[0].as_py(), array.offsets[-1].as_py()
        inside = [part.slice(start, stop - start) for part in (array.keys, array.items)]
        return PART * (len(array) + stop - start) + sum(map(weight, inside))
    if types.is_nested(kind):
        if not hasattr(array, "flatten") or types.is_union(kind):
            return PART * len(array) + sum(weight(array.field(number)) for number in range(kind.num_fields))
        many = len(array) * kind.list_size if types.is_fixed_size_list(kind) else _sum(pc.list_value_length(array))
        return PART * len(array) + 8 * many + (weight(array.flatten()) if many < 1 << 24 else 1 << 62)
    if types.is_string_view(kind) or types.is_binary_view(kind):  # the length is the first of a view's four numbers
        views = np.frombuffer(array.buffers()[1] or b"", np.int32)
        return 8 * len(array) + int(views[4 * array.offset:4 * (array.offset + len(array)):4].sum(dtype=np.int64))
    if _is_text(kind):
        return 8 * len(array) + _sum(pc.binary_length(array))
    return 16 * len(array)


def _extension() -> type:
    import pyarrow
    return pyarrow.BaseExtensionType


def _sum(lengths: Any) -> int:
    import pyarrow.compute as pc
    return pc.sum(pc.cast(lengths, "int64")).as_py() or 0


def _is_text(kind: Any) -> bool:
    from pyarrow import types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind)
                or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


def values_of(batch: Any, named: Mapping[str, str] | None) -> Iterator[dict[str, Any] | Bad]:
    """The rows of a batch. ``named`` says what a column is (``text``, ``html``, ``id`` ...); bytes are decoded, in a
    page as pages are. A value that cannot be read costs its row."""
    names = batch.schema.names
    columns = [_list(column) for column in batch.columns]
    for cells in zip(*columns, strict=True) if columns else [()] * batch.num_rows:
        values = [_decoded(cell, named[name] if named else "") if isinstance(cell, bytes) else cell
                  for name, cell in zip(names, cells, strict=True)]
        bad = next((Bad(f"{value.reason} in {name!r}" if value.text == "" else value.reason, value.text)
                    for name, value in zip(names, values, strict=True) if isinstance(value, Bad)), None)
        yield bad or dict(zip(names, values, strict=True))


def _decoded(value: bytes, role: str) -> Any:
    try:
        if role in ("text", "html"):
            return decode(value) if role == "text" else decode_page(value)
        return value.decode()
    except Bad as bad:
        return bad
    except UnicodeDecodeError:
        return value if not role else None


def _list(column: Any) -> list[Any]:
    """The values of a column; in place of one that cannot be read, why."""
    spelt = _spelt(column.type)
    try:
        return list((column if spelt == column.type else column.cast(spelt)).to_pylist())
    except Exception:  # what the libraries raise for odd values has no common kind
        return [_one(column.slice(number, 1)) for number in range(len(column))]


def _one(value: Any) -> Any:
    """The value of an array of one."""
    fault = Bad(f"a value of the kind {value.type} that cannot be read")
    for kind in (value.type, *(_spelt(value.type, instead) for instead in ("", "string", "int64"))):
        try:
            return (value if kind == value.type else value.cast(kind)).to_pylist()[0]
        except UnicodeDecodeError:
            fault = Bad("invalid UTF-8")
        except Exception:  # as above
            continue
    return fault


def _spelt(kind: Any, instead: str = "") -> Any:
    """A type in which points in time that Python cannot hold, those in nanoseconds or with a zone, are texts, or what
    is wanted ``instead``, and so with all dates."""
    import pyarrow
    from pyarrow import types

    if types.is_temporal(kind):
        odd = getattr(kind, "unit", "") == "ns" or getattr(kind, "tz", None) is not None
        return pyarrow.type_for_alias(instead or "string") if odd or instead else kind
    if types.is_struct(kind):
        return pyarrow.struct([field.with_type(_spelt(field.type, instead)) for field in kind])
    if types.is_list(kind) or types.is_large_list(kind):
        make = pyarrow.list_ if types.is_list(kind) else pyarrow.large_list
        return make(kind.value_field.with_type(_spelt(kind.value_type, instead)))
    return kind
