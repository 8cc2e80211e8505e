"""Character sets as browsers read them: the names and tables of the WHATWG's Encoding Standard.

Python's codecs have nearly all of those tables, some with gaps and a few characters that the web's pages do not mean.
:func:`decoded` mends these, and goes on behind bytes that belong to no character instead of failing.
"""

from __future__ import annotations

import codecs

from trivium.errors import extra

BAD = "\ufffd"
"""What stands in a text where bytes belonged to no character."""

_CODECS = {
    "gbk": "gb18030", "big5": "big5hkscs", "shift_jis": "cp932", "euc-kr": "cp949", "euc-jp": "euc_jp",
    "iso-2022-jp": "iso2022_jp_ext", "windows-874": "cp874", "iso-8859-8-i": "iso8859-8", "macintosh": "mac-roman",
    "x-mac-cyrillic": "mac-cyrillic"
}
"""Python's codecs for the standard's names, where they are called otherwise."""
_REFUSED = {"hz-gb-2312": "hz", "iso-2022-kr": "iso2022_kr", "csiso2022kr": "iso2022_kr"}
"""Sets that browsers no longer read, as scripts could hide in them. Here it is only text."""
_PAIRS = frozenset({"gb18030", "big5hkscs", "cp932", "cp949", "euc_jp", "iso2022_jp_ext"})
_JAPANESE = str.maketrans("〜‖−¢£¬", "～∥－￠￡￢")
_MEANT = {
    "gb18030": str.maketrans(
        "\ue5e5\ue78d\ue78e\ue78f\ue790\ue791\ue792\ue793\ue794\ue795\ue796\ue7c7\ue81e\ue826\ue82b\ue82c\ue832\ue843"
        "\ue854\ue864", "\u3000\ufe10\ufe12\ufe11\ufe13\ufe14\ufe15\ufe16\ufe17\ufe18\ufe19\u1e3f\u9fb4\u9fb5\u9fb6"
        "\u9fb7\u9fb8\u9fb9\u9fba\u9fbb"),
    "big5hkscs": str.maketrans("•､‾∼♁☉／＼¥¢£", "‧﹑¯～⊕⊙∕﹨￥￠￡"), "euc_jp": _JAPANESE, "iso2022_jp_ext": _JAPANESE,
    "cp932": str.maketrans("\uf8f0\uf8f1\uf8f2\uf8f3", 4 * BAD), "koi8-u": str.maketrans("╝╬", "ўЎ")
}
"""Characters that a codec gives, and those that the standard has in their places."""


def named(label: str) -> str | None:
    """The codec for the character set that a page or its server names; None for a name that nobody knows."""
    with extra("corpus"):
        import webencodings

    label = label.strip().lower()
    if label in _REFUSED:
        return _REFUSED[label]
    found = webencodings.lookup(label)
    if found is not None and found.name != "replacement":
        return _CODECS.get(found.name, found.name)
    try:
        info = codecs.lookup(label)
    except (LookupError, ValueError):
        return None
    return info.name if info._is_text_encoding and info.name not in ("undefined", "idna", "punycode") else None


def decoded(data: bytes, codec: str) -> str:
    """The text of bytes in the set of that :func:`named` codec, with a :data:`BAD` for each character that they do not
    hold whole."""
    if codec == "x-user-defined":
        return "".join(chr(byte if byte < 0x80 else 0xF700 + byte) for byte in data)
    if codec == "windows-1255":  # a vowel point that its codec lacks
        return "\u05ba".join(part.decode(codec, "trivium-web") for part in data.split(b"\xca"))
    text = data.decode(codec, "trivium-web" if codec in _PAIRS or not codec.startswith("utf") else "replace")
    return text.translate(_MEANT[codec]) if codec in _MEANT and not text.isascii() else text


def _mended(error: UnicodeError) -> tuple[str, int]:
    """What the standard has for bytes that a codec cannot read, and where it goes on."""
    assert isinstance(error, UnicodeDecodeError)
    data, start = error.object, error.start
    first, second = data[start], data[start + 1] if start + 1 < len(data) else 0
    if error.encoding not in _PAIRS:
        return (chr(first) if 0x80 <= first < 0xA0 and error.encoding == "charmap" else BAD), start + 1
    if error.encoding == "gb18030" and first == 0x80:
        return "€", start + 1
    shifted = error.encoding == "iso2022_jp_ext" and data[data.rfind(b"\x1b", 0, start):][1:2] == b"$"
    if shifted and 0x20 < first < 0x7F and 0x20 < second < 0x7F:
        first, second = first | 0x80, second | 0x80
    if error.encoding in ("euc_jp", "iso2022_jp_ext") and first > 0xA0 and second > 0xA0:
        return _row(first - 0xA0, second - 0xA0), start + 2
    # a pair that stands for nothing goes whole; where the second byte is ASCII, only the first is broken
    return BAD, start + (2 if 0x80 < first < 0xFF and second >= 0x80 else 1)


def _row(row: int, cell: int) -> str:
    """A character of JIS X 0208 with the additions of NEC and IBM, which only the codec for Shift JIS has."""
    lead = (row - 1) // 2 + (0x81 if row < 63 else 0xC1)
    trail = cell + 0x9E if row % 2 == 0 else cell + (0x3F if cell < 64 else 0x40)
    try:
        return bytes([lead, trail]).decode("cp932")
    except (UnicodeDecodeError, ValueError):
        return BAD


codecs.register_error("trivium-web", _mended)
