"""Texts that nobody here wrote, on a terminal: their control characters are shown, never obeyed."""

from __future__ import annotations

import re
from typing import Any, TextIO

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def visible(text: str, one_line: bool = False) -> str:
    """The text without a character that a terminal obeys: escapes that clear the screen, set its title or hide what
    follows are written out, as ``\\x1b``; in a JSON text the result is the same JSON. Line ends and tabs stay, line
    ends as ``\\n``; where the text is to be one line they are written out too."""
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    text = _CONTROL.sub(_written, text)
    return text.replace("\n", "\\n").replace("\t", "\\t") if one_line else text


def _written(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x20 else f"\\u{code:04x}"


class Visible:
    """A stream of text that shows control characters. ``rich``, which writes escapes of its own, finds the stream
    beneath it by the name ``rich_proxied_file``; what it is given must be made visible before."""

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)

    def write(self, text: str) -> int:
        """Write what is visible of the text; how many of its characters were taken, which is all of them."""
        self.rich_proxied_file.write(visible(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)
