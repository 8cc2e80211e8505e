"""What a GGUF file says of itself, read without trust: nothing in it can make this take more memory than the file's
header warrants, or look outside the file.

The format: ``GGUF``, a version, two counts, then keys with typed values, then the tensors' names, shapes, types and
places, then, aligned, their bytes. All numbers are little-endian.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from trivium.errors import TriviumError

NUMBERS = {0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8",
           12: "<f8"}
"""Types of values that are numbers; 8 is a string, 9 an array."""
STRING, ARRAY = 8, 9
MOST_ENTRIES = 4_000_000
"""Entries of an array, such as a vocabulary, and keys and tensors."""
LONGEST = 16 << 20
"""Bytes of a string, such as a chat template."""


@dataclass(frozen=True)
class TensorInfo:
    """A tensor's place in the file."""

    shape: tuple[int, ...]
    """As PyTorch has it."""
    format: Any
    """A ``gguf.GGMLQuantizationType``."""
    start: int
    """Its first byte, from the file's beginning."""
    bytes: int
    """How many it has."""


@dataclass(frozen=True)
class Header:
    """What stands before the weights."""

    path: Path
    values: dict[str, Any]
    tensors: dict[str, TensorInfo]


class Reader:
    """The header's bytes, of which never more are asked for than are there."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file, self.size = path, file, path.stat().st_size

    def broken(self, what: str) -> TriviumError:
        """A refusal of the file."""
        return TriviumError(f"{self.path}: {what}; it is cut short or broken: copy or make it again")

    def take(self, count: int) -> bytes:
        """The next bytes."""
        data = self.file.read(count) if count <= self.size - self.file.tell() else b""
        if len(data) != count:
            raise self.broken(f"ends within its header, where {count:,} more bytes should be")
        return data

    def number(self, type: str) -> int:
        """An integer."""
        return int(struct.unpack("<" + type, self.take(struct.calcsize("<" + type)))[0])

    def count(self, what: str, least: int) -> int:
        """How many of something follow, each of at least so many bytes."""
        number = self.number("Q")
        if number > MOST_ENTRIES or number * least > self.size - self.file.tell():
            raise self.broken(f"claims to have {number:,} {what}")
        return number

    def string(self) -> str:
        """A text."""
        length = self.number("Q")
        if length > LONGEST:
            raise self.broken(f"claims to have a text of {length:,} bytes")
        return self.take(length).decode("utf-8", "replace")

    def value(self, kind: int, key: str) -> Any:
        """A value of a type."""
        if kind == STRING:
            return self.string()
        if kind in NUMBERS:
            return np.frombuffer(self.take(np.dtype(NUMBERS[kind]).itemsize), NUMBERS[kind])[0].item()
        if kind != ARRAY:
            raise self.broken(f"{key!r} has a value of the unknown type {kind}")
        inner = self.number("I")
        if inner == STRING:
            return [self.string() for _ in range(self.count(f"entries of {key!r}", 8))]
        if inner not in NUMBERS:
            raise self.broken(f"{key!r} has entries of the unknown type {inner}")
        size = np.dtype(NUMBERS[inner]).itemsize
        return np.frombuffer(self.take(self.count(f"entries of {key!r}", size) * size), NUMBERS[inner])


def read_header(path: Path, gguf: Any) -> Header:
    """The header of a GGUF file. Raises :class:`TriviumError` for a file that is none, or broken, or of a version,
    order of bytes or tensor type that is not known."""
    with open(path, "rb") as file:
        reader = Reader(path, file)
        if reader.size < 24 or reader.take(4) != b"GGUF":
            raise TriviumError(f"{path}: no GGUF file (it does not begin with GGUF)")
        version = reader.number("I")
        if version not in (2, 3):
            raise TriviumError(f"{path}: GGUF of version {version if version < 1 << 16 else 'big-endian'}; 2 and 3, "
                               "little-endian, are read: convert it anew")
        tensors, keys = reader.count("tensors", 24), reader.count("keys", 13)
        values: dict[str, Any] = {}
        for _ in range(keys):
            key = reader.string()
            values[key] = reader.value(reader.number("I"), key)
        infos = [tensor_info(reader, gguf) for _ in range(tensors)]
        alignment = values.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20:
            raise reader.broken(f"its alignment is {alignment}")
        begin = -(-file.tell() // alignment) * alignment
    found: dict[str, TensorInfo] = {}
    for name, info in infos:
        end = begin + info.start + info.bytes
        if end > reader.size:
            raise reader.broken(f"its tensor {name} ends at byte {end:,}, but the file has {reader.size:,}")
        if name in found:
            raise reader.broken(f"holds the tensor {name} twice")
        found[name] = TensorInfo(info.shape, info.format, begin + info.start, info.bytes)
    return Header(path, values, found)


def tensor_info(reader: Reader, gguf: Any) -> tuple[str, TensorInfo]:
    """The name and place of the next tensor."""
    name = reader.string()
    dimensions = reader.number("I")
    if not 1 <= dimensions <= 4:
        raise reader.broken(f"its tensor {name!r} has {dimensions} dimensions")
    shape = tuple(reader.number("Q") for _ in range(dimensions))[::-1]
    number, start = reader.number("I"), reader.number("Q")
    known = {int(format): format for format in gguf.GGMLQuantizationType}
    if number not in known:
        raise TriviumError(f"{reader.path}: the tensor {name} has the type {number}, which is not known here; update "
                           "the package gguf, or take the file in another type, such as Q8_0")
    block, size = gguf.GGML_QUANT_SIZES[known[number]]
    if min(shape) < 1 or math.prod(shape) > 1 << 40 or shape[-1] % block:
        raise reader.broken(f"its tensor {name} has the shape {shape}")
    return name, TensorInfo(shape, known[number], start, math.prod(shape) // block * size)
