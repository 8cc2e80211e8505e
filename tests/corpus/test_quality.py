"""The quality rules: each fires where it should, and lets good text of every kind through."""

import re
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.corpus.c4 import drop_lines
from trivium.corpus.extract import ExtractionLimits, extract
from trivium.corpus.extractors import tidy
from trivium.corpus.quality import FAMILIES, LINE_RULES, RULES, Page, check, chosen, top_ngrams
from trivium.corpus.thresholds import QualityThresholds
from trivium.corpus.words import PLAIN_WORD, is_unspaced, plain_words, visible, words
from trivium.errors import TriviumError

GOOD = (
    "The old ferry crossed the river twice a day, and the people of the village set their clocks by it. In spring, "
    "when the water was high, the ferryman waited until the wind had turned.\n"
    "He had learned the work from his mother, who had carried mail and flour and once a whole orchestra with all of "
    "its instruments. She used to say that a river is never the same but a ferry must be.\n"
    "On the last evening before the bridge was opened, everybody came to the landing. Nobody knew what to say. Then "
    "someone began to sing, and the others joined in."
)
CHINESE = (
    "村子里的老渡船每天过河两次,人们按照它的时间来调整自己家里的钟表。春天河水上涨的时候,摆渡的老人总要等到风向转变才肯开船。"
    "他的手艺是从母亲那里学来的,母亲曾经运送过邮件、面粉,还有一次运送了整个乐队和他们所有的乐器。她常常说,河流从来不会相同,"
    "但是渡船必须永远一样。大桥通车前的最后一个晚上,所有的人都来到了码头。没有人知道应该说些什么。后来有人开始唱歌,其他人也跟着唱了起来。"
)
ANIMAL = (
    "The tarvin is a small grey animal with six short legs. It lives under the roots of old trees and eats moss, "
    "beetles and fallen plums. In winter it sleeps for ninety days. When a tarvin is afraid, it rolls into a ball "
    "and hums. Farmers like it, since beetles are bad for the plums. A young tarvin stays with its mother for two "
    "years."
)
SUMS = (
    "Let us add 27 + 35. First the ones: 7 + 5 = 12, write 2 and carry 1. Then the tens: 20 + 30 = 50. Together 50 + "
    "12 = 62. So 27 + 35 = 62.\nNow take 48 - 19. 48 - 10 = 38, and 38 - 9 = 29. So 48 - 19 = 29. We can prove it: "
    "29 + 19 = 48."
)
CODE = (
    "Here is how to find the larger of two numbers in Python.\n\ndef larger(a, b):\n    if a > b:\n        return a\n"
    "    return b\n\nCalling larger(3, 8) gives 8. Calling larger(9, 2) gives 9. When both are equal, it does not "
    "matter which of the two is given back, so the second one is."
)
DIALOGUE = (
    '"Have you seen my lamp?" asked Mira.\n"No," said her brother. "Is it the blue one?"\n"Yes, the blue one with the '
    'cracked glass."\n"Then look on the boat. I think that I saw it there."\nMira ran down to the boat. The lamp was '
    "on the bench."
)
REVIEW = (
    "I bought this kettle in March and use it every day. The handle stays cool and the water boils in two minutes. "
    "The lid is a little stiff, but it never leaks. For the price it is a good kettle, and I would buy it again. "
    "Four stars of five."
)
SMALL = QualityThresholds(
    min_words=25,
    min_word_length=2.0,
    min_letter_words=0.3,
    min_line_words=1,
    min_sentences=3,
    max_short_lines=1.0,
    max_newlines=0.5,
    max_top_ngrams=[0.3, 0.3, 0.3],
)
EVERY = chosen(list(FAMILIES), ["c4.curly_bracket"])
DOCUMENT_RULES = [rule for rule in EVERY if rule not in LINE_RULES]


@pytest.mark.parametrize("text", [GOOD, CHINESE, CHINESE.replace("渡", "船") + GOOD])
def test_good_prose_passes_with_the_papers_thresholds(text):
    assert check(text, [rule for rule in RULES if rule != "c4.curly_bracket"], QualityThresholds()) is None


@pytest.mark.parametrize("text", [ANIMAL, SUMS, CODE, DIALOGUE, REVIEW])
def test_small_clean_documents_pass_when_configured(text):
    assert check(text, DOCUMENT_RULES, SMALL) is None
    assert drop_lines(text, [rule for rule in EVERY if rule in LINE_RULES], SMALL)[0] == text


