"""Bank cards and accounts, proved by their checksums and their issuers' numbers."""

from __future__ import annotations

import re

from trivium.corpus.identities import luhn
from trivium.corpus.phones import otherwise

IBAN = re.compile(r"(?<!\w)(?P<value>[A-Za-z]{2}\d{2}(?:[ ]?[A-Za-z0-9]){11,30})", re.ASCII)
CARD = re.compile(r"(?<![\w.+/-])(?<!\d[ ])(?P<value>\d(?:[ -]?\d){12,18})(?![\w-])(?![ .]\d)", re.ASCII)
NAMED_CARD = re.compile(r"""
    (?: (?<![A-Za-z<]) (?: cards? | cc | maestro | visa | mastercard | amex ) (?![A-Za-z])
        (?: [ ]? (?: [:：#.=*(（-] | (?<![A-Za-z])
            (?: numbers? | no | nr | num | is | was | the | ending | my ) (?![A-Za-z]) )
        ){0,5}+
      | (?: 银行卡 | 储蓄卡 | 借记卡 | 信用卡 | 工资卡 | 社保卡 | 卡号 | 銀行卡 | 信用卡號 )
        (?: 号码 | 号 | 账号 | 卡号 | 是 | 为 | 尾号 | [:：#（(\s] ){0,5}+ )
    [ ]{0,2} (?P<value> \d(?:[ -]?\d){11,18}+ ) (?![\w-]|[ .]\d)""", re.VERBOSE | re.ASCII | re.IGNORECASE)

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


def iban(match: re.Match[str]) -> int:
    """The form alone cannot tell an IBAN's end from a word that follows it: the country's length can."""
    wanted, letters = IBAN_LENGTHS.get(match[0][:2].upper(), 0), 0
    for size, character in enumerate(match[0], 1):
        letters += character != " "
        if letters == wanted:
            follows = match.string[match.start() + size:][:1]
            ends = not (follows.isascii() and follows.isalnum())
            return size if ends and iban_holds(match[0][:size].replace(" ", "").upper()) else 0
    return 0



_EAN = re.compile(r"(?<![A-Za-z])(?:card|visa|cc)|卡", re.IGNORECASE)


def _issued(digits: str) -> bool:
    """Whether an issuer gives out numbers of this length that begin so (ISO/IEC 7812; the issuers' own lists)."""
    size, two, four = len(digits), int(digits[:2]), int(digits[:4])
    if digits[0] == "4":
        return size in (13, 16, 19)                                        # Visa
    if 51 <= two <= 55 or 2221 <= four <= 2720:
        return size == 16                                                  # Mastercard
    if two in (34, 37):
        return size == 15                                                  # American Express
    if 300 <= int(digits[:3]) <= 305 or two in (36, 38, 39):
        return size in (14, 16, 17, 18, 19)                                # Diners Club
    if two == 35:
        return 16 <= size <= 19                                            # JCB
    if four in (1800, 2131):
        return size == 15
    return (digits[0] == "6" or two in (50, 56, 57, 58, 81)) and 14 <= size <= 19    # UnionPay, Discover, Maestro


def _grouped(value: str) -> bool:
    groups = [len(group) for group in re.split("[ -]", value)]
    return len(groups) == 1 or all(size == 4 for size in groups[:-1]) or groups in (
        [4, 6, 5], [4, 6, 4], [6, 13], [6, 10], [6, 4, 4, 4, 1])


def card(match: re.Match[str]) -> int:
    """How many characters of the match are a card's number: all of them, or 0. Thirteen digits whose last one is also
    right for a barcode (EAN) are one only beside a word for cards."""
    digits = re.sub(r"\D", "", match["value"])
    if len(digits) in (17, 18) or (len(digits) in (14, 15, 19) and digits[:2] in ("50", "56", "57", "58", "60")):
        return 0  # numbers of messages on the web are as long
    if not (_issued(digits) and _grouped(match["value"]) and len(set(digits)) > 1 and luhn(digits)):
        return 0
    start = match.start("value")
    if otherwise(match.string, start):
        return 0
    if len(digits) == 13 and _barcode(digits) and not _EAN.search(match.string, max(0, start - 24), start):
        return 0
    return len(match["value"])


def named_card(match: re.Match[str]) -> int:
    """How many characters of a number beside a word for cards are one: a maestro's twelve or thirteen digits with a
    right check digit, or 14 to 19 digits that an issuer may have given out, mistyped or not."""
    digits = re.sub(r"\D", "", match["value"])
    if len(set(digits)) == 1 or not _grouped(match["value"]):
        return 0
    if len(digits) < 14:
        return len(match["value"]) if digits[0] in "0456" and luhn(digits) else 0
    chinese = not match[0][0].isascii()
    return len(match["value"]) if _issued(digits) or luhn(digits) or (chinese and len(digits) in (16, 19)) else 0


def _barcode(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (GS1: EAN-13)."""
    return sum(int(digit) * (1 + 2 * (place % 2)) for place, digit in enumerate(digits)) % 10 == 0
