"""Pictures in prompts: they come with the rows, as ``data:`` URLs, and lie in the project. None is fetched."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import sqlalchemy as sql
from sqlalchemy.engine import Connection

from trivium.errors import TriviumError
from trivium.feedback.database import pictures
from trivium.files import Row, what

MOST_BYTES = 4 << 20
"""Of one picture."""
MOST_PICTURES = 16
"""In one prompt."""

_BEGINS = {"image/png": rb"\x89PNG\r\n\x1a\n", "image/jpeg": rb"\xff\xd8\xff", "image/gif": rb"GIF8[79]a",
           "image/webp": rb"RIFF....WEBP"}
_DATA = re.compile(r"data:([\w.+/-]+);base64,(.*)", re.DOTALL)


class Picture(NamedTuple):
    """A picture of a prompt."""

    message: int  # the number of its message, from 0
    type: str
    data: bytes

    @property
    def name(self) -> str:
        """The SHA-256 of its bytes."""
        return hashlib.sha256(self.data).hexdigest()


def apart(prompt: Any) -> tuple[Any, list[Picture]]:
    """A prompt with its messages' texts alone, and the pictures of the messages that are made of parts (OpenAI's form).
    Raises :class:`TriviumError` for what is neither a text nor a picture that comes with the row."""
    if not isinstance(prompt, list):
        return prompt, []
    found: list[Picture] = []
    messages = []
    for number, message in enumerate(prompt):
        if isinstance(message, Mapping) and isinstance(message.get("content"), list):
            texts = []
            for part in message["content"]:
                if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
                    texts.append(part["text"])
                else:
                    found.append(_picture(number, part))
            message = {**message, "content": "\n".join(texts)}
        messages.append(message)
    if len(found) > MOST_PICTURES:
        raise TriviumError(f"{len(found)} pictures are more than {MOST_PICTURES}")
    return messages, found


def _picture(number: int, part: Any) -> Picture:
    where = f"message {number + 1}"
    kind = part.get("type") if isinstance(part, Mapping) else what(part)
    if kind not in ("image", "image_url"):
        raise TriviumError(f"{where} holds a part of kind {str(kind)[:40]!r}; people are shown text and pictures")
    given = part.get("image_url", part.get("image"))
    url = given.get("url") if isinstance(given, Mapping) else given
    if not isinstance(url, str) or not (data := _DATA.fullmatch(url.strip())):
        raise TriviumError(f"{where} has a picture that does not come with the row, and none is fetched; write it as "
                           "data:image/png;base64,...")
    if data[1] not in _BEGINS:
        raise TriviumError(f"{where} has a picture of the type {data[1][:40]!r}; known are {', '.join(_BEGINS)}")
    try:
        decoded = base64.b64decode(data[2], validate=True)
    except (binascii.Error, ValueError) as error:
        raise TriviumError(f"{where} has a picture that is not base64") from error
    if len(decoded) > MOST_BYTES:
        raise TriviumError(f"{where} has a picture of {len(decoded):,} bytes, more than {MOST_BYTES:,}")
    if not re.match(_BEGINS[data[1]], decoded, re.DOTALL):
        raise TriviumError(f"{where} has a picture that is no {data[1]}")
    return Picture(number, data[1], decoded)


def keep(connection: Connection, given: Iterable[Picture]) -> None:
    """Store pictures that are not there yet."""
    for picture in given:
        if connection.execute(sql.select(pictures.c.name).where(pictures.c.name == picture.name)).first() is None:
            connection.execute(pictures.insert().values(name=picture.name, type=picture.type, data=picture.data))


def together(prompt: list[Row], shown: Iterable[Row], kept: Mapping[str, tuple[str, bytes]]) -> list[Row]:
    """A prompt whose messages hold their pictures again: a text and then the pictures, as parts."""
    messages = [dict(message) for message in prompt]
    for one in shown:
        message, (kind, data) = messages[one["message"]], kept[one["picture"]]
        if isinstance(message["content"], str):
            message["content"] = [{"type": "text", "text": message["content"]}]
        message["content"].append({"type": "image_url", "image_url": {
            "url": f"data:{kind};base64,{base64.b64encode(data).decode()}"}})
    return messages
