"""Bodies of pages without the codings that they were sent in (RFC 9110, 8.4): gzip, deflate of both kinds, br, zstd.

Servers and crawlers name codings that are none, and say that a body is packed which is plain. So the bytes decide: what
can be unpacked is, and a plain body is taken as it is whatever it is called.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable

from trivium.data.unpack import Bad
from trivium.errors import extra

_GZIP = b"\x1f\x8b\x08"
_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def unpacked(body: bytes, codings: str, limit: int) -> bytes:
    """A body without the ``codings`` that its Content-Encoding names, first to last. Raises :class:`Bad` for one that
    is neither plain nor can be unpacked, and for one of more than ``limit`` bytes."""
    names = [name.split(";")[0].strip().lower() for name in codings.split(",")]
    for name in reversed([name for name in names if name]):
        unpack = _CODINGS.get(name)
        data = unpack(body, limit) if unpack else None
        if data is None and unpack is not _gzip and body.startswith(_GZIP):
            data = _gzip(body, limit)
        if data is not None and len(data) > limit:
            raise Bad(f"a page that unpacks to more than {limit:,} bytes; raise max_page_bytes if it is meant to")
        if data is None and not _is_plain(body):
            raise Bad("damaged page: its content encoding cannot be unpacked" if unpack else
                      f"not a page that can be unpacked: content encoding {name[:40]}")
        body = body if data is None else data
    return body


def _is_plain(body: bytes) -> bool:
    """Whether a body looks like text: packed bytes would hold some of these among the first thousand."""
    return not _CONTROLS.search(body[:1000])


def _gzip(body: bytes, limit: int) -> bytes | None:
    return _inflated(body, 31, limit) if body.startswith(_GZIP[:2]) else _deflate(body, limit)


def _deflate(body: bytes, limit: int) -> bytes | None:
    """With zlib's header, as the standard has it, or bare, as many servers send it."""
    if body.startswith(_GZIP[:2]):
        return _inflated(body, 31, limit)
    found = _inflated(body, 15, limit)
    return _inflated(body, -15, limit) if found is None else found


def _inflated(body: bytes, bits: int, limit: int) -> bytes | None:
    """What there is of a stream, which may have been cut, or of several; None where it is none."""
    pieces: list[bytes] = []
    size = 0
    while body and size <= limit:
        unpacker = zlib.decompressobj(bits)
        try:
            pieces.append(unpacker.decompress(body, limit + 1 - size))
        except zlib.error:
            return b"".join(pieces) if pieces else None
        size += len(pieces[-1])
        whole = (unpacker.eof and not unpacker.unused_data) or size > limit
        if bits < 0 and not whole and (_is_plain(body) or not _is_plain(pieces[-1])):
            return None  # nearly every byte begins some bare stream
        body = unpacker.unused_data if bits == 31 and unpacker.unused_data.startswith(_GZIP) else b""
    return b"".join(pieces) if pieces else None


def _brotli(body: bytes, limit: int) -> bytes | None:
    with extra("corpus"):
        import brotli

    unpacker = brotli.Decompressor()
    pieces: list[bytes] = []
    size, given = 0, body
    try:
        while size <= limit:
            piece: bytes = unpacker.process(given, output_buffer_limit=limit + 1 - size)
            given = b""
            pieces.append(piece)
            size += len(piece)
            if unpacker.is_finished() or not piece:
                break
    except brotli.error:
        return None
    found = b"".join(pieces)
    whole = unpacker.is_finished() or size > limit
    return found if whole or (found and _is_plain(found) and not _is_plain(body)) else None


def _zstd(body: bytes, limit: int) -> bytes | None:
    with extra("corpus"):
        import zstandard

    if not body.startswith((b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18")):
        return None
    reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body), read_across_frames=True)
    pieces: list[bytes] = []
    size = 0
    try:
        while size <= limit and (piece := reader.read(min(1 << 16, limit + 1 - size))):
            pieces.append(piece)
            size += len(piece)
    except zstandard.ZstdError:
        pass
    return b"".join(pieces) if pieces or len(body) < 20 else None  # nothing is packed into less


_CODINGS: dict[str, Callable[[bytes, int], bytes | None]] = {
    "gzip": _gzip, "x-gzip": _gzip, "deflate": _deflate, "x-deflate": _deflate, "br": _brotli, "zstd": _zstd,
    "x-zstd": _zstd
}
