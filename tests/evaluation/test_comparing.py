"""Answers compared in many scripts: letters of choices, whole words, and the same words."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium.evaluation.checkers import Checker
from trivium.evaluation.choices import choice_of, letter_of, same_choice
from trivium.evaluation.comparing import contains, exact, folded, plain
from trivium.evaluation.prompting import same_answer

STATED = ["The answer is {}.", "The answer is ({}).", "So the correct answer: **{}**",
 "I'd go with option {}, I think.",
          "Therefore $\\boxed{{{}}}$", "答案是{}。", "所以答案为：{}", "故选{}。", "我认为应该选（{}）", "{}选项正确",
          "正确答案是【{}】，因为它最轻",
          "應選{}", "答案應為「{}」", "正解は{}です。", "答えは「{}」", "{}が正解です", "정답은 {}입니다", "정답: {}",
          "답은 ({})번입니다",
          "{}. it floats", "({}) since it floats", "{}", "“{}”", "{}。", "A stone sinks, so it is {}"]
"""What may be said of every Latin letter."""


def wide(text):
    """Latin letters, digits and marks in full width."""
    return "".join(chr(ord(one) + 0xFEE0) if "!" <= one <= "~" else one for one in text)


@pytest.mark.parametrize("form", [str, wide, lambda letter: f"{letter} "])
@pytest.mark.parametrize("said", STATED)
def test_a_letter_that_is_settled_on_is_found(said, form):
    for letter in "BCDEGH":
        text = said.format(form(letter))
        assert choice_of(text, "A") == letter, text
        assert [same_choice(text, f"({other})") for other in "BCDEGH"] == [other == letter for other in "BCDEGH"]


@pytest.mark.parametrize(("said", "answer", "letter"), [
    # letters that are denied, or reasoned about
    ("Option A is wrong. D fits.", "A", "D"), ("不选A，选C", "A", "C"), ("既不是A也不是D，而是B", "B", "B"),
    ("A项错误，D项正确", "A", "D"), ("AではなくDです", "A", "D"), ("정답은 A가 아니라 D입니다", "A", "D"),
    ("A、B都错，D对", "A", "D"),
    ("Both A and C are wrong; so D", "A", "D"), ("答案是A？再想想，答案是D", "A", "D"), ("是D，不是A", "A", "D"),
    ("The answer isn't C", "C", None), ("Definitely not C.", "C", None), ("答案不是C", "C", None),
    # several, none of them settled on
    ("The answer is A or B", "A", None), ("答案是A或B吧", "A", None), ("(A) and (C)", "A", None), ("答案是ABD",
    "A", None), ("A, C", "C", None),
    # the words "a" and "I", and letters in words
    ("A careful look shows that the answer is D.", "A", "D"), ("I think it is a cork, so C.", "A", "C"),
    ("I would say so", "I", None), ("The answer is a cork", "A", None), ("A cork floats.", "A", None),
    ("Answer", "A", None), ("A is correct", "A", "A"), ("a)", "A", "A"), ("I'm not sure", "I", None),
    # other alphabets
    ("正解はイ", "ア", "イ"), ("ウです", "ア", "ウ"), ("選択肢エが適切", "ア", "エ"), ("アイスクリームです",
    "ア", None),
    ("정답은 나입니다", "가", "나"), ("(다)", "가", "다"), ("나라입니다", "나", None), ("应该是乙", "甲", "乙"),
    ("丙。", "甲", "丙"),
    ("Ответ: В", "А", "В"), ("В", "А", "В"),
    # numbers
    ("정답은 ③번", "1", "3"), ("正解は2です", "1", "2"), ("4番", "1", "4"), ("The answer is option 2.", "1", "2"),
    ("②", "2", "2"),
    ("The answer is 3.5", "3", None), ("12", "1", "12"), ("３", "3", "3"),
])
def test_what_is_no_choice_and_what_is_one(said, answer, letter):
    assert choice_of(said, answer) == letter


def test_an_answer_of_a_choice_is_one_letter():
    assert [letter_of(one) for one in ("(B)", "Ｂ．", "b", "③", "ウ", "[12]", "AB", "cork", "", "北")] == [
        "B", "B", "B", "3", "ウ", "12", None, None, None, None]


@settings(deadline=None)
@given(st.text(st.sampled_from(list("ABaI选答案是B 不:。().*的，answeris'")), max_size=60))
def test_a_choice_is_a_letter_of_the_text_or_none(text):
    letter = choice_of(text, "B")
    assert letter is None or letter in folded(text).upper()


@pytest.mark.parametrize(("text", "answer", "right"), [
    ("中国的首都是北京。", "北京", True), ("東京です", "東京", True), ("서울입니다", "서울", True), ("ｶﾞｿﾘﾝです",
    "ガソリン", True), ("กรุงเทพมหานคร", "กรุงเทพ", True),
    ("答案是Ｐａｒｉｓ。", "Paris", True), ("答案是Paris。", "paris", True), ("Parisian", "Paris", False), ("seines",
    "seine", False),
    ("concatenate", "cat", False), ("I do not know.", "no", False), ("共12个", "12", True), ("共123个", "12", False),
    ("12.5公斤", "12", False), ("3.14", "14", False), ("1,200", "1", False), ("臺北", "台北", False), ("10²",
    "102", False), ("", "a", False),
    ("It is the “Seine”.", "seine", True), ("naïve", "nai", False), ("北京", "北京。", True), ("ウイルス、",
    "ウイ", True)])
def test_whole_words_have_borders_where_the_script_has(text, answer, right):
    assert contains(text, answer) is right
    assert Checker("contains")({"answer": answer}, [text]) == [float(right)]


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
       st.text(st.sampled_from("北京东の을한"), min_size=1, max_size=5), st.text(max_size=12))
def test_what_is_written_without_spaces_is_found_anywhere(before, answer, after):
    text = before + answer + after
    assert contains(text, answer) == (plain(answer) in " ".join(folded(text).casefold().split())) or \
        unicodedata.combining(folded(text)[folded(text).find(answer) + len(answer):][:1] or "a")


@settings(deadline=None)
@given(st.text(st.sampled_from("abcXY12 "), max_size=10), st.text(st.sampled_from("abX1"), min_size=1, max_size=3))
def test_latin_words_are_found_whole(text, answer):
    words = plain(text).split()
    assert contains(text, answer) == (answer.casefold() in words)


@pytest.mark.parametrize("other", ["北京！", "“北京”", "**北京**", "「北京」", " 北京。\n", "《北京》", "北京……"])
def test_marks_around_an_answer_are_no_part_of_it(other):
    assert exact(other, "北京") and Checker("exact")({"answer": "北京"}, [other]) == [1.0]
    assert not exact(other, "南京")


def test_width_is_no_difference_but_script_and_value_are():
    assert exact("ＧＰＴ－４", "gpt-4") and exact("**Paris**", "Paris") and exact("It’s", "it's")
    assert not exact("國", "国") and not exact("10²", "102") and not exact("½", "12") and not exact("！", "？")
    assert Checker("exact")({"answer": "Paris"}, ["Paris.", "paris"]) == [1.0, 0.0]
    assert Checker("exact")({"answer": ["Paris", "巴黎"]}, ["巴黎。", "里昂"]) == [1.0, 0.0]


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_folding_is_nfkc_where_no_number_changes(text):
    kept = [one for one in text if not unicodedata.decomposition(one).startswith(("<super>", "<sub>", "<fraction>"))
            and one not in "’‘ʼ“”"]
    plain_text = "".join(kept)
    assert folded(plain_text) == unicodedata.normalize("NFKC", plain_text).translate(str.maketrans("’‘ʼ“”", "'''\"\""))
    assert exact(text, text) and folded(folded(text)) == folded(text)


@pytest.mark.parametrize(("expected", "answer", "right"), [
    ("no", "I do not know.", False), ("no", "No, it sinks.", True), ("cat", "concatenate", False), ("A",
    "Banana", False),
    ("B", "A good look says (B).", True), ("北京", "首都是北京市", True), ("1,200", "So 1200", True), ("12",
    "It is 13", False)])
def test_questions_in_several_ways_are_compared_alike(expected, answer, right):
    assert same_answer(expected, answer) is right
