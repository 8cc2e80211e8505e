"""Instructions that code can check: each of the 25 kinds kept and broken, strictly and loosely."""

from __future__ import annotations

import re

import pytest

from trivium.errors import TriviumError
from trivium.evaluation.checkers import Checker
from trivium.evaluation.instructions.checks import KINDS
from trivium.evaluation.instructions.counting import count_capital_words, count_sentences, count_words
from trivium.evaluation.instructions.following import fault, share, verdicts

ENGLISH = "the ferry leaves in the morning and comes back when it is dark"

EXAMPLES = [
    ("keywords:existence", {"keywords": ["Kettle", "spoon"]}, "A kettle and two spoons.", "A kettle alone."),
    ("keywords:frequency", {"keyword": "rain ", "frequency": 3, "relation": "at least"}, "Rain, rain, raincoat.",
     "Rain and rain."),
    ("keywords:frequency", {"keyword": "rain", "frequency": 2, "relation": "less than"}, "One rain.", "Rain, rain."),
    ("keywords:forbidden_words", {"forbidden_words": ["cat", "下雨"]}, "A category.", "The CAT sat."),
    ("keywords:forbidden_words", {"forbidden_words": ["cat", "下雨"]}, "天晴。", "今天下雨了。"),
    ("keywords:letter_frequency", {"letter": "z", "let_frequency": 2, "let_relation": "at least"}, "Zigzag", "Zoo"),
    ("keywords:letter_frequency", {"letter": "!", "let_frequency": 2, "let_relation": "less than"}, "Go!", "Go!!"),
    ("language:response_language", {"language": "de"}, "Der Hund schläft unter dem Tisch und träumt von Knochen.",
     "The dog sleeps under the table and dreams of bones."),
    ("language:response_language", {"language": "zh-cn"}, "渡船每天早上开。", "フェリーは毎朝出ます。"),
    ("length_constraints:number_sentences", {"num_sentences": 3, "relation": "at least"},
     "Dr. Lee left at 5 p.m. on Monday. Why? Nobody knows!", "Dr. Lee left at 5 p.m. on Monday. Nobody knows!"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "one\n***\ntwo\n***", "one\n\ntwo"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "one *** two", "one\n***\n***\ntwo"),
    ("length_constraints:number_words", {"num_words": 4, "relation": "less than"}, "well-made, then", "a b c, d"),
    ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Tea"},
     "Coffee first.\n\n\"tea, then.", "Coffee first.\n\nthen tea."),
    ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 2, "nth_paragraph": 1, "first_word": "tea"},
     "Tea's hot\n\nnow", "Tea's hot\n\nnow\n\nthen"),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "Dear [name], on [day]", "Dear [name\nday]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\np. s. I forgot.", "Bye. PS I forgot."),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye.\nP.P.S one more", "Bye.\nP.S. one more"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* tea\n  - milk", "* tea\n* milk\n* salt"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, "**bold**\n* tea", "**bold**\n1. tea"),
    ("detectable_format:constrained_response", {}, "Well: My answer is maybe.", "My answer is perhaps."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*one* and **two**", "*one* and * *"),
    ("detectable_format:multiple_sections", {"section_spliter": "Scene", "num_sections": 2},
     "Scene 1 dawn\nScene 2 dusk", "Scene 1 dawn\nScene dusk"),
    ("detectable_format:json_format", {}, "```json\n{\"tea\": [1, 2]}\n```", "{'tea': 1}"),
    ("detectable_format:json_format", {}, "[]", "Here it is: []"),
    ("detectable_format:title", {}, "<<Rain>>\nIt rains.", "<< >>\nIt rains."),
    ("combination:two_responses", {}, "Tea. ****** Coffee.", "Tea.****** Tea."),
    ("combination:two_responses", {}, "Tea.\n******\nCoffee.\n******", "Tea. ****** Coffee. ****** Milk."),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Name a river."}, " name a river. The Rhone.", "The Rhone."),
    ("startend:end_checker", {"end_phrase": "That is all."}, "Rain. \"That is ALL.\"", "That is all. Rain."),
    ("startend:quotation", {}, " \"Rain.\" ", "\"Rain.\" he said"),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"},
     "STOP and GO", "STOP and Go"),
    ("change_case:capital_word_frequency", {"capital_frequency": 1, "capital_relation": "less than"},
     "nothing Here", "a B"),
    ("change_case:english_capital", {}, f"{ENGLISH.upper()}.", f"{ENGLISH.capitalize()}."),
    ("change_case:english_capital", {}, f"{ENGLISH.upper()}.", "DER HUND SCHLÄFT UNTER DEM TISCH UND TRÄUMT."),
    ("change_case:english_lowercase", {}, f"{ENGLISH}.", f"{ENGLISH.capitalize()}."),
    ("punctuation:no_comma", {}, "Tea; milk.", "Tea, milk."), ("punctuation:no_comma", {}, "茶。", "茶，奶。"),
]


