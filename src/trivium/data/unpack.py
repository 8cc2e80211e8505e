"""Compressed streams and archives, read piece by piece and never written to disk.

A few kilobytes can unpack to terabytes, so everything unpacked is counted against a budget, and no step holds more than
one piece of it.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import IO

from trivium.errors import extra
from trivium.files import is_away

PIECE = 1 << 18
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
ARCHIVES = (".tar", ".tgz", ".zip", *(f".tar{suffix}" for suffix in COMPRESSED))


class Bad(Exception):
    """A row or file that cannot be a document: the reason, and what there is of its text."""

    def __init__(self, reason: str, text: str = "") -> None:
        super().__init__(reason)
        self.reason, self.text = reason, text


class Budget:
    """How many more bytes may come out of one input file."""

    def __init__(self, size: int) -> None:
        self.size, self.left = size, size

    def take(self, count: int) -> None:
        """Spend ``count`` bytes."""
        self.left -= count
        if self.left < 0:
            raise Bad(f"unpacks to more than {self.size:,} bytes; raise max_unpacked_bytes if it is meant to")


class Stream(io.RawIOBase):
    """A binary file made of an iterator's pieces."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def decompress(stream: IO[bytes], suffix: str, budget: Budget) -> IO[bytes]:
    """The unpacked bytes of a ``.gz``, ``.zst``, ``.bz2`` or ``.xz`` stream; any other suffix passes through.
    Damage and truncation raise :class:`Bad` where they are met, after the bytes before them."""
    if suffix not in COMPRESSED:
        return stream
    pieces = _zstd_pieces(stream) if suffix == ".zst" else _library_pieces(stream, suffix)
    return io.BufferedReader(Stream(_counted(pieces, budget)), PIECE)  # type: ignore[type-var]


def _counted(pieces: Iterator[bytes], budget: Budget) -> Iterator[bytes]:
    for piece in pieces:
        budget.take(len(piece))
        yield piece


def _library_pieces(stream: IO[bytes], suffix: str) -> Iterator[bytes]:
    opener: Callable[[IO[bytes]], IO[bytes]] = {".gz": gzip.open, ".bz2": bz2.open,
                                                ".xz": lzma.open}[suffix]  # type: ignore[assignment]
    try:
        with opener(stream) as file:
            # read1 hands over what it has: bytes before the damage are not lost with it
            while piece := file.read1(PIECE):  # type: ignore[attr-defined]
                yield piece
    except EOFError as error:
        raise Bad(f"truncated {suffix[1:]} data") from error
    except (OSError, zlib.error, lzma.LZMAError) as error:
        if is_away(error):
            raise
        raise Bad(f"damaged {suffix[1:]} data: {error}") from error


def _zstd_pieces(stream: IO[bytes]) -> Iterator[bytes]:
    """The library's own reader takes a truncated frame for a whole one, so frames are followed here. 1 KiB of input at
    a time unpacks to 32 MiB at most."""
    with extra("corpus"):
        import zstandard

    frame, started = zstandard.ZstdDecompressor().decompressobj(), False
    try:
        while data := stream.read(1024):
            while data:
                started = True
                if piece := frame.decompress(data):
                    yield piece
                data = frame.unused_data if frame.eof else b""
                if frame.eof:
                    frame, started = zstandard.ZstdDecompressor().decompressobj(), False
    except zstandard.ZstdError as error:
        raise Bad(f"damaged zst data: {error}") from error
    if started:
        raise Bad("truncated zst data")


def members(stream: IO[bytes], name: str, budget: Budget) -> Iterator[tuple[str, IO[bytes] | Bad]]:
    """``(name, open file)`` for each file of a tar or zip archive, in the archive's order; each is read before the next
    is asked for. Links and damaged members come as :class:`Bad`; damage to the archive itself is raised."""
    if name.lower().endswith(".zip"):
        yield from _zip_members(stream, budget)
        return
    suffix = ".gz" if name.lower().endswith(".tgz") else PurePosixPath(name.lower()).suffix
    unpacked = decompress(stream, suffix, budget)
    try:
        with tarfile.open(fileobj=unpacked, mode="r|") as archive:
            for member in archive:
                if member.isdir():
                    continue
                file = archive.extractfile(member) if member.isfile() else None
                yield member.name, file if file is not None else Bad("a link or device in an archive, not a file")
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise Bad(f"damaged tar archive: {error}") from error


def _zip_members(stream: IO[bytes], budget: Budget) -> Iterator[tuple[str, IO[bytes] | Bad]]:
    try:
        archive = zipfile.ZipFile(stream)
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        if is_away(error):
            raise
        raise Bad(f"damaged zip archive: {error}") from error
    with archive:
        for member in archive.infolist():
            if member.is_dir():
                continue
            try:
                file = archive.open(member)
            except (RuntimeError, NotImplementedError, zipfile.BadZipFile, ValueError, OSError) as error:
                if is_away(error):
                    raise
                yield member.filename, Bad(f"cannot be unpacked: {error}")
                continue
            with file:
                pieces = _counted(_zip_pieces(file), budget)
                yield member.filename, io.BufferedReader(Stream(pieces), PIECE)  # type: ignore[type-var]


def _zip_pieces(file: IO[bytes]) -> Iterator[bytes]:
    try:
        while piece := file.read(PIECE):
            yield piece
    except EOFError as error:
        raise Bad("truncated zip data") from error
    except (OSError, zlib.error, zipfile.BadZipFile, lzma.LZMAError) as error:
        if is_away(error):
            raise
        raise Bad(f"damaged zip data: {error}") from error
