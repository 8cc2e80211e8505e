"""Compressed streams and archives, read piece by piece and never written to disk.

A few kilobytes can unpack to terabytes, so everything unpacked is counted against a budget, and no step holds more than
one piece of it. Headers are bounded too: names in tar archives by :data:`HEADER`, windows of xz and zst by
:data:`WINDOW`.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import IO, Any

from trivium.errors import extra
from trivium.files import is_away

PIECE = 1 << 18
WINDOW = 128 << 20
"""Bytes of memory that a packed stream may ask for: what ``xz -9`` and ``zstd -19`` need is within it."""
HEADER = 1 << 20
"""The longest name or extended header in a tar archive, in bytes."""
DAMAGE = "?"
"""The name of what stands in a tar archive where a member should."""
MOST_EMPTY = 100_000
"""The most members without content that follow each other in a tar archive."""
SKIPPED = 64 << 20
"""Bytes that are looked through for a tar archive's next member behind damage or zeros."""
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
ARCHIVES = (".tar", ".tgz", ".zip", *(f".tar{suffix}" for suffix in COMPRESSED))


FETCH_AGAIN = "; what stands before the fault was read; fetch or pack the file again for the rest"

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
    if suffix == ".xz":
        pieces = _xz_pieces(stream)
    else:
        opener: Callable[[IO[bytes]], IO[bytes]] = (
            gzip.open if suffix == ".gz" else bz2.open)  # type: ignore[assignment]
        pieces = _pieces_of(opener(stream))
    try:
        yield from pieces
    except EOFError as error:
        raise Bad(f"truncated {suffix[1:]} data{FETCH_AGAIN}") from error
    except (OSError, ValueError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk, not of the data
        large = "; it needs more memory than is given to it: unpack it first" if "usage limit" in str(error) else ""
        raise Bad(f"damaged {suffix[1:]} data{large}{FETCH_AGAIN}") from error


def _pieces_of(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        # read1 hands over what it has: bytes before the damage are not lost with it
        while piece := file.read1(PIECE):  # type: ignore[attr-defined]
            yield piece


def _xz_pieces(stream: IO[bytes]) -> Iterator[bytes]:
    """One stream after another, each within :data:`WINDOW`; the library's own reader has no bound."""
    data = stream.read(PIECE)
    if not data:
        raise EOFError
    while data:
        unpacker = lzma.LZMADecompressor(memlimit=WINDOW)
        while not unpacker.eof:
            if unpacker.needs_input and not data:
                data = stream.read(PIECE)
                if not data:
                    raise EOFError
            if piece := unpacker.decompress(data, PIECE):
                yield piece
            data = b""
        data = unpacker.unused_data or stream.read(PIECE)
        while data and not data.strip(b"\0"):  # padding
            data = stream.read(PIECE)
        data = data.lstrip(b"\0")


def _zstd_pieces(stream: IO[bytes]) -> Iterator[bytes]:
    """The library's own reader takes a truncated frame for a whole one, so frames are followed here. 1 KiB of input at
    a time unpacks to 32 MiB at most."""
    with extra("corpus"):
        import zstandard

    def unpacker() -> Any:
        return zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj()

    frame, started = unpacker(), False
    try:
        while data := stream.read(1024):
            while data:
                started = True
                if piece := frame.decompress(data):
                    yield piece
                data = frame.unused_data if frame.eof else b""
                if frame.eof:
                    frame, started = unpacker(), False
    except zstandard.ZstdError as error:
        large = "; it needs more memory than is given to it: unpack it first, with zstd -d --long=31" if (
            "too much memory" in str(error)) else ""
        raise Bad(f"damaged zst data{large}{FETCH_AGAIN}") from error
    if started:
        raise Bad(f"truncated zst data{FETCH_AGAIN}")


def members(stream: IO[bytes], name: str, budget: Budget) -> Iterator[tuple[str, IO[bytes] | Bad]]:
    """``(name, open file)`` for each file of a tar or zip archive, in the archive's order; each is read before the next
    is asked for. Links and damaged members come as :class:`Bad`, and so does a damaged header in a tar, behind which
    the next whole one is looked for; damage to the archive itself is raised."""
    found = _zip_members(stream, budget) if name.lower().endswith(".zip") else _tar_members(stream, name, budget)
    for inside, file in found:
        yield inside.encode("utf-8", "replace").decode(), file


class _Entry(tarfile.TarInfo):
    """A member's header, none of which may be longer than :data:`HEADER`; damage is told instead of taken for the
    archive's end. The methods that begin with ``_proc_`` are those that the library names for subclasses."""

    @classmethod
    def fromtarfile(cls, archive: Any) -> Any:
        try:
            entry = super().fromtarfile(archive)
        except (tarfile.InvalidHeaderError, tarfile.EOFHeaderError) as error:  # type: ignore[attr-defined]
            archive.skipped += tarfile.BLOCKSIZE
            ended = isinstance(error, tarfile.EOFHeaderError)  # type: ignore[attr-defined]
            archive.ended |= ended
            archive.damaged |= not ended
            if archive.skipped > SKIPPED:
                raise tarfile.EmptyHeaderError("nothing follows") from error  # type: ignore[attr-defined]
            raise
        archive.skipped = 0
        return entry

    def _proc_member(self, archive: Any) -> Any:
        if self.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, *PAX):
            archive.extended += self.size if self.type == tarfile.XGLTYPE else 0
            if max(self.size, archive.extended) > HEADER:
                raise Bad(f"a header of more than {HEADER:,} bytes in a tar archive; the rest was not read")
        return super()._proc_member(archive)  # type: ignore[misc]

    def _proc_sparse(self, archive: Any) -> Any:
        """Holes are not written out: such a member is passed over, and its map with it."""
        entry: Any = self
        extended = entry._sparse_structs[1]
        del entry._sparse_structs
        while extended:
            block = archive.fileobj.read(tarfile.BLOCKSIZE)
            extended = len(block) == tarfile.BLOCKSIZE and bool(block[504])
        entry.sparse, entry.offset_data = [], archive.fileobj.tell()
        archive.offset = entry.offset_data + entry._block(self.size)
        return self

    def _proc_gnusparse_10(self, entry: Any, headers: Any, archive: Any) -> None:
        entry.sparse = []


class _Tar(tarfile.TarFile):
    """A stream of members, with what was met between them."""

    tarinfo = _Entry
    skipped, extended, damaged, ended = 0, 0, False, False


PAX = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)


