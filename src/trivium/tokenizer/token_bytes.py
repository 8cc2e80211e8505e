"""The bytes that each token of a vocabulary stands for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from trivium.tokenizer.chat import ChatTokenizer

BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
SPACE = "▁"


@lru_cache(maxsize=16)
def token_bytes(tokenizer: ChatTokenizer) -> tuple[bytes, ...]:
    """Of each id the bytes that it adds to a text, a control token's being its name; none for an id without a token.
    Vocabularies spell bytes in one of two ways: by a letter for each (byte-level BPE), or as text with ``▁`` for a
    space and ``<0x0A>`` for a byte (SentencePiece)."""
    found = json.loads(tokenizer.data)
    by_letters = any(part["type"] == "ByteLevel" for part in _parts(found.get("decoder")) + _parts(
        found.get("pre_tokenizer")))
    added = {token["id"] for token in found.get("added_tokens") or []}
    letters = bytes_of_letters()

    def spelt(id: int) -> bytes:
        text = tokenizer.spelling(id)
        if id in added:
            return text.encode()
        if by_letters:
            return bytes(letters[letter] for letter in text) if all(one in letters for one in text) else text.encode()
        byte = BYTE.fullmatch(text)
        return bytes([int(byte[1], 16)]) if byte else text.replace(SPACE, " ").encode()

    return tuple(map(spelt, range(tokenizer.vocab_size)))


def bytes_of_letters() -> dict[str, int]:
    """Byte-level BPE writes each byte as a printable letter: those that are printable as they are, the others from
    U+0100 on."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}


def _parts(step: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """A step of a tokenizer, or those of a sequence of them."""
    if not step:
        return []
    inner = next((step[name] for name in ("decoders", "pretokenizers") if name in step), None)
    return [part for one in inner for part in _parts(one)] if inner is not None else [step]
