"""Numbers as people write them, read exactly: signs, thousands, decimals, fractions, percent, powers of ten, LaTeX, and
the words of English and Chinese for large ones.

Values are fractions, so that no rounding makes two numbers one. A number that was rounded when it was written agrees
with what it was rounded from where it has at least :data:`ROUNDED` digits. A percentage agrees with the number before
its sign as well as with its value, as ``50%`` answers both "how many percent?" and "what share?" (so does
`math-verify`). LaTeX that is more than a number (roots, pi) is left to `math-verify`, where that is installed."""

from __future__ import annotations

import importlib.util
import re
import signal
import threading
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from trivium.evaluation.number_words import last_in_words

ROUNDED = 6
"""Significant digits from which a decimal agrees with what it was rounded from."""

LONGEST_POWER = 400
"""The greatest exponent that is reckoned with."""

SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12,
          "十": 10, "百": 10**2, "千": 10**3, "万": 10**4, "萬": 10**4, "十万": 10**5, "百万": 10**6, "千万": 10**7,
          "亿": 10**8, "億": 10**8, "十亿": 10**9, "百亿": 10**10, "千亿": 10**11, "万亿": 10**12, "兆": 10**12}

MINUS = str.maketrans(dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\ufe63\uff0d", "-"))
THIN = str.maketrans(dict.fromkeys("\u00a0\u2009\u202f\u2007\u2008", "\u2009"))
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")

DIGITS = (r"\d{1,3}(?:\.\d{3}){2,}(?![\d.])|"  # 1.234.567
          r"(?:\d{1,3}(?:[,'’ \u2009]\d{3})+(?!\d)|\d{1,2}(?:,\d{2})+,\d{3}(?!\d)|\d+)(?:\.\d+)?|\.\d+")
SCALE = "|".join(sorted(SCALES, key=len, reverse=True))
NUMBER = re.compile(
    rf"""(?P<sign>[-+负負]\s*|零下\s*)?
    (?:(?P<before>百分之\s*)(?P<within>-)?|(?:US|HK|R)?[$€£¥₹]\s*(?P<inner>-)?)?
    (?: (?P<under>{DIGITS})\s*分之\s*(?P<over>{DIGITS})
      | (?P<whole>\d+)\s+(?P<part>\d+)\s*/\s*(?P<of>\d+)(?![\d/]|\.\d)
      | (?<![\d/])(?P<top>{DIGITS})\s*/\s*\(?(?P<bottom>{DIGITS})\)?(?!\s*/)
      | (?P<digits>{DIGITS})
        (?: [eE](?P<exponent>[-+]?\d+)(?!\d|\.\d)
          | \s*(?:[×x*·⋅∙])\s*10\s*\^\s*[({{]?\s*(?P<ten>[-+]?\d+)\s*[)}}]?
          | \s*\^\s*[({{]?\s*(?P<power>[-+]?\d+)\s*[)}}]?
          | (?P<scaled>(?:\s*(?:{SCALE})(?![a-z])(?:零?\s*(?:{DIGITS})\s*(?=(?:{SCALE})))?)+) )?
    )
    (?P<percent>\s*(?:%|‰|per\ ?cent\b))?""", re.VERBOSE | re.IGNORECASE)

MORE = re.compile(r"\\(?:sqrt|pi|log|ln|sin|cos|tan|e\b|infty|frac|binom|pm|sum|int|exp)|[√π∞±]")
"""What makes an expression of numbers, rather than a number."""

ALGEBRA = re.compile(r"(?<![a-zA-Z])[a-zA-Z]\s*[-+*/^]\s*\d|\d\s*[-+*/]\s*[a-zA-Z](?![a-zA-Z])|\d\s*[xyz](?![a-zA-Z])")
"""What makes a number part of a formula with unknowns."""


@dataclass(frozen=True)
class Number:
    """A number as it was written."""

    value: Fraction
    """What is written, before a percent sign."""
    percent: Fraction | None = None
    """What a percent or per mille sign makes of it."""
    places: int = 0
    """Digits after the decimal point."""

    def agrees(self, other: Number) -> bool:
        """Whether two ways to write a number mean the same one."""
        if self.percent is not None and other.percent is not None:
            return _close(self.percent, other.percent, self.places + 2, other.places + 2)
        mine = [self.value] if self.percent is None else [self.value, self.percent]
        others = [other.value] if other.percent is None else [other.value, other.percent]
        return any(_close(one, two, self.places, other.places) for one in mine for two in others)


def _close(one: Fraction, two: Fraction, places: int, others: int) -> bool:
    """Whether two values are equal, or one is what the other was rounded to."""
    if one == two:
        return True
    if max(places, others) > 12 and abs(one - two) <= max(abs(one), abs(two)) / 10**12:
        return True  # the noise of floating point
    return _rounded(one, places, two) or _rounded(two, others, one)


def _rounded(short: Fraction, places: int, long: Fraction) -> bool:
    digits = len(str(abs(int(short * 10**places)))) if places else 0
    return digits >= ROUNDED and round(long, places) == short


def numbers_in(text: str) -> list[Number]:
    """Every number of a text, in order. Exponents, and digits inside names such as ``x1``, are none."""
    return [number for number, _ in _found(plain(text))]


def _found(text: str) -> list[tuple[Number, tuple[int, int]]]:
    """The numbers of a text that :func:`plain` made, and where each stands."""
    found, at = [], 0
    while match := NUMBER.search(text, at):
        begin, at = match.start(), match.end()
        first = next(i for i in range(begin, at) if text[i].isdigit() or text[i] == ".")
        before = text[first - 1] if first else ""
        if match["digits"] and (before in ("^", "_") or (before.isascii() and before.isalpha() and begin == first)):
            continue
        number = _value(match, _is_negative(text, match))
        if number is not None:
            found.append((number, (begin, at)))
    return found


def _is_negative(text: str, match: re.Match[str]) -> bool:
    """Whether a minus belongs to a number: not one between two numbers (a range, a difference), nor a list's mark."""
    sign = match["sign"] or ""
    if match["inner"] or match["within"] or sign[:1] in tuple("负負零"):
        return True
    if not sign.startswith("-"):
        return False
    before = text[:match.start()]
    if sign != "-":  # there is a space behind it
        return before.rstrip()[-1:] in tuple("=≈:([{,;<>≤≥") if before.strip() else False
    behind = before[-1:]
    return not behind or not ((behind.isascii() and behind.isalnum()) or behind in ")]}%‰'\"")


def _value(match: re.Match[str], negative: bool) -> Number | None:
    """The number that was found; None where it is none, such as a division by zero."""
    places = 0
    if match["under"]:
        top, bottom = _digits(match["over"]), _digits(match["under"])
    elif match["whole"]:
        bottom = Fraction(match["of"])
        top = int(match["whole"]) * bottom + int(match["part"])
    elif match["top"]:
        top, bottom = _digits(match["top"]), _digits(match["bottom"])
    else:
        text, bottom = match["digits"], Fraction(1)
        places = len(text.partition(".")[2]) if text.count(".") == 1 else 0
        top = _digits(text)
        if match["scaled"]:
            top, places = _scaled(top, match["scaled"]), 0
        exponent = match["exponent"] or match["ten"]
        if exponent or match["power"]:
            if abs(int(exponent or match["power"])) > LONGEST_POWER or (match["power"] and not top):
                return None
            top = top * Fraction(10)**int(exponent) if exponent else top**int(match["power"])
            places = 0
    if not bottom:
        return None
    value = -top / bottom if negative else top / bottom
    sign = (match["percent"] or "").strip()
    percent = value / (1000 if sign == "‰" else 100) if sign or match["before"] else None
    return Number(value, percent, places)


def _digits(text: str) -> Fraction:
    text = re.sub(r"[,'’ \u2009]", "", text)
    return Fraction(text.replace(".", "") if text.count(".") > 1 else text)


def _scaled(value: Fraction, words: str) -> Fraction:
    """A number with its words: ``1 亿 2000 万`` is 120,000,000."""
    total = Fraction(0)
    for word, digits in re.findall(rf"({SCALE})(?:零?\s*({DIGITS})\s*(?=(?:{SCALE})))?", words, re.IGNORECASE):
        value *= SCALES[word.lower()]
        if digits:
            total, value = total + value, _digits(digits)
    return total + value


def plain(text: str) -> str:
    """A text whose signs, digits and LaTeX are written plainly."""
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+", lambda found: f"^{{{found[0].translate(SUPERSCRIPTS)}}}", text)
    text = re.sub(r"(?<=\d)\s*([¼½¾⅐-⅞])", r" \1", text.translate(THIN).translate(MINUS))
    text = "".join(letter if letter == "\u2009" else unicodedata.normalize("NFKC", letter) for letter in text)
    text = text.translate(MINUS).replace("\u2044", "/")
    if "\\" in text or "{" in text:
        text = _without_latex(text)
    if text.count("$") > 1 and not re.search(r"\$\s*\d[^$]*\$\s*\d", text):  # formulas rather than money
        text = re.sub(r"(?<=[-+])\$", "", text).replace("$", " ")
    return text


def _without_latex(text: str) -> str:
    """LaTeX's ways to write a number, written plainly."""
    text = re.sub(r"\\(?:left|right|!|displaystyle|,(?=\s*\\))", "", text).replace("{,}", ",")
    text = re.sub(r"\\[,;: ]", "\u2009", text)
    text = re.sub(r"\\([$%&#_])", r"\1", text)
    text = re.sub(r"\\(?:times|cdot)(?![a-zA-Z])", "×", text)
    text = re.sub(r"\\\(|\\\)|\\\[|\\\]", " ", text)
    text = re.sub(r"\\(?:text|textbf|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}", r" \1 ", text)
    text = re.sub(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)", " ", text)
    simple = rf"\s*-?\s*(?:{DIGITS})\s*"
    for _ in range(3):
        text = re.sub(rf"(-?)\\[dtc]?frac\s*(?:\{{({simple})\}}|(\d))\s*(?:\{{({simple})\}}|(\d))", _fraction, text)
    return re.sub(r"(?<![\w}])\{(" + simple + r")\}", r"\1", text)


def _fraction(found: re.Match[str]) -> str:
    sign, top, bottom = found[1], (found[2] or found[3]).strip(), (found[4] or found[5]).strip()
    negative = (sign == "-") ^ top.startswith("-") ^ bottom.startswith("-")
    whole = found.string[:found.start()][-1:].isdigit() and not sign
    top, bottom = top.lstrip("- "), bottom.lstrip("- ")
    return f"{' ' if whole else ''}{'-' if negative else ''}{top}/{bottom}"


def boxed(text: str) -> str | None:
    r"""What the last ``\boxed{...}`` of a text holds; None where there is none."""
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start < 0:
        return None
    at = begin = text.index("{", start) + 1
    depth = 1
    while at < len(text) and depth:
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        at += 1
    return text[begin:at - (not depth)]


def final(text: str) -> str:
    r"""The part of an answer that says its result: what the last ``\boxed`` holds, or what follows the last ``####``;
    else all of it."""
    inside = boxed(text)
    return inside if inside is not None else text.rpartition("####")[2]


def the_number(text: str) -> Number | None:
    """The one number that an answer gives; None where it gives none, several, or an expression."""
    shown = plain(final(text))
    found = _found(shown)
    return found[0][0] if len(found) == 1 and not MORE.search(shown) and not ALGEBRA.search(shown) else None


def last_of(text: str) -> Number | None:
    r"""The number that a response ends with: the one in its last ``\boxed``, or the last one behind ``####`` or of the
    text, or the last one in words where there is no digit. None where that is part of an expression."""
    if boxed(text) is not None:
        return the_number(text)
    shown = plain(final(text))
    found = _found(shown)
    if not found:
        value = None if MORE.search(shown) else last_in_words(shown)
        return None if value is None else Number(value)
    number, (begin, end) = found[-1]
    around = shown[max(0, begin - 8):end + 4]
    return None if MORE.search(around) else number


def is_latex(text: str) -> bool:
    """Whether a result is written in LaTeX, or as an expression of roots and the like."""
    shown = final(text)
    return "\\" in shown or MORE.search(shown) is not None


def reads_expressions() -> bool:
    """Whether `math-verify` is installed."""
    return importlib.util.find_spec("math_verify") is not None


def expression(text: str) -> Any | None:
    """What `math-verify` reads in a result, where it is installed and that is a number; else None."""
    try:
        from math_verify import parse
    except ImportError:
        return None
    shown = final(text)
    if len(shown) > 300 or re.search(r"\^\s*\{?\s*[^}]*\^|\d{4,}\s*!|\^\s*\{?\s*-?\d{4,}", shown):
        return None  # towers of powers would be reckoned for ever
    seconds = 5 if _may_be_interrupted() else None
    try:
        found = parse(f"\\boxed{{{shown}}}", parsing_timeout=seconds)
        value = found[0] if found else None
        return value if value is not None and bool(value.is_number) and bool(value.is_finite) else None
    except Exception:  # whatever its grammar stumbles over is no number
        return None


def same_expression(one: Any, two: Any) -> bool:
    """Whether `math-verify` finds two expressions equal."""
    from math_verify import verify
    try:
        return bool(verify(one, two, timeout_seconds=5 if _may_be_interrupted() else None))
    except Exception:
        return False


def _may_be_interrupted() -> bool:
    """Whether `math-verify` can set its alarm here: in the main thread, of systems that have one."""
    return threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGALRM")


def is_one_number(text: str) -> bool:
    """Whether an answer is one number, so that responses can be compared with it."""
    return the_number(text) is not None or (is_latex(text) and expression(text) is not None)


def agree(answer: str, response: str) -> bool:
    """Whether a response ends with the number that an answer is."""
    wanted, said = the_number(answer), last_of(response)
    if wanted is not None and said is not None:
        return wanted.agrees(said)
    if not (is_latex(answer) or is_latex(response)):
        return False
    shown = response if boxed(response) is not None or "####" in response else _last_formula(response)
    one, two = expression(answer), expression(shown)
    return one is not None and two is not None and same_expression(one, two)


def _last_formula(text: str) -> str:
    """The last formula of a text, between dollars or brackets; all of it where it has none."""
    found = re.findall(r"\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]", text, re.DOTALL)
    return next((part for part in found[-1] if part), text) if found else text
