"""ROUGE, BLEU and chrF beside other programs and beside counting by hand."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium.errors import TriviumError
from trivium.evaluation.checkers import Checker
from trivium.evaluation.overlap import bleu, chrf, longest_common, rouge_1, rouge_2, rouge_l, words

LATIN = st.text(st.sampled_from("ab AB1 -'c."), max_size=24)
CHINESE = st.text(st.sampled_from("软木塞会浮。，ab "), max_size=16)


def test_words_are_characters_where_no_spaces_stand():
    assert words("软木塞会浮，ＡＢＣ 12！") == ["软", "木", "塞", "会", "浮", "abc", "12"]
    assert words("コルクは浮く ガ") == [*"コルクは浮く", "ガ"] and words("코르크는 뜬다") == ["코르크는", "뜬다"]
    assert words("Don't, Café_2") == ["don", "t", "café", "2"] and words("…") == []


@settings(deadline=None)
@given(LATIN, LATIN)
def test_rouge_of_english_is_that_of_rouge_score(text, reference):
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rouge1", "rouge2", "rougeL"])
    theirs = scorer.score(reference, text)
    for name, ours in (("rouge1", rouge_1), ("rouge2", rouge_2), ("rougeL", rouge_l)):
        assert ours(text, reference) == pytest.approx(theirs[name].fmeasure, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(CHINESE, CHINESE)
def test_rouge_counts_what_both_have(text, reference):
    one, two = words(text), words(reference)
    for n, ours in ((1, rouge_1), (2, rouge_2)):
        grams = [[tuple(part[i:i + n]) for i in range(len(part) - n + 1)] for part in (one, two)]
        both = sum(min(grams[0].count(gram), grams[1].count(gram)) for gram in set(grams[0]))
        expected = 2 * both / (len(grams[0]) + len(grams[1])) if both else 0.0
        assert ours(text, reference) == pytest.approx(expected)
    short = one[:7]
    chosen = [[short[i] for i in places] for size in range(len(short) + 1)
              for places in combinations(range(len(short)), size)]

    def within(part):
        rest = iter(two)
        return all(word in rest for word in part)

    assert longest_common(short, two) == max(len(part) for part in chosen if within(part))


def counted_bleu(made, wanted):
    """BLEU of a sentence by its definition: n as long as the text has any, misses smoothed by halves."""
    logs, halves = [], 1.0
    for n in range(1, min(4, len(made)) + 1):
        first, second = (Counter(tuple(part[i:i + n]) for i in range(len(part) - n + 1)) for part in (made, wanted))
        hits = sum((first & second).values())
        if not hits:
            if n == 1:
                return 0.0
            halves *= 2
        logs.append(math.log((hits or 1 / halves) / sum(first.values())))
    brevity = 1.0 if len(made) >= len(wanted) else math.exp(1 - len(wanted) / len(made))
    return brevity * math.exp(sum(logs) / len(logs))


@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from("软木塞会浮"), min_size=1, max_size=9),
       st.text(st.sampled_from("软木塞会浮"), min_size=1, max_size=9))
def test_bleu_is_that_of_its_definition(text, reference):
    expected = counted_bleu(list(text), list(reference))
    assert bleu(text, reference) == pytest.approx(expected, abs=1e-9)


def test_bleu_of_chinese_and_english_is_sacrebleus_own():
    from sacrebleu.metrics.bleu import BLEU
    for tokenizer, made, wanted in (("zh", "软木塞会浮在水上。", "一个软木塞在水上会浮。"), ("13a",
    "A cork floats here.",
                                                                           "A cork floats on water.")):
        theirs = BLEU(tokenize=tokenizer, lowercase=True, effective_order=True).sentence_score(made, [wanted]).score
        assert bleu(made, wanted) == pytest.approx(theirs / 100, abs=1e-9)


@settings(deadline=None)
@given(CHINESE, CHINESE)
def test_all_are_shares_and_one_for_the_same_words(text, reference):
    for score in (rouge_1, rouge_l, bleu, chrf):
        assert 0 <= score(text, reference) <= 1 + 1e-9
        if len(words(text)) > 1:
            assert pytest.approx(1.0) == score(text, text) <= 1.0


def test_chrf_counts_characters_of_any_script():
    from sacrebleu.metrics.chrf import CHRF
    assert chrf("软木塞浮",
    "软木塞会浮") == pytest.approx(CHRF().sentence_score("软木塞浮", ["软木塞会浮"]).score / 100)
    assert chrf("软木塞会浮", "软 木 塞 会 浮") == pytest.approx(1.0) and chrf("石头", "软木塞") == 0.0


@pytest.mark.parametrize("name", ["rouge_1", "rouge_2", "rouge_l", "bleu", "chrf"])
def test_they_are_checkers_with_one_reference_or_several(name):
    checker = Checker(name)
    near, far = checker({"answer": "软木塞会浮起来"}, ["软木塞会浮", "石头沉下去"])
    assert near > 0.5 > far
    assert checker({"answer": ["石头沉下去", "软木塞会浮起来"]}, ["软木塞会浮"]) == [near]
    with pytest.raises(TriviumError, match="needs the field 'answer'"):
        checker.suits([{"id": "p"}])
    with pytest.raises(TriviumError, match=r"prompt 'p': the answer '' is empty or no text; give a text, or a list"):
        checker.suits([{"id": "p", "answer": ""}])