BREAKS = {
    "gopher_quality.word_count": "Too short to learn from.",
    "gopher_quality.word_length": "a b c d e f g h to be or " * 8,
    "gopher_quality.hashes": GOOD + " #tag" * 30,
    "gopher_quality.ellipses": GOOD.replace(" the", "... the").replace(" and", "... and"),
    "gopher_quality.bullet_lines": "\n".join("- " + line for line in GOOD.replace(". ", ".\n").split("\n")),
    "gopher_quality.ellipsis_lines": GOOD.replace(".\n", "...\n"),
    "gopher_quality.letter_words": GOOD + " 123 456" * 20,
    "gopher_quality.stop_words": "Die alte Fähre fuhr jeden Tag zweimal über den Fluss. " * 6,
    "gopher_repetition.duplicate_lines": GOOD + "\nAgain and again." * 4,
    "gopher_repetition.duplicate_paragraphs": GOOD + "\n\nAgain and again.\n\nAgain and again.",
    "gopher_repetition.top_ngrams": GOOD + " very good" * 25,
    "gopher_repetition.duplicate_ngrams": GOOD + " " + GOOD[:300],
    "c4.lorem_ipsum": GOOD + " Lorem ipsum dolor.",
    "c4.curly_bracket": GOOD + " {",
    "c4.sentences": "word " * 60 + "the end and that is all.",
    "fineweb.punctuated_lines": "\n".join(line.rstrip(".") for line in GOOD.replace(". ", ".\n").split("\n")),
    "fineweb.short_lines": "\n".join(GOOD.split()[n] + " x." for n in range(40)),
    "fineweb.repeated_lines": GOOD + "\nShare this page\n" + GOOD[:-1] + "\nShare this page",
    "fineweb.newlines": "\n".join(GOOD.split()),
}


def test_there_is_a_text_for_every_rule():
    assert set(BREAKS) == set(RULES)


@pytest.mark.parametrize("rule", BREAKS)
def test_each_rule_rejects_and_names_itself(rule):
    reason = check(BREAKS[rule], [rule], QualityThresholds())
    assert reason is not None and reason.startswith(rule + ": ")
    assert check(GOOD, [rule], QualityThresholds()) is None


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("gopher_quality.word_count", CHINESE[:30]),
        ("c4.sentences", re.sub("[。，,\\s]", "", CHINESE)),
        ("gopher_repetition.duplicate_ngrams", CHINESE + CHINESE[:80]),
        ("fineweb.punctuated_lines", "渡船\n" * 10),
        ("fineweb.short_lines", "渡船过河。\n" * 10),
        ("gopher_repetition.duplicate_lines", CHINESE + "\n再来一次。" * 5),
    ],
)
def test_rules_hold_in_chinese_too(rule, text):
    assert (check(text, [rule], QualityThresholds()) or "").startswith(rule)


def test_a_chinese_character_says_as_much_as_three_letters():
    """A line of eleven characters is a sentence, where one of eleven letters is two words."""
    rule = ["fineweb.short_lines"]
    assert check("渡船载着面粉过了宽河。\n" * 10, rule, QualityThresholds()) is None
    assert check("渡船载着面粉过河了。\n" * 10, rule, QualityThresholds())
    assert check("a ferry...\n" * 10, rule, QualityThresholds())
    assert check("渡船 the ferry of the wide river\n" * 10, rule, QualityThresholds()) is None


@pytest.mark.parametrize(
    ("change", "text", "passes"),
    [
        ({"min_words": 4}, "one two three four", True),
        ({"min_words": 5}, "one two three four", False),
        ({"max_words": 4}, "one two three four", True),
        ({"max_words": 3}, "one two three four", False),
        ({"min_words": 4}, "渡船过河", True),
        ({"min_words": 5}, "渡船过河。", False),
    ],
)
def test_thresholds_are_inclusive(change, text, passes):
    assert (
        check(text, ["gopher_quality.word_count"], QualityThresholds(**{"min_words": 0, **change})) is None
    ) == passes


def test_a_quarter_of_the_text_repeated_is_measured_as_such():
    words_once = [f"word{n:03}" for n in range(300)]
    text = " ".join(words_once + words_once[:100])
    assert (
        check(text, ["gopher_repetition.duplicate_ngrams"], QualityThresholds(max_duplicate_ngrams=[0.251] * 6)) is None
    )
    assert check(text, ["gopher_repetition.duplicate_ngrams"], QualityThresholds(max_duplicate_ngrams=[0.249] * 6))


