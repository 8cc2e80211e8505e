"""What commands print, in whatever encoding a terminal or a pipe has."""

from __future__ import annotations

import io
import json
import os
import sys
import warnings
from typing import Any

from trivium.visible import Visible


def any_encoding() -> None:
    """Let what a terminal or a pipe of another encoding than UTF-8 cannot write become question marks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def no_escapes() -> None:
    """Let no control character of a document, a row, an answer or a name reach the terminal: all that is printed from
    here on is made visible."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Visible):
            setattr(sys, name, Visible(stream))


def quiet_libraries() -> None:
    """Keep the warnings of libraries, which are for programmers, off the terminal, in this process and in those that
    it starts; ``PYTHONWARNINGS`` shows them."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        os.environ["PYTHONWARNINGS"] = "ignore"


def to_json(value: Any, indent: int | None = None) -> str:
    """A value as JSON that survives the encoding of standard output: its characters as they are in UTF-8, else as
    escapes."""
    encoding = str(getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "").replace("_", "")
    return json.dumps(value, indent=indent, ensure_ascii=encoding != "utf8")
