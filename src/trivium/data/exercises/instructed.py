"""Writing about a topic under instructions that code can check, of the kinds of IFEval in words of our own."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from trivium.data.exercises.material import COMMON, ENDINGS, FORMS, KEYWORDS, TOPICS, content_of
from trivium.data.exercises.numbers import between, pick
from trivium.files import Row

Made = tuple[str, str, dict[str, Any]]
"""What is asked, the kind of instruction, and its arguments as IFEval has them."""
Maker = Callable[[np.random.Generator, str, int], Made]

RELATIONS = {"en": {"less than": "fewer than {n}", "at least": "{n} or more"},
             "zh": {"less than": "少于{n}", "at least": "不少于{n}"}}


def _said(language: str, english: str, chinese: str, kind: str, **arguments: Any) -> Made:
    return (english if language == "en" else chinese), kind, arguments


def _bound(rng: np.random.Generator, language: str, low: int, high: int) -> tuple[str, str, int]:
    """A relation with a number: in words, by name, and the number."""
    relation, number = pick(rng, ("less than", "at least")), between(rng, low, high)
    return RELATIONS[language][relation].format(n=number), relation, number


def _words(rng: np.random.Generator, language: str, difficulty: int) -> Made:
    bound, relation, number = _bound(rng, language, 20, 20 + 20 * difficulty)
    return _said(language, f"Use {bound} words.", f"字数要{bound}个字。", "length_constraints:number_words",
                 num_words=number, relation=relation)


def _sentences(rng: np.random.Generator, language: str, difficulty: int) -> Made:
    bound, relation, number = _bound(rng, language, 3, 3 + 2 * difficulty)
    return _said(language, f"Use {bound} sentences.", f"句子要{bound}句。", "length_constraints:number_sentences",
                 num_sentences=number, relation=relation)


def _paragraphs(rng: np.random.Generator, language: str, difficulty: int) -> Made:
    number = between(rng, 2, 1 + difficulty)
    return _said(language, f"Make it {number} paragraphs and put *** between one and the next.",
                 f"写成{number}段，段与段之间用 *** 隔开。", "length_constraints:number_paragraphs",
                 num_paragraphs=number)


def _first_word(rng: np.random.Generator, language: str, difficulty: int) -> Made:
    number, word = between(rng, 2, 1 + difficulty), pick(rng, KEYWORDS["en"])
    place = between(rng, 1, number)
    return (f"Make it {number} paragraphs, a blank line between any two. Paragraph {place} "
            f"opens with the word {word}.", "length_constraints:nth_paragraph_first_word",
            {"num_paragraphs": number, "nth_paragraph": place, "first_word": word})


def _existence(rng: np.random.Generator, language: str, difficulty: int) -> Made:
    chosen = [KEYWORDS[language][place] for place in rng.permutation(len(KEYWORDS[language]))[:difficulty]]
    return _said(language, f"Let these words occur: {', '.join(chosen)}.", f"文中要出现：{'、'.join(chosen)}。",
                 "keywords:existence", keywords=chosen)


def _frequency(rng: np.random.Generator, language: str, difficulty: int) -> Made:
    word, number = pick(rng, KEYWORDS[language]), between(rng, 2, 1 + difficulty)
    return _said(language, f"Say the word {word} {number} times or more.", f"“{word}”这个词至少出现{number}次。",
                 "keywords:frequency", keyword=word, frequency=number, relation="at least")


def _forbidden(rng: np.random.Generator, language: str, difficulty: int) -> Made:
    chosen = [COMMON[language][place] for place in rng.permutation(len(COMMON[language]))[:difficulty]]
    return _said(language, f"Do without the word{'s' if difficulty > 1 else ''} {', '.join(chosen)}.",
                 f"不要用这些词：{'、'.join(chosen)}。", "keywords:forbidden_words", forbidden_words=chosen)


def _letter(rng: np.random.Generator, language: str, difficulty: int) -> Made:
    letter = pick(rng, "bcdfgklmpvwyz")
    bound, relation, number = _bound(rng, language, 3, 3 + 2 * difficulty)
    return (f"Let the letter {letter} occur {bound} times.", "keywords:letter_frequency",
            {"letter": letter, "let_frequency": number, "let_relation": relation})


def _language(rng: np.random.Generator, language: str, difficulty: int) -> Made:
    if language == "zh":
        return "全部用英文写。", "language:response_language", {"language": "en"}
    name, code = pick(rng, (("Spanish", "es"), ("French", "fr"), ("German", "de"), ("Italian", "it")))
    return f"Write all of it in {name}.", "language:response_language", {"language": code}


def _placeholders(rng: np.random.Generator, language: str, difficulty: int) -> Made:
    number = between(rng, 1, difficulty)
    return _said(language, f"Leave {number} or more blanks to fill in, each as a name in brackets like [date].",
                 f"留出至少{number}处空白，用方括号写出名称，例如[日期]。", "detectable_content:number_placeholders",
                 num_placeholders=number)


def _postscript(rng: np.random.Generator, language: str, difficulty: int) -> Made:
    marker = pick(rng, ("P.S.", "P.P.S")) if language == "en" else "附言："
    return _said(language, f"Add a postscript at the end; it starts with {marker}",
                 f"最后加一句以“{marker}”开头的附言。", "detectable_content:postscript", postscript_marker=marker)


def _bullets(rng: np.random.Generator, language: str, difficulty: int) -> Made:
    number = between(rng, 2, 2 + difficulty)
    return _said(language, f"Give exactly {number} points, each on a line that starts with \"* \".",
                 f"列出正好{number}点，每点一行，以“* ”开头。", "detectable_format:number_bullet_lists",
                 num_bullets=number)


def _highlights(rng: np.random.Generator, language: str, difficulty: int) -> Made:
    number = between(rng, 1, difficulty)
    return _said(language, f"Mark {number} or more places with asterisks, *like this*.",
                 f"至少标出{number}处重点，写成*这样*。", "detectable_format:number_highlighted_sections",
                 num_highlights=number)


def _sections(rng: np.random.Generator, language: str, difficulty: int) -> Made:
    number, name = between(rng, 2, 1 + difficulty), pick(rng, ("Part", "Step", "Scene"))
    return (f"Give it {number} parts, headed {name} 1, {name} 2 and so on.", "detectable_format:multiple_sections",
            {"section_spliter": name, "num_sections": number})


def _fixed(kind: str, english: str, chinese: str = "") -> Maker:
    """An instruction without arguments."""
    return lambda rng, language, difficulty: _said(language, english, chinese, kind)


def _ending(rng: np.random.Generator, language: str, difficulty: int) -> Made:
    phrase = pick(rng, ENDINGS[language])
    return _said(language, f"Your last words are: {phrase}", f"最后一句必须是：{phrase}", "startend:end_checker",
                 end_phrase=phrase)


def _capital_words(rng: np.random.Generator, language: str, difficulty: int) -> Made:
    bound, relation, number = _bound(rng, language, 2, 2 + 2 * difficulty)
    return (f"Put {bound} words in capitals, LIKE THIS.", "change_case:capital_word_frequency",
            {"capital_frequency": number, "capital_relation": relation})


MAKERS: dict[str, tuple[Maker, str, str]] = {
    "words": (_words, "en zh", "length"), "sentences": (_sentences, "en zh", "length"),
    "paragraphs": (_paragraphs, "en zh", "shape"), "first_word": (_first_word, "en", "shape title"),
    "existence": (_existence, "en zh", "keywords"), "frequency": (_frequency, "en zh", "keywords"),
    "forbidden": (_forbidden, "en zh", "forbidden"), "letter": (_letter, "en", "keywords letters"),
    "language": (_language, "en zh", "alone"), "placeholders": (_placeholders, "en zh", "placeholders"),
    "postscript": (_postscript, "en zh", "end"), "bullets": (_bullets, "en zh", "shape"),
    "highlights": (_highlights, "en zh", "shape"), "sections": (_sections, "en", "shape case letters"),
    "ending": (_ending, "en zh", "end forbidden"),
    "constrained": (_fixed(
        "detectable_format:constrained_response", "Do you like it? Choose one of these to answer with: \"My answer is "
        "yes.\", \"My answer is no.\", \"My answer is maybe.\""), "en", "alone"),
    "json": (_fixed("detectable_format:json_format", "Give everything as one JSON object.",
                    "全部内容写成一个 JSON 对象。"), "en zh", "alone"),
    "title": (_fixed("detectable_format:title", "Put a title above it, in double angle brackets, <<like this>>.",
                     "开头写一个标题，放在双尖括号里，例如<<标题>>。"), "en zh", "title"),
    "two": (_fixed("combination:two_responses", "Answer twice, in two different ways, with ****** between the two.",
                   "给出两个不同的回答，中间用 ****** 隔开。"), "en zh", "alone"),
    "quotation": (_fixed("startend:quotation", "Begin and end all of it with a double quotation mark (\").",
                         "全文放在英文双引号 \" 之间。"), "en zh", "end"),
    "capitals": (_capital_words, "en", "case"),
    "upper": (_fixed("change_case:english_capital", "Write everything in English capitals."), "en", "case"),
    "lower": (_fixed("change_case:english_lowercase", "Write everything in English without any capital."), "en",
              "case"),
    "commas": (_fixed("punctuation:no_comma", "Leave out commas altogether.", "全文不要出现逗号。"), "en zh", "commas"),
}
"""Each maker with its languages and what it settles: two instructions that settle the same could not both be followed,
and one that settles ``alone`` stands alone."""


SILENT = {"detectable_format:constrained_response", "language:response_language"}
"""Kinds under which an answer need not name its topic."""


def instructions(rng: np.random.Generator, language: str, difficulty: int) -> Row:
    """A topic with one instruction; of difficulty 2 up to two, of 3 up to three, and larger numbers in them. The row is
    one of IFEval's, with what it is ``about``: words of which a sound answer has one."""
    topic, form = pick(rng, TOPICS[language]), pick(rng, FORMS[language])
    request, made, settled = form.format(topic=topic), list[Made](), set[str]()
    names = [list(MAKERS)[place] for place in rng.permutation(len(MAKERS))]
    if rng.random() < 1 / (len(names) + 1):
        names, made = [], [_repeat(request, language)]
    for name in names:
        maker, languages, settles = MAKERS[name]
        if language not in languages.split() or settled & {*settles.split()} or (settles == "alone" and settled):
            continue
        made.append(maker(rng, language, difficulty))
        settled.update(settles.split())
        if settles == "alone" or len(made) == difficulty:
            break
    kinds, arguments = [kind for _, kind, _ in made], [given for _, _, given in made]
    return {"prompt": (" " if language == "en" else "").join([request, *(said for said, _, _ in made)]),
            "check": "instructions", "instruction_id_list": kinds, "kwargs": arguments,
            "key": json.dumps([topic, *sorted(zip(kinds, map(str, arguments), strict=True))], ensure_ascii=False),
            **({} if SILENT & {*kinds} else {"about": content_of(topic)})}


def _repeat(request: str, language: str) -> Made:
    return _said(language, "But first write this request again, as it stands, up to here.",
                 "不过先把前面这句要求原样写一遍，再回答。", "combination:repeat_prompt", prompt_to_repeat=request)
