"""Shards: compressed JSONL files of at most some hundred documents, the unit that every task reads and writes."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from trivium.errors import TriviumError, extra
from trivium.files import Row, disk_errors


def line(row: Row) -> bytes:
    """One row as a line of JSONL."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def write_shard(path: Path, rows: Iterable[Row]) -> None:
    """Write rows, compressed and safe on disk. The folder around it is renamed when all of its files are complete."""
    with extra("corpus"):
        import zstandard

    with disk_errors(path), open(path, "wb") as file:
        with zstandard.ZstdCompressor(level=1).stream_writer(file, closefd=False) as packed:
            for row in rows:
                packed.write(line(row))
        file.flush()
        os.fsync(file.fileno())


def read_shard(path: Path) -> Iterator[Row]:
    """The rows of :func:`write_shard`."""
    with extra("corpus"):
        import zstandard

    with open(path, "rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as raw:
        for text in io.BufferedReader(raw, 1 << 18):
            yield json.loads(text)


def write_lines(path: Path, rows: Iterable[Row]) -> int:
    """Write rows as plain JSONL, safe on disk; returns their number."""
    count = 0
    with disk_errors(path), open(path, "wb") as file:
        for row in rows:
            file.write(line(row))
            count += 1
        file.flush()
        os.fsync(file.fileno())
    return count


class _Plain:
    """A file as one that NumPy writes to as to any other: what it does to real files tells a full disk by a number of
    elements."""

    def __init__(self, file: IO[bytes]) -> None:
        self.write = file.write


def write_array(path: Path, array: np.ndarray) -> None:
    """Write one NumPy array, safe on disk."""
    with disk_errors(path), open(path, "wb") as file:
        np.save(_Plain(file), array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def read_array(path: Path) -> np.ndarray:
    """The array of :func:`write_array`, mapped into memory."""
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:  # an empty array cannot be mapped; anything else is damage
        try:
            array = np.load(path, allow_pickle=False)
        except ValueError:
            raise TriviumError(f"{path}: damaged; delete the folder around it and run the same command again"
                               ) from error
    return array


def among(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Which values are in a sorted array."""
    if not len(ordered):
        return np.zeros(len(values), bool)
    places = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    found: np.ndarray = ordered[places] == values
    return found


def in_range(hashes: np.ndarray, partition: int, partitions: int) -> slice:
    """Where one partition's part of sorted hashes lies."""
    edges = [partition * 2**64 // partitions, (partition + 1) * 2**64 // partitions]
    start = int(np.searchsorted(hashes, np.uint64(edges[0])))
    return slice(start, len(hashes) if edges[1] == 2**64 else int(np.searchsorted(hashes, np.uint64(edges[1]))))
