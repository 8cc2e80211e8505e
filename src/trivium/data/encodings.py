"""Which character set a file of rows is written in, and its bytes as UTF-8."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from typing import IO

from trivium.data.plain_text import nearly_utf8, superset
from trivium.data.unpack import PIECE, Stream
from trivium.errors import TriviumError, extra

HEAD = 8 << 20
"""Bytes of a stream that cannot be read twice by which its character set is told; of a file all are looked at."""
SAMPLE = 1 << 20
TELLING = 24
"""Bytes beyond ASCII that a guess needs; Chinese, whose bytes are told apart more safely, does with a third."""
COMMON = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方"
    "多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情"
    "明性知全三又关点正业外将两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给"
    "世位次度门任常先海通教儿原东声提立及比员解水名真论处走义各入几口认条平系气题活尔更别打女变四神总何电数安少报才结反受目太"
    "量再感建务做接必场件计管期市直德资命山金指克许统区保至队形社便空决治展马科司五基眼书非则听白却界达光放强即像难且权思王象"
    "完设式色路记南品住告类求据程北边死张该交规万取拉格望觉术领共确传师观清今切院让识候带导争运笔答案令输客服户您请吗吧呢谢喜欢"
    "买退货订单快递错对写翻译诗句绿红吃饭菜早晚午春夏秋冬")
"""The commonest Chinese characters, and those that questions and answers are full of."""

codecs.register_error("trivium-bad-byte", lambda error: ("\udc80", error.end))  # type: ignore[attr-defined]


def check_encoding(name: str) -> str:
    """The name of a character set as given. Raises :class:`TriviumError` for one that Python does not know."""
    try:
        if codecs.lookup(name)._is_text_encoding:
            return name
    except (LookupError, ValueError):
        pass
    raise TriviumError(f"there is no character set {name!r}; there are utf-8, gb18030, gbk, big5, utf-16, cp1252, ...")


def as_utf8(stream: IO[bytes], encoding: str | None = None) -> tuple[IO[bytes], str]:
    """A stream of the same text in UTF-8, and the character set that it was read with: ``encoding``, or the one that
    byte-order mark and bytes tell. Bytes that are none of that set come out as the byte 0x80, which is no UTF-8, so
    that the row that holds them is told from the others."""
    if encoding is None:
        encoding, stream = _told(stream)
    name = codecs.lookup(superset(encoding)).name
    if name in ("utf-8", "utf-8-sig"):
        return stream, "utf-8"
    decoder = codecs.getincrementaldecoder(name)("trivium-bad-byte")

    def pieces() -> Iterator[bytes]:
        while piece := stream.read(PIECE):
            if text := decoder.decode(piece):
                yield text.encode("utf-8", "surrogateescape")
        if text := decoder.decode(b"", True):
            yield text.encode("utf-8", "surrogateescape")

    return io.BufferedReader(Stream(pieces()), PIECE), name  # type: ignore[type-var]


def is_file(stream: IO[bytes]) -> bool:
    """Whether a stream is a file on the disk, that can be read from its start again."""
    return isinstance(stream, io.BytesIO) or (
        isinstance(stream, io.BufferedReader) and isinstance(stream.raw, io.FileIO))


def _told(stream: IO[bytes]) -> tuple[str, IO[bytes]]:
    """The character set that a stream seems to be written in, and the stream from its start."""
    if is_file(stream):
        found = _look(stream)
        stream.seek(0)
        return found, stream
    head = stream.read(HEAD)

    def pieces() -> Iterator[bytes]:
        yield head
        while piece := stream.read(PIECE):
            yield piece

    found = _look(io.BytesIO(head), len(head) == HEAD)
    return found, io.BufferedReader(Stream(pieces()), PIECE)  # type: ignore[type-var]


def _look(stream: IO[bytes], cut: bool = False) -> str:
    """The character set of a file; where it is ``cut``, its last character may lack bytes."""
    start = stream.read(4000)
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if 5 * start.count(0) > len(start) > 3:  # ASCII is written with a null byte in front or behind
        return "utf-16-be" if start[::2].count(0) > start[1::2].count(0) else "utf-16-le"
    decoder = codecs.getincrementaldecoder("utf-8")()
    stream.seek(0)
    try:
        while piece := stream.read(PIECE):
            decoder.decode(piece)
        decoder.decode(b"", not cut)
    except UnicodeDecodeError:
        stream.seek(0)
        return _guess(stream) or "utf-8"
    return "utf-8"


def _guess(stream: IO[bytes]) -> str | None:
    """What a text that is no UTF-8 is written in; None where too little tells it, where most of it is UTF-8 with a few
    bad bytes, and where lines of several sets stand side by side: a guess would turn all of it into gibberish."""
    lines: list[bytes] = []
    size = 0
    while size < SAMPLE and (line := stream.readline(SAMPLE)):
        if not line.isascii():
            lines.append(line)
            size += len(line)
    sample = b"".join(lines)
    if nearly_utf8(sample) or any(_is_utf8(line) for line in lines):
        return None
    with extra("corpus"):
        from resiliparse.parse.encoding import detect_encoding

    found: str | None = detect_encoding(sample, max_len=1 << 17, from_html_meta=False)
    telling = sum(byte > 0x7F for byte in sample)
    if telling >= TELLING // 3 and everyday_chinese(sample):
        return "gb18030"
    return found if found is not None and telling >= TELLING and not found.lower().startswith("utf") else None


def _is_utf8(line: bytes) -> bool:
    """Whether a line is valid UTF-8 with more than two characters beyond ASCII, which chance does not make."""
    try:
        return sum(character > "\x7f" for character in line.decode()) > 2
    except UnicodeDecodeError:
        return False


def everyday_chinese(data: bytes) -> bool:
    """Whether bytes read as GB 18030 are Chinese: nearly all of GB2312, and many of the commonest characters, which
    Korean or Japanese in their own sets would hardly hit upon."""
    wide = [character for character in data.decode("gb18030", "replace") if character > "\x7f"]
    hanzi = [character for character in wide if "\u4e00" <= character <= "\u9fff"]
    return (10 * sum(map(_in_gb2312, wide)) >= 8 * len(wide) > 0
            and 10 * sum(character in COMMON for character in hanzi) >= 4 * len(hanzi) > 0)


def _in_gb2312(character: str) -> bool:
    try:
        character.encode("gb2312")
    except UnicodeEncodeError:
        return False
    return True
