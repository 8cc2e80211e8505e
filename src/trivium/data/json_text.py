"""JSON read piece by piece: lists of objects, one object, objects one after the other, an object a line, or a list
that an object wraps. No more than one row of it is held at a time."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import IO, Any

from trivium.data.unpack import Bad
from trivium.files import what

WRAPPERS = ("data", "rows", "records", "examples", "samples", "数据")
"""Fields of a file's one object that may hold its rows."""
LOOK_AHEAD = 4 << 20
_DECODER = json.JSONDecoder()

Rows = Iterator[tuple[int, dict[str, Any] | Bad]]


class JsonText:
    """A text of which one JSON value after the other is taken."""

    def __init__(self, stream: IO[bytes], limit: int, advice: str = "") -> None:
        """``limit`` is the most characters of one value; ``advice`` is added to what is said of a longer one."""
        self._text = io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape", newline="")
        self._buffer, self._at, self._lines = "", 0, 1
        self._limit, self._advice = limit, advice

    def more(self, size: int = 1 << 16) -> bool:
        """Read on; False at the end."""
        piece = self._text.read(size)
        self._lines += self._buffer.count("\n", 0, self._at)
        self._buffer, self._at = self._buffer[self._at:] + piece, 0
        return bool(piece)

    def peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            while self._at < len(self._buffer):
                if self._buffer[self._at] not in " \t\r\n":
                    return self._buffer[self._at]
                self._at += 1
            if not self.more():
                return ""

    def take(self, character: str) -> None:
        """Go past the next character, which must be this one."""
        if self.peek() != character:
            raise self._bad(f"{character!r} is missing", self._at)
        self._at += 1

    def value(self) -> Any:
        """The next value. Raises :class:`Bad` for what is no JSON, what is too long, and bytes that are no UTF-8."""
        self.peek()
        size = 1 << 16
        while True:
            fault = None
            try:
                value, end = _DECODER.raw_decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                fault = error
            except RecursionError as error:
                raise self._bad("nested too deeply", self._at) from error
            if fault is None and end < len(self._buffer):
                break
            if fault and not fault.msg.startswith("Unterminated") and fault.pos < len(self._buffer) - 16:
                raise self._bad(fault.msg, fault.pos)  # not only cut short by the buffer's end
            if len(self._buffer) - self._at > self._limit:
                raise Bad(f"a row of more than {self._limit:,} bytes{self._advice}",
                          self._buffer[self._at:self._at + 2000])
            if not self.more(size):
                if fault:
                    raise self._bad(fault.msg, fault.pos)
                break
            size *= 2
        raw, self._at = self._buffer[self._at:end], end
        if len(raw) > self._limit:
            return Bad(f"a row of more than {self._limit:,} bytes{self._advice}", shown(raw))
        return Bad("invalid UTF-8 in the row", shown(raw)) if holds_bad_bytes(raw) else value

    def is_lines(self) -> bool:
        """Whether the text holds an object a line: it has several, and one of the first two is an object; or it begins
        with no JSON."""
        if self.peek() == "[":
            return False
        if self.peek() != "{":
            return True
        while len(first := [line for line in self._ahead() if line.strip()][:3]) < 3 and self.more():
            if len(self._buffer) > LOOK_AHEAD:
                return False
        return len(first) > 1 and any(
            isinstance(parsed(line.encode("utf-8", "surrogateescape")), dict) for line in first[:2])

    def _ahead(self) -> list[str]:
        return self._buffer[self._at:].split("\n")

    def lines(self) -> Iterator[str]:
        """All lines that are left, each at most as long as the limit: what is longer comes in pieces that are no
        JSON."""
        rest = self._buffer[self._at:]
        self._buffer, self._at = "", 0
        while True:
            line, newline, behind = rest.partition("\n")
            if newline:
                yield line
                rest = behind
                continue
            more = self._text.readline(max(1, self._limit - len(rest)))
            if not more:
                break
            rest += more
            if len(rest) >= self._limit:
                yield rest
                rest = ""
        if rest:
            yield rest

    def detach(self) -> None:
        """Leave the stream open."""
        self._text.detach()

    def _bad(self, reason: str, place: int) -> Bad:
        line = self._lines + self._buffer.count("\n", 0, place)
        return Bad(f"not valid JSON: {reason[:120]}: line {line}", shown(self._buffer[self._at:self._at + 2000]))


