"""Private data in a text, replaced by typed placeholders.

Each kind is found by its form and, where it has one, proved by its checksum: a number that merely looks like a card is
left alone. The values themselves are never logged, counted by value or kept.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable

from trivium.corpus.addresses import EMAIL, IPV4, IPV6, WRITTEN_EMAIL, email, ipv4, ipv6
from trivium.corpus.banking import CARD, IBAN, NAMED_CARD, card, iban, named_card
from trivium.corpus.identities import (
    ACCOUNT,
    HOME,
    LETTERED_ID,
    NAMED_ID,
    NATIONAL_ID,
    PLATE,
    account,
    home,
    national_id,
)
from trivium.corpus.phones import CHINA, LABELLED_PHONE, NAMED_PHONE, PHONE, chinese_phone, named_phone, phone
from trivium.corpus.secrets import GIVEN_SECRET, KEY_BLOCK, SECRET, SECRET_MARKS


def _whole(match: re.Match[str]) -> int:
    return len(match["value"])


# In this order: a card is no phone number, and an address in IPv6 may end in one of IPv4. A pattern is tried where the
# text has one of the given characters; "7" stands for seven digits near each other, "0" for any digit. It marks a
# value, and its function gives how many characters of it are private data after all, or 0.
FINDERS: list[tuple[str, tuple[str, ...], re.Pattern[str], Callable[[re.Match[str]], int]]] = [
    ("secret", ("-----BEGIN",), KEY_BLOCK, _whole),
    ("secret", SECRET_MARKS, SECRET, _whole),
    ("secret", SECRET_MARKS, GIVEN_SECRET, _whole),
    ("email", ("@",), EMAIL, email),
    ("email", ("at)", "at]", "at}", "AT)", "AT]"), WRITTEN_EMAIL, _whole),
    ("address", ("址", "住", "居", "户籍", "搬到"), HOME, home),
    ("iban", ("7",), IBAN, iban),
    ("national_id", ("7",), NATIONAL_ID, national_id),
    ("national_id", ("0",), LETTERED_ID, national_id),
    ("national_id", ("证", "證", "护照", "護照", "身份", "assport"), NAMED_ID, _whole),
    ("plate", ("0",), PLATE, _whole),
    ("account", ("QQ", "qq", "扣扣", "微信", "薇信", "eixin", "eChat", "echat", "wx", "vx", "WX", "VX"), ACCOUNT,
     account),
    ("card", ("7",), NAMED_CARD, named_card),
    ("card", ("7",), CARD, card),
    ("ipv6", (":",), IPV6, ipv6),
    ("ipv4", (".",), IPV4, ipv4),
    ("phone", ("7",), CHINA, chinese_phone),
    ("phone", ("7",), PHONE, phone),
    ("phone", ("7",), NAMED_PHONE, named_phone),
    ("phone", ("7",), LABELLED_PHONE, named_phone),
]
PLACEHOLDERS = {
    "secret": "<SECRET>", "national_id": "<NATIONAL_ID>", "email": "<EMAIL>", "iban": "<IBAN>", "card": "<CARD>",
    "ipv6": "<IP_ADDRESS>", "ipv4": "<IP_ADDRESS>", "phone": "<PHONE>", "plate": "<PLATE>", "account": "<ACCOUNT>",
    "address": "<ADDRESS>", "name": "<NAME>"
}
KINDS = [kind for kind in PLACEHOLDERS if kind != "name"]
"""What rules find; names are found by :mod:`trivium.corpus.names`."""

MOST_SEARCHES = 8
"""Two are the rule, and three are seen where values stand beside each other."""
_DIGIT = re.compile(r"\d")
_SEVEN = re.compile(r"(?:\d[ ().\-/+（）]{0,3}){6}\d", re.ASCII)
_FOLDED = {chr(code): chr(code - 0xFEE0) for code in (*range(0xFF10, 0xFF1A), *range(0xFF21, 0xFF3B),
                                                    *range(0xFF41, 0xFF5B), *map(ord, "＠．＋－＿"))}
_FOLDED |= dict.fromkeys("\xa0\u2002\u2003\u2007\u2009\u202f\u3000", " ")
_FOLDED |= dict.fromkeys("‐‑‒–−", "-")
_FOLDED |= {digit: str(unicodedata.digit(digit)) for digit in map(chr, range(0x660, 0x1100))
            if unicodedata.category(digit) == "Nd"}
_WIDE = re.compile(f"[{''.join(_FOLDED)}]")


def spans(text: str, kinds: Iterable[str] = KINDS) -> list[tuple[int, int, str]]:
    """Where private data of the given kinds stands: (start, end, kind), by characters of the text, in its order.

    Digits of other scripts, full-width letters, and the spaces and dashes of typesetting are read as the plain ones
    that they stand for, one for one. What is found hides its own characters and nothing else, and the search is
    repeated until it finds no more: the text with the placeholders in it holds no private data. The number of searches
    is bounded, so that the time is in proportion to the text.
    """
    wanted, found = set(kinds), list[tuple[int, int, str]]()
    if not text.isascii() and _WIDE.search(text):
        text = _WIDE.sub(lambda match: _FOLDED[match[0]], text)
    for _ in range(MOST_SEARCHES):
        if not (hits := _once(text, wanted)):
            break
        found += hits
        text = _hidden(text, hits)
    return sorted(found)


def _once(text: str, wanted: set[str]) -> list[tuple[int, int, str]]:
    """One search with every pattern, each in what the ones before it left."""
    if digit := _DIGIT.search(text):
        signs = {"0": True, "7": _SEVEN.search(text, digit.start()) is not None}
    else:
        signs = {"0": False, "7": False}
    found: list[tuple[int, int, str]] = []
    for kind, marks, pattern, length in FINDERS:
        if kind not in wanted or not any(
                signs.get(mark, mark in text) for mark in marks):
            continue
        hits, place, last = [], 0, 0
        while match := pattern.search(text, place):
            group = "value" if "value" in pattern.groupindex else str(match.lastgroup)
            start = match.start(group)
            size = chinese_phone(match, last) if length is chinese_phone else length(match)
            if size:
                hits.append((start, start + size, kind))
                place = last = start + size
            else:
                place = max(match.end(group) if kind != "iban" else start + 4, place + 1)
        if hits:
            text = _hidden(text, hits)
            found += hits
    return found


def _hidden(text: str, hits: list[tuple[int, int, str]]) -> str:
    """The text with other characters, as many, in the places: for every pattern the same as a placeholder."""
    pieces, written = [], 0
    for start, end, _ in sorted(hits):
        pieces += [text[written:start], "<", "x" * (end - start - 2), ">"]
        written = end
    return "".join(pieces) + text[written:]


def redact(text: str, kinds: Iterable[str] = KINDS) -> tuple[str, Counter[str]]:
    """The text with every value of the given kinds replaced, and how many there were of each kind."""
    found = spans(text, kinds)
    if not found:
        return text, Counter()
    pieces, written = [], 0
    for start, end, kind in found:
        pieces += [text[written:start], PLACEHOLDERS[kind]]
        written = end
    return "".join(pieces) + text[written:], Counter(kind for _, _, kind in found)
