"""National identity numbers, proved by their checksums where they have any, and the keys and tokens of computer
systems."""

from __future__ import annotations

import re
from collections.abc import Callable

NATIONAL_ID = re.compile(r"""
    (?<![\w.+/-]) (?<!\d[ ]) (?P<value>
        (?P<us> \d{3}-\d{2}-\d{4} )                                           # United States: 219-09-9999
      | (?P<cn> [1-9]\d{5}(?:18|19|20)\d{2}[01]\d[0-3]\d{4}[\dXx] )        # China: 11010519491231002X
      | (?P<br> \d{3}\.\d{3}\.\d{3}-\d{2} )                                # Brazil: 111.444.777-35
      | (?P<fr> [12][ ]?\d{2}[ ]?[01]\d[ ]?(?:\d{2}|2[AB])[ ]?\d{3}[ ]?\d{3}[ ]?\d{2} )   # France
      | (?P<in> [2-9]\d{3}[ ]\d{4}[ ]\d{4} )                               # India
      | (?P<se> \d{6}[+-]\d{4} )                                           # Sweden: 811228-9874
      | (?P<es> (?:\d{8}|[XYZ]\d{7})[ -]?[A-Z] )                           # Spain: 12345678Z
      | (?P<it> [A-Z]{6}\d{2}[ABCDEHLMPRST]\d{2}[A-Z]\d{3}[A-Z] )          # Italy: RSSMRA85T10A562S
      | (?P<gb> [ABCEGHJ-PRSTW-Z][ABCEGHJ-NPRSTW-Z][ ]\d{2}[ ]\d{2}[ ]\d{2}[ ][ABCD] )    # United Kingdom
    ) (?![\w-]) (?![ ]\d)""", re.VERBOSE | re.ASCII)

SECRET_MARKS = ("AKIA", "ASIA", "gh", "glpat-", "xox", "AIza", "k_", "sk-", "hf_", "npm_", "eyJ", "PRIVATE KEY", "assw",
                "ASSW", "ecret", "ECRET", "oken", "OKEN", "key", "KEY", "Key")
"""A text without any of these holds none of the secrets."""

SECRET = re.compile(r"""
    (?<![A-Za-z0-9_]) (?P<value>
        (?:AKIA|ASIA)[0-9A-Z]{16}(?![0-9A-Za-z])                          # Amazon
      | gh[pousr]_[A-Za-z0-9]{36,255} | github_pat_\w{60,255} | glpat-[\w-]{20,64}
      | xox[abeoprs]-[\w-]{10,255}                                        # Slack
      | AIza[\w-]{35}(?![\w-])                                            # Google
      | [srp]k_(?:live|test)_[A-Za-z0-9]{16,255}                          # Stripe
      | sk-(?:ant-|proj-)?[A-Za-z0-9][\w-]{19,255}                        # model providers
      | hf_[A-Za-z0-9]{30,64} | npm_[A-Za-z0-9]{36}
      | eyJ[\w-]{10,4096}\.eyJ[\w-]{10,4096}\.[\w-]{10,4096}              # JSON web tokens
    )""", re.VERBOSE | re.ASCII)
KEY_BLOCK = re.compile(
    r"(?P<value>-----BEGIN (?:[A-Z]+ ){0,3}PRIVATE KEY-----[A-Za-z0-9+/=\s:,-]{32,16384}?-----END (?:[A-Z]+ "
    r"){0,3}PRIVATE KEY-----)",
    re.ASCII)
GIVEN_SECRET = re.compile(
    r"""
    (?i: (?<![A-Za-z])
         (?:password|passwd|secret|(?:api|access|auth|secret|private)[_-]?(?:key|token)|token)
         ["']?[ ]{0,3}[:=][ ]{0,3}["']? )
    (?P<value> (?=[^\s"'<>]{0,63}\d)(?=[^\s"'<>]{0,63}[A-Za-z])[^\s"'<>()&;,$]{8,64} )""", re.VERBOSE | re.ASCII)
"""What follows a name such as ``api_key =``, when it has letters and digits."""


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1)."""
    doubled = (int(d) * (1 + k % 2) for k, d in enumerate(reversed(digits)))
    return sum(d - 9 * (d > 9) for d in doubled) % 10 == 0


def national_id(match: re.Match[str]) -> int:
    """How many characters of the match are an identity number: all of them or, where the checksum fails, none."""
    country = next(name for name, value in match.groupdict().items() if value is not None and name in CHECKS)
    return len(match["value"]) if CHECKS[country](match["value"].replace(" ", "").replace("-", "").replace(
        ".", "").upper()) else 0


def _us(digits: str) -> bool:
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    taxpayer = area >= "900" and group >= "50"
    return (area not in ("000", "666") and (area < "900" or taxpayer)) and group != "00" and serial != "0000"


def _cn(digits: str) -> bool:
    """ISO 7064, MOD 11-2."""
    total = sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(digits[:17]))
    return "10X98765432"[total % 11] == digits[17] and _is_date(digits[10:12], digits[12:14])


def _br(digits: str) -> bool:
    def check(count: int) -> int:
        return sum(int(digit) * (count + 1 - place) for place, digit in enumerate(digits[:count])) * 10 % 11 % 10
    return len(set(digits)) > 1 and check(9) == int(digits[9]) and check(10) == int(digits[10])


def _fr(digits: str) -> bool:
    number = int(digits[:13].replace("2A", "19").replace("2B", "18"))
    return "01" <= digits[3:5] <= "12" and 97 - number % 97 == int(digits[13:])


_VERHOEFF = [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]]
for _ in range(6):
    _VERHOEFF.append([_VERHOEFF[-1][_VERHOEFF[1][digit]] for digit in range(10)])


def _dihedral(a: int, b: int) -> int:
    """The product in the group of the pentagon's symmetries."""
    if a < 5:
        return (a + b) % 5 if b < 5 else 5 + (a + b) % 5
    return 5 + (a - b) % 5 if b < 5 else (a - b) % 5


def _in(digits: str) -> bool:
    """Verhoeff 1969."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        total = _dihedral(total, _VERHOEFF[place % 8][int(digit)])
    return total == 0


def _se(digits: str) -> bool:
    # who was not born there has a day above 60
    return _is_date(digits[2:4], f"{int(digits[4:6]) % 60:02}") and luhn(digits)


def _es(value: str) -> bool:
    number = int(value[:-1].translate(str.maketrans("XYZ", "012")))
    return "TRWAGMYFPDXBNJZSQVHLCKE"[number % 23] == value[-1]


_ODD = dict(zip("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
                (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12,
                 14, 16, 10, 22, 25, 24, 23)))


def _it(value: str) -> bool:
    total = sum(_ODD[c] if place % 2 == 0 else int(c) if c.isdigit() else ord(c) - 65
                for place, c in enumerate(value[:15]))
    return chr(65 + total % 26) == value[15]


def _is_date(month: str, day: str) -> bool:
    return "01" <= month <= "12" and "01" <= day <= "31"


CHECKS: dict[str, Callable[[str], bool]] = {
    "us": _us, "cn": _cn, "br": _br, "fr": _fr, "in": _in, "se": _se, "es": _es, "it": _it,
    "gb": lambda value: value[:2] not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")
}