def row(kind, given):
    return {"instruction_id_list": [kind], "kwargs": [given]}


@pytest.mark.parametrize(("kind", "given", "kept", "broken"), EXAMPLES)
def test_each_kind_kept_and_broken(kind, given, kept, broken):
    asked = row(kind, given)
    assert fault(asked) == ""
    assert verdicts(asked, kept) == verdicts(asked, kept, loose=True) == [True]
    assert verdicts(asked, broken) == [False]
    assert verdicts(asked, " \n") == verdicts(asked, "", loose=True) == [False]


def test_every_kind_has_an_example():
    assert len(KINDS) == 25 and {kind for kind, *_ in EXAMPLES} == set(KINDS)


@pytest.mark.parametrize(("kind", "given", "text"), [
    ("startend:quotation", {}, "Sure, here you are:\n\"Rain.\""),
    ("startend:end_checker", {"end_phrase": "That is all."}, "Rain. That is all.\nCan I help further?"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "name a river."}, "**Name a river.**\nThe Rhone."),
    ("detectable_format:json_format", {}, "Of course!\n[1]\nI hope this helps."),
])
def test_loosely_the_first_and_last_line_and_asterisks_do_not_count(kind, given, text):
    asked = row(kind, given)
    assert (verdicts(asked, text), verdicts(asked, text, loose=True)) == ([False], [True])


@pytest.mark.parametrize(("text", "sentences"), [
    ("", 0), ("One", 1), ("One. Two", 2), ("Mr. Fox met Mrs. Hen. They talked.", 2), ("He paid $3.50. It was fair.", 2),
    ("See example.com for more.", 1), ("Wait... what?", 1), ("“Go!” she said. He went.", 3), ("It is 3 p.m. now.", 1),
    ("J. K. Hall wrote it.", 1), ("Use e.g. tea.", 2), ("今天下雨。明天晴！后天呢？", 3), ("一句", 1),
    ("1. First thing\n2. Second thing", 3)])
def test_sentences(text, sentences):
    """As NLTK's Punkt counts them, but for the Chinese ones, where it sees one."""
    assert count_sentences(text) == sentences


def test_words_and_capitals():
    assert count_words("Don't stop well-made things, 3.5 of_them!") == 9
    assert count_words("今天 5 点 OK") == 5 and count_words("tea and 茶 please") == 4
    assert count_capital_words("DON'T STOP, MP3-CD: A b C3PO x. Go U.S.A. NASA/ESA") == 8


@pytest.mark.parametrize(("asked", "said"), [
    ({}, "instruction_id_list is missing"), ({"instruction_id_list": ["a:b"]}, "kwargs must be a list of 1 mapping"),
    (row("startend:quotatoin", {}), "no instruction 'startend:quotatoin'.*startend:quotation"),
    (row("keywords:existence", {}), "needs 'keywords'"),
    (row("keywords:existence", {"keywords": []}), "give a list of words"),
    (row("keywords:frequency", {"keyword": "a", "frequency": 2.5, "relation": "at least"}), "2.5; give a whole number"),
    (row("keywords:frequency", {"keyword": "a", "frequency": 2, "relation": "more"}), "write less than or at least"),
    (row("keywords:letter_frequency", {"letter": "ab", "let_frequency": 1, "let_relation": "at least"}), "one letter"),
    (row("language:response_language", {"language": "xx"}), "give the code of a language"),
    (row("startend:quotation", {"end_phrase": "x"}), "takes no 'end_phrase'"),
    (row("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "a"}),
     "nth_paragraph is 3, of 2 paragraphs")])
def test_what_cannot_be_checked_is_told(asked, said):
    with pytest.raises(TriviumError, match=f"prompt 'p7'.*{said}" if "instruction_id_list" in asked else "p7"):
        Checker("instructions").suits([{"id": "p7", **asked}])
    assert re.search(said, fault(asked))


def test_arguments_that_are_null_are_left_out_and_the_checker_gives_the_share():
    asked = {"id": "p", "instruction_id_list": ["punctuation:no_comma", "startend:quotation"],
             "kwargs": [{"num_words": None, "relation": None}, {}]}
    Checker("instructions").suits([asked])
    assert share(asked, "no comma here") == 0.5
    assert Checker("instructions")(asked, ["\"tea\"", "tea, milk"]) == [1.0, 0.0]
