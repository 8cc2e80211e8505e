"""JSON read piece by piece: lists of objects, one object, objects one after the other, an object a line, or a list
that an object wraps. No more than one row of it is held at a time."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import IO, Any

from trivium.data.unpack import PIECE, Bad, Stream
from trivium.files import what

WRAPPERS = ("data", "rows", "records", "examples", "samples", "数据")
"""Fields of a file's one object that may hold its rows."""
LOOK_AHEAD = 4 << 20
SMALL = 1 << 20
"""Characters of a value that is decoded as it stands; the parts of longer ones are counted before."""
PARTS = 2 << 20
"""The most lists, objects and members of one row: each takes far more memory than the characters that spell it."""
_BLANK = re.compile(r"[ \t\r\n]+")
_SPACE = re.compile(r"\s*")
TOO_MANY = f"a row of more than {PARTS:,} parts"
_DECODER = json.JSONDecoder()
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*("?)|[{}\[\],]', re.DOTALL)

Rows = Iterator[tuple[int, dict[str, Any] | Bad]]


class JsonText:
    """A text of which one JSON value after the other is taken."""

    def __init__(self, stream: IO[bytes], limit: int, advice: str = "") -> None:
        """``limit`` is the most characters of one value; ``advice`` is added to what is said of a longer one."""
        self._text = io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape", newline="")
        self._buffer, self._at, self._lines, self._passed = "", 0, 1, 0
        self._ended = False
        self._limit, self._advice = limit, advice

    def more(self, size: int = 1 << 16) -> bool:
        """Read on; False at the end."""
        piece = self._text.read(size)
        self._lines += self._buffer.count("\n", 0, self._at)
        self._passed += self._at
        self._buffer, self._at = self._buffer[self._at:] + piece, 0
        self._ended = not piece
        return bool(piece)

    @property
    def passed(self) -> int:
        """How many characters were taken."""
        return self._passed + self._at

    def peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            if blank := _BLANK.match(self._buffer, self._at):
                self._at = blank.end()
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self.more():
                return ""

    def take(self, character: str) -> None:
        """Go past the next character, which must be this one."""
        if self.peek() != character:
            raise self._bad(f"{character!r} is missing", self._at)
        self._at += 1

    def value(self) -> Any:
        """The next value. Raises :class:`Bad` for what is no JSON, what is too long, and bytes that are no UTF-8."""
        if self.peek() in ("{", "[", '"') and len(self._buffer) - self._at < SMALL and not self._ended:
            self.more(SMALL)
        try:
            value, end = _DECODER.raw_decode(self._buffer, self._at)
        except ValueError as error:
            fault: ValueError | None = error
        except RecursionError as error:
            raise self._bad("nested too deeply", self._at) from error
        else:
            fault = None
        if fault or end == len(self._buffer):
            value, end = self._long_value(fault)
        raw, self._at = self._buffer[self._at:end], end
        if len(raw) > self._limit:
            return Bad(self.too_long, shown(raw))
        return Bad("invalid UTF-8 in the row", shown(raw)) if holds_bad_bytes(raw) else value

    def check(self, begun: int, parts: int) -> None:
        """Raise :class:`Bad` for a row, begun at ``begun``, that is taken part by part and is too long by now."""
        if self.passed - begun > self._limit:
            raise Bad(self.too_long)
        if parts > PARTS:
            raise Bad(TOO_MANY)

    @property
    def too_long(self) -> str:
        """What is said of a row beyond the limit."""
        return f"a row of more than {self._limit:,} bytes{self._advice}"

    def _long_value(self, fault: ValueError | None) -> tuple[Any, int]:
        """A value that the buffer may hold the beginning of only, and where it ends. It is read to its end, and its
        parts are counted, before anything is made of it."""
        if fault and not (isinstance(fault, json.JSONDecodeError) and (
                fault.msg.startswith("Unterminated") or fault.pos >= len(self._buffer) - 16)):
            # not only cut short by the buffer's end
            raise self._bad(getattr(fault, "msg", "") or said(fault), getattr(fault, "pos", self._at))
        depth = parts = 0
        place = 0  # behind the value's beginning
        while True:
            token = None
            for token in _TOKEN.finditer(self._buffer, self._at + place):
                mark = token[0][0]
                if mark == '"' and not token[1]:
                    break
                place, token = token.end() - self._at, None
                depth += (mark in "{[") - (mark in "}]")
                parts += mark in "{[,"
                if parts > PARTS or depth > PARTS:
                    raise Bad(TOO_MANY, shown(self._buffer[self._at:self._at + 2000]))
                if depth <= 0:
                    break
            if depth <= 0 and place:
                break
            if token is None and depth > 0:
                place = len(self._buffer) - self._at
            if len(self._buffer) - self._at > self._limit:
                raise Bad(self.too_long, shown(self._buffer[self._at:self._at + 2000]))
            if not self.more(max(SMALL, len(self._buffer) - self._at)):
                break
        try:
            value: tuple[Any, int] = _DECODER.raw_decode(self._buffer, self._at)
        except ValueError as error:
            raise self._bad(getattr(error, "msg", "") or said(error), getattr(error, "pos", self._at)) from error
        except RecursionError as error:
            raise self._bad("nested too deeply", self._at) from error
        return value

    def is_lines(self) -> bool:
        """Whether the text holds an object a line: it has several, and one of the first two is an object; or it begins
        with no JSON."""
        if self.peek() == "[":
            return False
        if self.peek() != "{":
            return True
        first = self._ahead()
        while len(first) < 3 and self.more(max(1 << 16, len(self._buffer))):
            if len(self._buffer) > LOOK_AHEAD:
                return False
            first = self._ahead()
        return len(first) > 1 and any(
            isinstance(parsed(line.encode("utf-8", "surrogateescape")), dict) for line in first[:2])

    def _ahead(self) -> list[str]:
        """The first three lines that hold something."""
        found = (match[0] for match in re.finditer(r"[^\n]*\S[^\n]*", self._buffer[self._at:]))
        return list(islice(found, 3))

    def lines(self) -> Iterator[str | Bad]:
        """All lines that are left and hold something; one that is longer than the limit is bad."""
        while self.peek():
            end = self._line_end()
            if end - self._at > self._limit:
                yield Bad(self.too_long, shown(self._buffer[self._at:self._at + 2000]))
                while end == len(self._buffer) and self.more():
                    self._at = 0
                    end = self._buffer.find("\n") if "\n" in self._buffer else len(self._buffer)
                    self._at = end
            else:
                yield self._buffer[self._at:end]
            self._at = end

    def _line_end(self) -> int:
        """Where in the buffer the line ends, or the buffer does because the line is too long or the last."""
        seen = self._at
        while (end := self._buffer.find("\n", seen)) < 0:
            held = len(self._buffer) - self._at
            if held > self._limit or not self.more(max(1 << 16, held)):
                return len(self._buffer)
            seen = held
        return end

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
                for value in [line] if isinstance(line, Bad) else records(line.encode("utf-8", "surrogateescape")):
                    row += 1
                    yield row, value
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
    begun = text.passed
    while text.peek() != "}":
        name = text.value()
        text.take(":")
        if unwrap and name in WRAPPERS and text.peek() == "[" and wrapper is None:
            text.take("[")
            if text.peek() == "{":
                wrapper, before = name, text.passed
                yield from map(_row, _rest(text))
                begun += text.passed - before
            else:
                row[name] = list(_rest(text, begun))
        else:
            row[str(name)] = value = text.value()
            bad = value if isinstance(value, Bad) else bad
        text.check(begun, len(row))
        if text.peek() != "}":
            text.take(",")
    text.take("}")
    if wrapper is None:
        yield bad or row
    elif row:
        say(f"the fields {', '.join(row)} beside {wrapper!r} are not used")


def _rest(text: JsonText, begun: int | None = None) -> Iterator[Any]:
    """The items of a list whose opening bracket was taken. Where the list is one row's that has ``begun``, the row may
    not grow beyond what a row may hold."""
    number = 0
    while text.peek() != "]":
        yield text.value()
        number += 1
        if begun is not None:
            text.check(begun, number)
        if text.peek() != "]":
            text.take(",")
            if text.peek() == "]":
                raise Bad("not valid JSON: a comma before the end of a list")
    text.take("]")


def json_lines(stream: IO[bytes], limit: int, advice: str) -> Rows:
    """``(row from 1, the row)`` of a file with a JSON object a line. Where the file is one list or object over
    several lines, its rows; where objects stand one behind the other on a line, each under the line's number."""
    row = 0
    stream = stream if hasattr(stream, "peek") else io.BufferedReader(stream)  # type: ignore[type-var]
    while line := stream.readline(limit + 1):
        row += 1
        if len(line) > limit:
            start = line[:2000].decode("utf-8", "replace")
            while line and not line.endswith(b"\n"):
                line = stream.readline(PIECE)
            yield row, Bad(f"a row of more than {limit:,} bytes{advice}", start)
            continue
        if row == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
            if begins_over_lines(line):
                yield from json_rows(_behind(line, stream), limit, False, advice)
                return
        if line.strip():
            for value in records(line):
                yield row, value
        else:
            row += _skip_blank_lines(stream)


def _behind(start: bytes, stream: IO[bytes]) -> IO[bytes]:
    """A stream whose first bytes were read."""
    def pieces() -> Iterator[bytes]:
        yield start
        while piece := stream.read(PIECE):
            yield piece

    return io.BufferedReader(Stream(pieces()), PIECE)  # type: ignore[type-var]


def _skip_blank_lines(stream: IO[bytes]) -> int:
    """Pass over lines with nothing but white space, many at a time; returns how many."""
    count = 0
    while held := stream.peek(PIECE):  # type: ignore[attr-defined]
        blank = len(held) - len(held.lstrip())
        end = held.rfind(b"\n", 0, blank) + 1
        if not end:
            return count
        count += held.count(b"\n", 0, end)
        stream.read(end)
    return count


def parsed(line: bytes) -> dict[str, Any] | Bad:
    """A line of JSON lines."""
    try:
        if has_too_many_parts(line):
            return Bad(TOO_MANY, line[:2000].decode("utf-8", "replace"))
        value = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return Bad(f"invalid UTF-8: byte {error.start} of the row", line[:4000].decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        return Bad(f"not valid JSON: {said(error)[:120]}", line.decode())
    return value if isinstance(value, dict) else Bad(f"not an object: {what(value)}", line.decode())


def records(line: bytes) -> Iterator[dict[str, Any] | Bad]:
    """The objects of a line of JSON lines: one, or several without a line's end between them."""
    first = parsed(line)
    if not (isinstance(first, Bad) and "Extra data" in first.reason):
        yield first
        return
    text = line.decode()
    if all(isinstance(value, dict) for value in _one_after_another(text)):
        yield from _one_after_another(text)
    else:
        yield first


def _one_after_another(text: str) -> Iterator[Any]:
    """JSON values with nothing but white space between them; None for what is none."""
    place = 0
    while place < len(text):
        try:
            value, end = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            yield None
            return
        yield value
        behind = _SPACE.match(text, end)
        place = behind.end() if behind else end


def begins_over_lines(line: bytes) -> bool:
    """Whether the first line of a file begins a list, or an object, that goes on in the next."""
    begun = line.strip()
    return begun in (b"{", b"[") or (begun.startswith(b"[") and isinstance(value := parsed(line), Bad)
                                     and value.reason.startswith("not valid JSON"))


def has_too_many_parts(line: bytes) -> bool:
    """Whether more than :data:`PARTS` lists, objects and members stand in a JSON value, those inside its texts left
    out."""
    if len(line) < SMALL or sum(map(line.count, (b"{", b"[", b","))) <= PARTS:
        return False
    tokens = _TOKEN.finditer(line.decode("utf-8", "surrogateescape"))
    opening = (token for token in tokens if token[0][0] in "{[,")
    return next(islice(opening, PARTS, None), None) is not None


def said(error: ValueError | RecursionError) -> str:
    """What is wrong with a JSON text, in plain words."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return str(error) if isinstance(error, json.JSONDecodeError) else "a number of more digits than are read"


def holds_bad_bytes(text: str) -> bool:
    """Whether a text read with ``surrogateescape`` holds bytes that are no UTF-8."""
    return not text.isascii() and any("\udc80" <= character <= "\udcff" for character in text)


def shown(text: str) -> str:
    """A text that may hold such bytes, as it can be written down."""
    return text[:2000].encode("utf-8", "replace").decode()