def json_rows(stream: IO[bytes], limit: int, unwrap: bool = False, advice: str = "",
              say: Callable[[str], None] = lambda text: None) -> Rows:
    """``(row from 1, the row)`` of a ``.json`` file. A value that is no object is bad; a bare text in a list is a row
    ``{"text"}``. With ``unwrap`` a list of objects under one of :data:`WRAPPERS` is taken for the rows, and ``say`` is
    told which fields stand beside it. Raises :class:`Bad` at the place where the text is no JSON."""
    text = JsonText(stream, limit, advice)
    row = 0
    try:
        if text.is_lines():
            for line in text.lines():
                if line.strip():
                    row += 1
                    yield row, parsed(line.encode("utf-8", "surrogateescape"))
            return
        for row, value in enumerate(_values(text, unwrap, say), 1):
            yield row, value
    except Bad as bad:
        raise Bad(bad.reason + ("; the rest of the file was not read" if row else ""), bad.text) from bad
    finally:
        text.detach()


def _values(text: JsonText, unwrap: bool, say: Callable[[str], None]) -> Iterator[dict[str, Any] | Bad]:
    if text.peek() == "[":
        text.take("[")
        yield from map(_row, _rest(text))
    while text.peek() == "{":
        yield from _members(text, unwrap, say)
    if text.peek():
        raise Bad("not valid JSON: something stands behind the end of the value", text.peek())


def _row(value: Any) -> dict[str, Any] | Bad:
    if isinstance(value, (dict, Bad)):
        return value
    return {"text": value} if isinstance(value, str) else Bad(f"not an object: {what(value)}", str(value)[:2000])


def _members(text: JsonText, unwrap: bool, say: Callable[[str], None]) -> Iterator[dict[str, Any] | Bad]:
    """An object as a row, or the rows in the list that it wraps."""
    row: dict[str, Any] = {}
    bad = wrapper = None
    text.take("{")
    while text.peek() != "}":
        name = text.value()
        text.take(":")
        if unwrap and name in WRAPPERS and text.peek() == "[" and wrapper is None:
            text.take("[")
            if text.peek() == "{":
                wrapper = name
                yield from map(_row, _rest(text))
            else:
                row[name] = list(_rest(text))
        else:
            row[str(name)] = value = text.value()
            bad = value if isinstance(value, Bad) else bad
        if text.peek() != "}":
            text.take(",")
    text.take("}")
    if wrapper is None:
        yield bad or row
    elif row:
        say(f"the fields {', '.join(row)} beside {wrapper!r} are not used")


def _rest(text: JsonText) -> Iterator[Any]:
    """The items of a list whose opening bracket was taken."""
    while text.peek() != "]":
        yield text.value()
        if text.peek() != "]":
            text.take(",")
            if text.peek() == "]":
                raise Bad("not valid JSON: a comma before the end of a list")
    text.take("]")


def parsed(line: bytes) -> dict[str, Any] | Bad:
    """A line of JSON lines."""
    try:
        value = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return Bad(f"invalid UTF-8: byte {error.start} of the row", line.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        return Bad(f"not valid JSON: {str(error)[:120]}", line.decode())
    return value if isinstance(value, dict) else Bad(f"not an object: {what(value)}", line.decode())


def holds_bad_bytes(text: str) -> bool:
    """Whether a text read with ``surrogateescape`` holds bytes that are no UTF-8."""
    return not text.isascii() and any("\udc80" <= character <= "\udcff" for character in text)


def shown(text: str) -> str:
    """A text that may hold such bytes, as it can be written down."""
    return text[:2000].encode("utf-8", "replace").decode()
