"""Numbers in words, Chinese and English: ``三十``, ``负二分之一``, ``twenty-one``, ``two hundred and five``.

They count only where an answer has no digits at all, for small ones are part of other words too: ``一`` and "one" are
read only where they are said to be the answer."""

from __future__ import annotations

import re
from fractions import Fraction

ONES = {letter: value for value, letters in enumerate(("零〇", "一", "二两", "三", "四", "五", "六", "七", "八", "九"))
        for letter in letters}
"""What each numeral stands for."""
TENS = {"十": 10, "百": 100, "千": 1000}
GREAT = {"万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}
RUN = "[零〇一二两三四五六七八九十][零〇一二两三四五六七八九十百千万萬亿億]*(?:点[零〇一二三四五六七八九]+)?"
SAID = r"(?:^|[\s:：,，。=（(“\"'*]|是|为|為|于|於|得|剩|有|共|到|约|負|负|零下|之)"
CHINESE = re.compile(
    rf"(?P<sign>负|負|零下)?(?:(?P<percent>百分之)(?P<share>{RUN})|(?P<under>{RUN})分之(?P<over>{RUN})|(?P<run>{RUN}))"
    r"(?!分[之外明]|[几多])")

NAMES = {"zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
         "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
         "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50,
         "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
NAME = "|".join(sorted({**NAMES, **SCALES}, key=len, reverse=True))
ENGLISH = re.compile(rf"(?P<sign>\b(?:minus|negative)\s+)?\b(?:a\s+(?=hundred|thousand|million|billion))?"
                     rf"(?P<run>(?:{NAME})(?:(?:\s+and\s+|[\s-]+)(?:{NAME}))*)\b", re.IGNORECASE)


def last_in_words(text: str) -> Fraction | None:
    """The last number that a text without digits says in words; None where it has digits, or says none."""
    if any(letter.isdecimal() for letter in text):
        return None
    found = [(match.start(), value) for match in CHINESE.finditer(text) if (value := _chinese(text, match)) is not None]
    found += [(match.start(), value) for match in ENGLISH.finditer(text)
              if (value := _english(text, match)) is not None]
    return max(found)[1] if found else None


def _chinese(text: str, match: re.Match[str]) -> Fraction | None:
    """The value of a match; None for a single numeral that is rather a part of a word (``一起``, ``十分``)."""
    run, behind = match["run"], text[match.end():match.end() + 1]
    if run is not None and len(run) == 1:
        word = (run == "一" and "\u4e00" <= behind <= "\u9fff") or run + behind == "十分"
        if word or not re.search(SAID + "$", text[:match.start("run")]):
            return None
    if match["percent"]:
        value = _of_run(match["share"]) / 100
    elif match["under"]:
        if not (under := _of_run(match["under"])):
            return None
        value = _of_run(match["over"]) / under
    else:
        value = _of_run(run)
    return -value if match["sign"] else value


def _of_run(run: str) -> Fraction:
    """``一百零五`` is 105, ``一万二`` is 12,000, ``二〇二四`` is 2024, ``三点五`` is 3.5."""
    whole, _, decimals = run.partition("点")
    if len(whole) > 1 and all(letter in ONES for letter in whole):
        value = Fraction(int("".join(str(ONES[letter]) for letter in whole)))
    else:
        total, section, digit, last = 0, 0, 0, 1
        for letter in whole:
            if letter in ONES:
                digit, last = ONES[letter], last if ONES[letter] else 1
            elif letter in TENS:
                section, digit, last = section + (digit or 1) * TENS[letter], 0, TENS[letter]
            else:
                total, section, digit, last = total + (section + digit) * GREAT[letter], 0, 0, GREAT[letter]
        short = last > 10 and whole[-2] not in "零〇"  # 一百一 is 110, 一百零一 is 101
        value = Fraction(total + section + digit * (last // 10 if short else 1))
    if decimals:
        value += Fraction(int("".join(str(ONES[letter]) for letter in decimals)), 10**len(decimals))
    return value


def _english(text: str, match: re.Match[str]) -> Fraction | None:
    """The value of a match; None for a "one" that is no answer."""
    words = [word for word in re.split(r"[\s-]+", match["run"].lower()) if word != "and"]
    if words == ["one"] and not (re.search(r"(?:^|\b(?:is|equals|are|leaves)|[:=*])[\s*]*$", text[:match.start()],
                                           re.IGNORECASE) and re.match(r"[\s*]*(?:$|[.,;!)*])", text[match.end():])):
        return None
    total, section = 0, 0
    for word in words:
        if word in NAMES:
            section += NAMES[word]
        elif word == "hundred":
            section = (section or 1) * 100
        else:
            total, section = total + (section or 1) * SCALES[word], 0
    value = Fraction(total + section)
    return -value if match["sign"] else value
