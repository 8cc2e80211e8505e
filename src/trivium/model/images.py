"""Pictures that come from outside: opened with suspicion, and brought into the shape that a model sees. Needs
Pillow."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trivium.errors import TriviumError, extra

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP")
"""What is read: decoders of rarer formats are seldom used, and so seldom tested."""

MOST_PIXELS = 16_000_000
"""Pixels that are decoded for one conversation: a few bytes can announce billions (a decompression bomb)."""

MOST_BYTES = 20_000_000
"""Bytes of the largest file that is opened."""


def bytes_of(url: str, folder: Path | None = None) -> bytes:
    """The file that a part's ``url`` holds: ``data:image/...;base64,...``, or the name of a file in ``folder`` where
    there is one. Raises :class:`TriviumError` for everything else: nothing is ever fetched from elsewhere."""
    if url[:5].lower() == "data:":
        head, comma, body = url[5:].partition(",")
        if not comma or not head.lower().startswith("image/") or not head.lower().endswith(";base64"):
            raise TriviumError("a picture's data URL must begin with data:image/TYPE;base64,")
        if len(body) > MOST_BYTES * 4 // 3 + 4:
            raise TriviumError(f"the picture is larger than {MOST_BYTES:,} bytes")
        try:
            return base64.b64decode(body, validate=True)
        except (binascii.Error, ValueError) as error:
            raise TriviumError(f"the picture's data URL is not valid base64 ({error})") from error
    if "://" in url[:64] or folder is None:
        shown = url if len(url) <= 60 else url[:60] + "…"
        raise TriviumError(f"{shown!r}: a picture is not fetched from an address; send it as data:image/png;base64,...")
    path = folder / url
    if folder.resolve() not in path.resolve().parents:
        raise TriviumError(f"{url}: lies outside {folder}")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise TriviumError(f"{path}: larger than {MOST_BYTES:,} bytes")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise TriviumError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def decode_picture(data: bytes, size: int, channels: int, most: int = MOST_PIXELS) -> tuple[np.ndarray, int]:
    """A picture's file as bytes ``[channels, size, size]``, 0 black, and how many pixels it had: turned as its camera
    says, laid on white where it is transparent, scaled to fit the square, and the rest filled with the colour of its
    corner. Of several frames the first counts. Raises :class:`TriviumError` for what is no picture, is cut short, or
    has more than ``most`` pixels."""
    with extra("vision"):
        from PIL import Image, ImageOps
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as file:
            width, height = file.size
            if width * height > most:
                raise TriviumError(
                    f"the picture has {width:,} × {height:,} pixels; a conversation's pictures may have "
                    f"{MOST_PIXELS:,} together: make it smaller"
                )
            picture = ImageOps.exif_transpose(file)
            if "A" in picture.getbands() or "transparency" in picture.info:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            picture = picture.convert("L" if channels == 1 else "RGB")
            if picture.size != (size, size):
                corner = picture.getpixel((0, 0))
                picture = ImageOps.pad(picture, (size, size),
                                       Image.Resampling.BOX if min(picture.size) > size else Image.Resampling.BICUBIC,
                                       color=corner)  # type: ignore[arg-type]
            return np.asarray(picture, np.uint8).reshape(size, size, channels).transpose(2, 0, 1).copy(), width * height
    except TriviumError:
        raise
    except Image.DecompressionBombError as error:
        raise TriviumError(
            f"the picture has far more pixels than the {MOST_PIXELS:,} that are decoded; make it smaller") from error
    except Exception as error:  # whatever a decoder says to hostile bytes
        reason = str(error).split(" <")[0][:120] or type(error).__name__
        raise TriviumError(f"not a picture that can be read ({reason}); known are {', '.join(FORMATS)}") from error


def look(messages: Sequence[Any], size: int, channels: int, folder: Path | None = None) -> np.ndarray:
    """The pictures of chat messages in order, ``[N, channels, size, size]`` bytes. Raises :class:`TriviumError` that
    names the message."""
    found: list[np.ndarray] = []
    left = MOST_PIXELS
    for number, message in enumerate(messages, 1):
        for part in message["content"] if isinstance(message["content"], list) else []:
            if part.get("type") == "image_url":
                try:
                    url = part["image_url"]["url"]
                    if not isinstance(url, str):
                        raise TypeError
                    picture, pixels = decode_picture(bytes_of(url, folder), size, channels, left)
                    found.append(picture)
                    left -= pixels
                except (KeyError, TypeError) as error:
                    raise TriviumError(
                        f'message {number}: a picture is {{"type": "image_url", "image_url": {{"url": '
                        '"data:image/png;base64,..."}}'
                    ) from error
                except TriviumError as error:
                    raise TriviumError(f"message {number}: {error}") from error
    return np.stack(found) if found else np.zeros((0, channels, size, size), np.uint8)


def data_url(pixels: np.ndarray) -> str:
    """Bytes ``[height, width]`` as a data URL of a PNG."""
    with extra("vision"):
        from PIL import Image
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
