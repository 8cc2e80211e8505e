"""Numbers in words: every whole number that is spelt out by the rules of Chinese and English is read back, and words
that only hold a numeral are none."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium.evaluation.number_words import last_in_words
from trivium.evaluation.numbers import agree

SMALL = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
         "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def chinese(number: int) -> str:
    """A number below 10^12, spelt out."""
    for scale, name in ((10**8, "亿"), (10**4, "万"), (1000, "千"), (100, "百"), (10, "十")):
        if number >= scale:
            many, rest = divmod(number, scale)
            gap = "零" if rest and rest < scale // 10 else ""
            return chinese(many) + name + gap + (chinese(rest) if rest else "")
    return "零一二三四五六七八九"[number]


def english(number: int) -> str:
    """A number below 10^12, spelt out."""
    if number < 20:
        return SMALL[number]
    if number < 100:
        return TENS[number // 10] + (f"-{SMALL[number % 10]}" if number % 10 else "")
    scale, name = next((scale, name) for scale, name in ((10**9, "billion"), (10**6, "million"), (1000, "thousand"),
                                                         (100, "hundred")) if number >= scale)
    many, rest = divmod(number, scale)
    return f"{english(many)} {name}" + (f"{' and' if scale == 100 else ''} {english(rest)}" if rest else "")


@settings(deadline=None, max_examples=200)
@given(st.one_of(st.integers(0, 130), st.integers(0, 10**12 - 1)))
def test_what_is_spelt_out_is_read_back(number):
    for text in (f"答案是{chinese(number)}。", f"The answer is {english(number)}.", f"答案是{chinese(number)}个"):
        wanted = None if number == 1 and text.endswith("个") else number
        assert last_in_words(text) == wanted, text
        assert agree(str(number), text) == (wanted is not None)
        assert not agree(str(number + 1), text)


@pytest.mark.parametrize("text, value", [
    ("十五", 15), ("一百一", 110), ("一万二", 12000), ("三千五", 3500), ("两百", 200), ("二〇二四", 2024),
    ("三点五", Fraction(7, 2)), ("二分之一", Fraction(1, 2)), ("百分之五十", Fraction(1, 2)), ("负三十", -30),
    ("零下五度", -5), ("这是一个好问题", None), ("我们一起算", None), ("千万不要", None), ("万一", None),
    ("这十分重要", None), ("minus five", -5), ("a hundred", 100), ("two hundred five", 205), ("no one knows", None),
    ("the second one", None), ("often", None), ("I have 5, or five", None), ("", None)])
def test_numbers_among_words(text, value):
    assert last_in_words(text) == value


def test_digits_go_before_words():
    assert agree("5", "第一步做完，得到5个") and agree("-30", "零下30度") and not agree("30", "零下30度")
    assert agree("50%", "百分之五十") and agree("0.75", "四分之三") and not agree("7", "seven hundred")
