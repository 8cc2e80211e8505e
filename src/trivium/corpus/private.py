"""Private data in a text, replaced by typed placeholders.

Each kind is found by its form and, where it has one, proved by its checksum: a number that merely looks like a card is
left alone. The values themselves are never logged, counted by value or kept.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterable

from trivium.corpus.identities import GIVEN_SECRET, KEY_BLOCK, NATIONAL_ID, SECRET, SECRET_MARKS, luhn, national_id

_EMAIL = re.compile(
    r"(?<![\w.+%-])(?P<value>[\w.+%-]{1,64}@(?:[A-Za-z0-9][\w-]{0,62}\.){1,8}[A-Za-z]{2,24})(?![\w@])", re.ASCII)
_IBAN = re.compile(r"(?<!\w)(?P<value>[A-Za-z]{2}\d{2}(?:[ ]?[A-Za-z0-9]){11,30})", re.ASCII)
_CARD = re.compile(r"(?<![\w.+-])(?<!\d[ ])(?P<value>\d(?:[ -]?\d){12,18})(?![\w-])(?![ ]\d)", re.ASCII)
_NAMED_CARD = re.compile(r"\b(?:card|cc|maestro)\b\D{0,20}(?P<value>\d{12})(?![\w-])(?![ ]\d)",
                         re.ASCII | re.IGNORECASE)
_IPV4 = re.compile(
    r"(?<![\w.])(?P<value>(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d))(?!\w|\.\d)", re.ASCII)
_IPV6 = re.compile(
    r"(?<![\w:.])(?P<value>(?:[0-9A-Fa-f]{0,4}:){2,8}(?:(?:\d{1,3}\.){3}\d{1,3}|[0-9A-Fa-f]{1,4})?)(?![\w:])", re.ASCII)
_VERSION = re.compile(r"(?:\bv|\bversions?|\brelease|\bbuild|\bsection|§)\s*$", re.IGNORECASE)
_PHONE = re.compile(r"""
    (?<![\w.+/-]) (?<!\d[ ]) (?P<value> (?:
        \+ [1-9] \d{0,2}+ (?: [ .-]? \(? \d{1,5}+ \)? ){2,6}+                       # international
      | (?:1[ .-])? \(\d{3}\) [ ]? \d{3} [ .-] \d{4}                              # (212) 555-0123
      | (?:1[ .-])? [2-9]\d{2} (?P<mark>[.-]) \d{3} (?P=mark) \d{4}                # 212-555-0123
      | (?:\(0\d{1,4}\)|0\d{1,4}) [ /-] \d{3,4} [ -] \d{3,4} (?:[ -]\d{2,4})?      # 020 7946 0123
      | 0\d{1,4} [ /-] \d{2,3} [ ] \d{2} [ ] \d{2}                                 # 0489 25 37 29
      | 0\d{2,4} - \d{6,8}                                                        # 0961-7596216
      | 00[1-9]\d{0,2} (?: [ .-] \(? \d{2,5}+ \)? ){2,5}                           # 001-518-640-0854
      | 1[3-9]\d{9}                                                               # a mobile in China
    ) (?: [ ]? (?:x|ext\.?|extension) [ ]? \d{1,6} )? ) (?! [\w/] | [ .-]\d )""", re.VERBOSE | re.ASCII)
_NAMED_PHONE = re.compile(r"""
    (?: \b(?:tel|telephone|phone|mobile|cell|fax|call|dial|whatsapp|sms)\b [^\d+(]{0,24}
      | (?:电话|手机|传真|热线|拨打)\D{0,8} )
    (?P<value> [+(]? \d{2,8}+ \)? (?: [ .-]{1,2} \(? \d{2,8}+ \)? ){1,5}+ | \d{7,15}+ ) (?! \w | [.:,-]\d )""",
    re.VERBOSE | re.IGNORECASE | re.ASCII)
_DATE = re.compile(r"(?:19|20)\d\d[ .-]\d\d[ .-]\d\d|\d\d[ .-]\d\d[ .-](?:19|20)\d\d")

IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27, "BR": 29,
    "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28, "EE": 20, "EG": 29,
    "ES": 24, "FI": 18, "FK": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28,
    "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28,
    "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MN": 20,
    "MR": 27, "MT": 31, "MU": 30, "NI": 28, "NL": 18, "NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29, "PT": 25,
    "QA": 29, "RO": 24, "RS": 22, "RU": 33, "SA": 24, "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24, "SM": 27,
    "SO": 23, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20, "YE": 30,
}


def iban_holds(iban: str) -> bool:
    """Whether the country's length and the checksum hold: the number that the letters spell, modulo 97, is 1 (ISO
    13616)."""
    if IBAN_LENGTHS.get(iban[:2]) != len(iban) or not iban.isascii() or not iban.isalnum():
        return False
    return int("".join(str(int(c, 36)) for c in iban[4:] + iban[:4])) % 97 == 1


def _iban(match: re.Match[str]) -> int:
    """The form alone cannot tell an IBAN's end from a word that follows it: the country's length can."""
    wanted, letters = IBAN_LENGTHS.get(match[0][:2].upper(), 0), 0
    for size, character in enumerate(match[0], 1):
        letters += character != " "
        if letters == wanted:
            follows = match.string[match.start() + size:][:1]
            ends = not (follows.isascii() and follows.isalnum())
            return size if ends and iban_holds(match[0][:size].replace(" ", "").upper()) else 0
    return 0


def _card(match: re.Match[str]) -> int:
    digits = re.sub(r"\D", "", match[0])
    issuer = digits[0] in "3456" or 2221 <= int(digits[:4]) <= 2720 or digits[:4] in ("1800", "2131")
    groups = [len(group) for group in re.split("[ -]", match[0])]
    grouped = len(groups) == 1 or all(size == 4 for size in groups[:-1]) or groups in ([4, 6, 5], [4, 6, 4])
    return len(match[0]) if issuer and grouped and len(set(digits)) > 1 and luhn(digits) else 0


def _maestro(match: re.Match[str]) -> int:
    """Twelve digits are too common to be taken for a card without a word that says so."""
    return 12 if match["value"][0] in "056" and len(set(match["value"])) > 1 and luhn(match["value"]) else 0


def _ipv4(match: re.Match[str]) -> int:
    if _VERSION.search(match.string, max(0, match.start() - 12), match.start()) or match[0] in ("0.0.0.0", "127.0.0.1"):
        return 0
    return len(match[0])


def _ipv6(match: re.Match[str]) -> int:
    groups = [group for group in match[0].split(":") if group]
    if len(groups) < 2 or not re.search(r"\d", match[0]) or len(match[0]) < 6:
        return 0  # a time of day, or a name in C++
    try:
        ipaddress.IPv6Address(match[0])
    except ValueError:
        return 0
    return len(match[0])


def _phone(match: re.Match[str]) -> int:
    value = match["value"]
    digits = sum(map(str.isdigit, re.split("[ex]", value, maxsplit=1, flags=re.IGNORECASE)[0]))
    fits = 7 <= digits <= (15 if value.startswith(("+", "00")) else 12)  # ITU-T E.164, and numbers within a country
    return len(value) if fits and not _DATE.fullmatch(value) else 0


def _whole(match: re.Match[str]) -> int:
    return len(match["value"])


# In this order: a card is no phone number, and an address in IPv6 may end in one of IPv4. A text without the given
# character needs no search. Each pattern marks a value, and its function gives how many characters of it are private
# data after all, or 0.
FINDERS: list[tuple[str, str, re.Pattern[str], Callable[[re.Match[str]], int]]] = [
    ("secret", "-----BEGIN", KEY_BLOCK, _whole),
    ("secret", "", SECRET, _whole),
    ("secret", "", GIVEN_SECRET, _whole),
    ("email", "@", _EMAIL, _whole),
    ("iban", "", _IBAN, _iban),
    ("national_id", "", NATIONAL_ID, national_id),
    ("card", "", _CARD, _card),
    ("card", "", _NAMED_CARD, _maestro),
    ("ipv6", ":", _IPV6, _ipv6),
    ("ipv4", ".", _IPV4, _ipv4),
    ("phone", "", _PHONE, _phone),
    ("phone", "", _NAMED_PHONE, _phone),
]
_DIGIT = re.compile(r"\d")
PLACEHOLDERS = {
    "secret": "<SECRET>", "national_id": "<NATIONAL_ID>", "email": "<EMAIL>", "iban": "<IBAN>", "card": "<CARD>",
    "ipv6": "<IP_ADDRESS>", "ipv4": "<IP_ADDRESS>", "phone": "<PHONE>"
}
KINDS = list(PLACEHOLDERS)


def redact(text: str, kinds: Iterable[str] = KINDS) -> tuple[str, Counter[str]]:
    """The text with every value of the given kinds replaced, and how many there were of each kind."""
    wanted, counts = set(kinds), Counter[str]()
    has_digit, may_hold = _DIGIT.search(text) is not None, "secret" in wanted and any(mark in text
                                                                                      for mark in SECRET_MARKS)
    for kind, sign, pattern, length in FINDERS:
        if kind not in wanted or sign not in text or not (has_digit or kind in ("email", "secret")):
            continue
        if kind == "secret" and not may_hold:
            continue
        pieces, written, place = [], 0, 0
        while match := pattern.search(text, place):
            start, size = match.start("value"), length(match)
            if size:
                pieces += [text[written:start], PLACEHOLDERS[kind]]
                written = place = start + size
                counts[kind] += 1
            else:
                place = max(match.end("value") if kind != "iban" else start + 4, place + 1)
        if pieces:
            text = "".join(pieces) + text[written:]
    return text, counts