def _tar_members(stream: IO[bytes], name: str, budget: Budget) -> Iterator[tuple[str, IO[bytes] | Bad]]:
    suffix = ".gz" if name.lower().endswith(".tgz") else PurePosixPath(name.lower()).suffix
    unpacked = decompress(stream, suffix, budget)
    try:
        with _Tar.open(fileobj=unpacked, mode="r|", ignore_zeros=True) as archive:
            found, empty = False, 0
            while True:
                member = archive.next()
                archive.members.clear()  # type: ignore[attr-defined]  # else all headers are held
                if archive.damaged and (found or member is not None):
                    yield DAMAGE, Bad("damaged tar archive: what stands here is no member's header")
                if member is None:
                    break
                found, archive.damaged = True, False
                empty = 0 if member.size else empty + 1
                if empty > MOST_EMPTY:
                    raise Bad(f"more than {MOST_EMPTY:,} empty files one after another; the rest was not read")
                archive.ended = False
                if member.isdir():
                    continue
                if member.issparse():
                    yield member.name, Bad("a file with holes in an archive; unpack it first")
                    continue
                file = archive.extractfile(member) if member.isfile() else None
                yield member.name, Bad("a link or device in an archive, not a file") if file is None else (
                    io.BufferedReader(Stream(_tar_pieces(file)), PIECE))  # type: ignore[type-var]
            if not found and archive.damaged:
                raise Bad(f"damaged tar archive{FETCH_AGAIN}")
            if not archive.ended:
                raise Bad(f"truncated tar archive: its end mark is missing{FETCH_AGAIN}")
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError, IndexError, struct.error) as error:
        cut = "unexpected end" in str(error) or "truncated" in str(error)
        raise Bad(f"{'truncated' if cut else 'damaged'} tar archive{FETCH_AGAIN}") from error


def _tar_pieces(file: IO[bytes]) -> Iterator[bytes]:
    try:
        while piece := file.read(PIECE):
            yield piece
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise Bad(f"truncated tar archive: a file in it is cut short{FETCH_AGAIN}") from error


def _zip_members(stream: IO[bytes], budget: Budget) -> Iterator[tuple[str, IO[bytes] | Bad]]:
    try:
        archive = zipfile.ZipFile(stream)
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, struct.error, IndexError) as error:
        if is_away(error):
            raise
        raise Bad("damaged zip archive, or no zip file at all; fetch or pack it again") from error
    with archive:
        for member in archive.infolist():
            if member.filename.endswith("/"):  # `is_dir` wants a name of one letter at least
                continue
            try:
                file = archive.open(member)
            except (RuntimeError, NotImplementedError, zipfile.BadZipFile, ValueError, OSError, EOFError,
                    lzma.LZMAError, struct.error, IndexError) as error:
                if is_away(error):
                    raise
                why = ("it is encrypted; unpack it with its password first" if member.flag_bits & 1 else
                       "damaged, or packed in a way that is not known")
                yield member.filename, Bad(f"cannot be unpacked: {why}", str(error))
                continue
            with file:
                pieces = _counted(_zip_pieces(file), budget)
                yield member.filename, io.BufferedReader(Stream(pieces), PIECE)  # type: ignore[type-var]


def _zip_pieces(file: IO[bytes]) -> Iterator[bytes]:
    try:
        while piece := file.read(PIECE):
            yield piece
    except EOFError as error:
        raise Bad(f"truncated zip data{FETCH_AGAIN}") from error
    except (OSError, ValueError, zlib.error, zipfile.BadZipFile, lzma.LZMAError, struct.error, IndexError) as error:
        if is_away(error):
            raise
        raise Bad(f"damaged zip data{FETCH_AGAIN}") from error
