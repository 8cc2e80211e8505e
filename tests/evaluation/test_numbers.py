"""Numbers as people write them: many spellings of a value agree, different values do not, and math-verify agrees."""

from __future__ import annotations

from fractions import Fraction

import math_verify
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trivium.errors import TriviumError
from trivium.evaluation.checkers import Checker
from trivium.evaluation.numbers import agree, boxed, is_one_number, last_of, numbers_in, the_number

WIDE = str.maketrans("0123456789,.%-", "０１２３４５６７８９，．％－")
VULGAR = {Fraction(1, 2): "½", Fraction(1, 4): "¼", Fraction(3, 4): "¾", Fraction(2, 3): "⅔", Fraction(5, 8): "⅝"}


def spellings(value: Fraction) -> list[str]:
    """Ways to write a value, each without a sign of its own."""
    top, bottom = value.numerator, value.denominator
    found = [f"{top}/{bottom}", f"{top} / {bottom}", f"\\frac{{{top}}}{{{bottom}}}", f"\\dfrac{{{top}}}{{{bottom}}}",
             f"${top}/{bottom}$", f"{bottom}分之{top}"]
    if bottom == 1:
        grouped = f"{top:,}"
        found += [str(top), grouped, grouped.replace(",", " "), grouped.replace(",", "\u202f"),
                  grouped.replace(",", "{,}"), grouped.replace(",", "\\,"), str(top).translate(WIDE),
                  grouped.translate(WIDE), f"{top}.0", f"${grouped}", f"{top}e0", f"{top}×10^0", f"{top * 100}%",
                  f"{top * 100}\\%", f"百分之{top * 100}"]
        found += [f"{Fraction(top, 10000).numerator}万"] if top % 10000 == 0 else []
        found += [f"{top // 10**8}亿"] if top and top % 10**8 == 0 else []
        found += [f"{top // 1000}e3", f"{top // 1000}×10³", f"{top // 1000} \\times 10^{{3}}", f"{top // 1000} thousand"
                  ] if top and top % 1000 == 0 else []
    elif top > bottom:
        found += [f"{top // bottom} {top % bottom}/{bottom}", f"{top // bottom}\\frac{{{top % bottom}}}{{{bottom}}}"]
    if value % 1 in VULGAR:
        found.append(f"{int(value) or ''}{VULGAR[value % 1]}")
    if 10**6 % bottom == 0:
        decimal = f"{top * 10**6 // bottom:07d}"
        decimal = f"{decimal[:-6]}.{decimal[-6:]}".rstrip("0").rstrip(".")
        found += [decimal, decimal.translate(WIDE)] + ([decimal[1:]] if decimal.startswith("0.") else [])
    return found


FRAMES = ["{}", "The answer is {}.", "So 3 of them and 4 make x = {}", "答案是{}。", "\\boxed{{{}}}",
          "First 7.\n#### {}", "Thus $x = {}$", "it is **{}** apples"]
values = st.fractions(min_value=0, max_value=10**9, max_denominator=16) | st.integers(0, 10**6).map(
    lambda n: Fraction(n * 1000)) | st.sampled_from([Fraction(1, 2), Fraction(11, 4), Fraction(300000000)])


@settings(deadline=None, max_examples=150)
@given(values, st.data())
@example(Fraction(1, 2), None)
def test_spellings_of_a_value_agree(value, data):
    written = spellings(value)
    frames = FRAMES if data is None else [data.draw(st.sampled_from(FRAMES))]
    minus = "" if data is None else data.draw(st.sampled_from(["", "-", "−", "–"])) if value else ""
    for text in written if data is None else [data.draw(st.sampled_from(written)) for _ in range(4)]:
        for frame in frames:
            shown = frame.format(minus + text) if "${}$" not in frame and "$" not in text else f"{minus}{text}"
            wanted = -value if minus else value
            answer = f"{wanted.numerator}/{wanted.denominator}" if wanted.denominator > 1 else str(wanted)
            assert agree(answer, shown), (answer, shown, [str(one.value) for one in numbers_in(shown)])