def test_lines():
    rules = chosen(["c4", "c4.terminal_punctuation"], [])
    text = (
        GOOD.split("\n")[0] + "\nHome\nPlease enable Javascript to go on.\nWe use cookies. Read the cookie policy.\n"
        "This line has no end\n" + "x" * 1001 + " is too long a word.\n" + GOOD.split("\n")[1]
    )
    kept, dropped = drop_lines(text, [rule for rule in rules if rule in LINE_RULES], QualityThresholds())
    assert kept == "\n".join(GOOD.split("\n")[:2])
    assert dropped == {
        "c4.short_line": 1,
        "c4.javascript": 1,
        "c4.policy": 1,
        "c4.terminal_punctuation": 1,
        "c4.long_word": 1,
    }


@pytest.mark.parametrize(("filler", "covered"), [("好" * 20, 20), ("还不错" * 9, 25), (" no" * 12, 24)])
def test_an_ngram_that_overlaps_itself_covers_its_characters_once(filler, covered):
    text = (GOOD if filler.isascii() else CHINESE * 3) + filler
    page = Page(text)
    reason = top_ngrams(page, replace(QualityThresholds(), max_top_ngrams=[0.0]))
    assert reason is not None and float(reason.split()[0]) == pytest.approx(covered / page.word_characters, rel=0.01)


def test_rule_names():
    assert "c4.terminal_punctuation" not in chosen(["c4"], [])
    assert chosen(["fineweb.newlines", "gopher_repetition"], ["gopher_repetition.top_ngrams"]) == [
        "gopher_repetition.duplicate_lines",
        "gopher_repetition.duplicate_paragraphs",
        "gopher_repetition.duplicate_ngrams",
        "fineweb.newlines",
    ]
    with pytest.raises(TriviumError, match="'c4.sentence'; did you mean 'c4.sentences'"):
        chosen(["c4.sentence"], [])
    with pytest.raises(TriviumError, match="did you mean 'fineweb'"):
        chosen(["c4"], ["finewed"])


def test_words():
    assert words("Don't stop, now!") == ["Don't", "stop,", "now!"]
    assert words("我们用Python写。") == ["我", "们", "用", "Python", "写。"]
    assert plain_words("Don’t STOP, Ｎow! 我们") == ["don", "t", "stop", "now", "我", "们"]
    assert [
        is_unspaced(text)
        for text in (GOOD, CHINESE, "ภาษาไทยไม่เว้นวรรค", "これは日本語です", "한국어 문장", "The 渡船 ferry", "")
    ] == [False, True, True, True, False, False, False]


PAGE = (
    "<html><head><title>T</title><script>alert(1)</script></head>"
    "<body><nav><a href='/'>Home</a> <a href='/b'>Buy now</a></nav><main><article><h1>The ferry</h1>"
    + "".join(f"<p>{line}</p>" for line in GOOD.split("\n"))
    + "</article></main><footer>Copyright 1999. Cookie settings.</footer></body></html>"
)


@pytest.mark.parametrize("profile", ["accurate", "fast"])
def test_extraction_finds_the_article(profile):
    text, how = extract(PAGE, profile)
    assert how == {"accurate": "trafilatura", "fast": "resiliparse"}[profile]
    assert all(line in text for line in GOOD.split("\n"))
    assert not any(noise in text for noise in ("Buy now", "Cookie settings", "alert"))


@pytest.mark.parametrize("profile", ["accurate", "fast"])
@pytest.mark.parametrize("html", ["", "<html></html>", "<p></p>", "\0", "<" * 2000, "<div>" * 3000])
def test_hostile_pages_give_nothing(profile, html):
    assert extract(html, profile)[0] in (None, "<" * 2000)


def test_the_other_extractor_is_the_fallback():
    assert extract("<html><body><div>Words and no more of them here.</div></body></html>", "fast")[1] in (
        "trafilatura (found_nothing)", "resiliparse")
    text, how = extract(PAGE, "accurate", limits=ExtractionLimits(tags=3))
    assert "twice a day" in text and how == "resiliparse (too_many_tags)"


def test_tidy():
    assert tidy("a  \n\n\n\nb\0\n") == "a\n\nb"


@given(st.text(st.characters(codec="ascii")))
def test_the_fast_way_to_plain_words_finds_those_of_the_slow_one(text: str) -> None:
    assert plain_words(text) == PLAIN_WORD.findall(visible(text).casefold())


@given(st.lists(st.sampled_from(["a", "of", "the", "river", "river's"]), max_size=40), st.integers(1, 8))
def test_runs_of_words_are_counted_by_their_hashes_as_by_the_words(parts: list[str], n: int) -> None:
    runs = Counter(tuple(parts[k:k + n]) for k in range(len(parts) - n + 1))
    longest = max((sum(map(len, run)) for run in runs), default=0)
    assert Page(" ".join(parts)).most_frequent(n) == (max(runs.values(), default=0), longest)