@settings(deadline=None, max_examples=150)
@given(values, values, st.data())
def test_different_values_do_not_agree(one, two, data):
    if one in (two, two * 100, two / 100, two * 10**4, two / 10**4):
        two = one + 1 if one != 1 else Fraction(5)
        if one in (two, two * 100, two / 100):
            return
    first, second = (data.draw(st.sampled_from(spellings(value))) for value in (one, two))
    decimals = [text for text in (first, second) if "." in text and len(text.replace(".", "").strip("0")) >= 6]
    if not decimals:
        assert not agree(first, second), (first, second)
        assert not one or not agree(first, f"-{first}"), first


@pytest.mark.parametrize("text, value", [
    ("a debt of $3-5", 5), ("from -3 to -5", -5), ("答案是-5", -5), ("x-5", 5), ("= - 5", -5), ("- 5 apples", 5),
    ("-$5", -5), ("1.5e-3", Fraction(3, 2000)), ("10⁻²", Fraction(1, 100)), ("2^{10}", 1024), ("5 m²", 5),
    ("5 m^2", 5), ("1亿2000万", 120000000), ("3万5千", 35000), ("2.5 million", 2500000), ("12,34,567", 1234567),
    ("1.234.567", 1234567),
    ("on 3/4/2024", 2024), ("\\text{about } 90^\\circ", 90), ("-\\frac{-3}{4}", Fraction(3, 4)), ("1/0", None),
    ("", None),
    ("\\boxed{3} or \\boxed{\\text{6 cm}}", 6), ("\\boxed{3, 4}", None), ("the root is 5\\sqrt{2}", None)])
def test_the_number_that_a_response_ends_with(text, value):
    found = last_of(text)
    assert (None if found is None else found.value) == value


def test_rounding_is_forgiven_and_difference_is_not():
    assert agree("1/3", "0.333333") and not agree("1/3", "0.33") and not agree("1/3", "0.333334")
    assert agree("0.3", "0.30000000000000004") and not agree("1234567.1", "1234567.2")
    assert not agree("123456789", "123456788") and not agree("1000000", "1000000.4")
    assert agree("50%", "0.5") and agree("50", "50%") and not agree("50%", "5%") and not agree("0.5%", "50%")


@pytest.mark.parametrize("answer, response", [
    ("\\sqrt{2}", "so \\boxed{\\sqrt{2}}"), ("2\\sqrt{3}", "\\boxed{\\sqrt{12}}"),
    ("\\frac{\\pi}{2}", "it is $\\pi/2$"),
    ("\\frac{1}{2}", "\\boxed{0.5}"), ("50\\%", "\\boxed{\\frac12}"), ("\\sqrt{2}", "\\boxed{\\sqrt{3}}"),
    ("5", "\\boxed{5\\sqrt{2}}"), ("1\\frac{1}{2}", "$1.5$"), ("\\frac{3}{4}", "$\\frac{6}{9}$")])
def test_math_verify_agrees(answer, response):
    oracle = math_verify.verify(math_verify.parse(f"\\boxed{{{answer}}}"), math_verify.parse(response))
    assert agree(answer, response) == oracle


def test_powers_of_powers_are_not_reckoned():
    assert not agree("5", "\\boxed{9^{9^{9^{9}}}}") and not agree("5", "\\boxed{2^{99999999}}")
    assert last_of("1e999999999") is None


def test_answers_that_are_not_one_number_are_refused_before_anything_is_asked():
    rows = [{"id": "a", "answer": "1,200"}, {"id": "b", "answer": "3 or 5"}, {"id": "c", "answer": "twelve"}]
    with pytest.raises(TriviumError, match="the answer of prompt 'b' is '3 or 5' .2 of 3 prompts"):
        Checker("number").suits(rows)
    Checker("number").suits([{"id": "d", "answer": "\\sqrt{2}"}, {"id": "e", "answer": "long talk\n#### 7"},
                             {"id": "f", "answer": 12}])
    assert not is_one_number("x + 1") and not is_one_number("\\frac{x}{2}") and the_number("about 7 kg").value == 7


def test_the_last_box_counts():
    assert boxed("\\boxed{1} then \\boxed{\\frac{2}{3}}") == "\\frac{2}{3}" and boxed("none") is None
