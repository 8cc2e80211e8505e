"""The 25 kinds of instruction of IFEval (Zhou et al. 2023, table 1), each as a function of a response."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from trivium.corpus.languages import among
from trivium.evaluation.instructions.counting import count_capital_words, count_sentences, count_words

LANGUAGES = ("af", "ar", "bg", "bn", "ca", "cs", "cy", "da", "de", "el", "en", "es", "et", "fa", "fi", "fr", "gu", "he",
             "hi", "hr", "hu", "id", "it", "ja", "kn", "ko", "lt", "lv", "mk", "ml", "mr", "ne", "nl", "no", "pa", "pl",
             "pt", "ro", "ru", "sk", "sl", "so", "sq", "sv", "sw", "ta", "te", "th", "tl", "tr", "uk", "ur", "vi", "zh")
"""The languages between which a response's is chosen: those that IFEval's own identifier (langdetect) knows."""
RELATIONS = ("less than", "at least")
EITHER = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
"""What `constrained_response` asks for."""


def compare(count: int, relation: str, number: int) -> bool:
    """Whether a count is as a relation of :data:`RELATIONS` has it."""
    return count < number if relation == RELATIONS[0] else count >= number


def existence(text: str, keywords: Sequence[str]) -> bool:
    """Every keyword stands in it, in any case, within words too."""
    return all(word.lower() in text.lower() for word in keywords)


def frequency(text: str, keyword: str, frequency: int, relation: str) -> bool:
    """How often a keyword stands in it, in any case, within words too."""
    return compare(text.lower().count(keyword.strip().lower()), relation, frequency)


def forbidden_words(text: str, forbidden_words: Sequence[str]) -> bool:
    """None stands in it as a whole word; of Chinese ones, anywhere."""
    return not any(re.search(_whole(word), text, re.IGNORECASE) for word in forbidden_words)


def _whole(word: str) -> str:
    def border(letter: str, look: str) -> str:
        return look if re.match(r"\w", letter) and not re.match("[\u3040-\u30ff\u3400-\u9fff]", letter) else ""
    return border(word[:1], r"(?<!\w)") + re.escape(word) + border(word[-1:], r"(?!\w)")


def letter_frequency(text: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    """How often a letter or another character stands in it, in any case."""
    return compare(text.lower().count(letter.lower()), let_relation, let_frequency)


def response_language(text: str, language: str) -> bool:
    """It is in a language; a text without letters may be in any."""
    return not any(map(str.isalpha, text)) or among(text, LANGUAGES) == language[:2]


def number_sentences(text: str, num_sentences: int, relation: str) -> bool:
    """How many sentences it has."""
    return compare(count_sentences(text), relation, num_sentences)


def number_paragraphs(text: str, num_paragraphs: int) -> bool:
    """It has so many paragraphs with ``***`` between them, none of them empty."""
    parts = re.split(r"\s?\*\*\*\s?", text)
    return all(part.strip() for part in parts[1:-1]) and sum(bool(part.strip()) for part in parts) == num_paragraphs


def number_words(text: str, num_words: int, relation: str) -> bool:
    """How many words it has."""
    return compare(count_words(text), relation, num_words)


def nth_paragraph_first_word(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """It has so many paragraphs with blank lines between them, and one begins with a word."""
    parts = text.split("\n\n")
    if sum(bool(part.strip()) for part in parts) != num_paragraphs or nth_paragraph > num_paragraphs:
        return False
    words = parts[nth_paragraph - 1].split()
    found = words[0].lstrip("'").lstrip('"') if words else ""
    return bool(words) and re.split(r"[.,?!'\"]", found)[0].lower() == first_word.lower()


def number_placeholders(text: str, num_placeholders: int) -> bool:
    """It has at least so many placeholders such as ``[name]``."""
    return len(re.findall(r"\[[^\n\]]*\]", text)) >= num_placeholders


def postscript(text: str, postscript_marker: str) -> bool:
    """It has a postscript that begins with ``P.S.`` or ``P.P.S``."""
    marker = postscript_marker.strip()
    pattern = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}.get(marker, re.escape(marker.lower()))
    return re.search(pattern, text.lower()) is not None


def number_bullet_lists(text: str, num_bullets: int) -> bool:
    """It has exactly so many points that begin with ``*`` or ``-``."""
    stars = re.findall(r"^[^\S\n]*\*[^*].*", text, re.MULTILINE)
    return len(stars) + len(re.findall(r"^[^\S\n]*-", text, re.MULTILINE)) == num_bullets


def constrained_response(text: str) -> bool:
    """It has one of :data:`EITHER`."""
    return any(one in text for one in EITHER)


def number_highlighted_sections(text: str, num_highlights: int) -> bool:
    """At least so many parts are highlighted as ``*this*``; ``**this**`` counts once."""
    single = [part.strip("*") for part in re.findall(r"\*[^\n*]*\*", text)]
    double = [part[2:-2] for part in re.findall(r"\*\*[^\n*]*\*\*", text)]
    return sum(bool(part.strip()) for part in (*single, *double)) >= num_highlights


def multiple_sections(text: str, section_spliter: str, num_sections: int) -> bool:
    """It has at least so many sections, each marked as ``Section 1``."""
    return len(re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", text)) >= num_sections


def json_format(text: str) -> bool:
    """All of it is JSON, in a code block or not."""
    inner = text.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        inner = inner.removeprefix(fence)
    try:
        json.loads(inner.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def title(text: str) -> bool:
    """It has a title, written as ``<<title>>``."""
    for line in text.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if start >= 0 and end > start + 2 and line[start:end + 2].lstrip("<").rstrip(">").strip():
            return True
    return False


def two_responses(text: str) -> bool:
    """It has two different responses with ``******`` between them."""
    parts = [part.strip() for part in text.split("******")]
    if not all(parts[1:-1]):
        return False
    said = [part for part in parts if part]
    return len(said) == 2 and said[0] != said[1]


def repeat_prompt(text: str, prompt_to_repeat: str) -> bool:
    """It begins with the request, in any case."""
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def end_checker(text: str, end_phrase: str) -> bool:
    """It ends with a phrase, in any case; quotation marks around it do not count."""
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def quotation(text: str) -> bool:
    """All of it stands between double quotation marks."""
    inner = text.strip()
    return len(inner) > 1 and inner[0] == inner[-1] == '"'


def capital_word_frequency(text: str, capital_frequency: int, capital_relation: str) -> bool:
    """How many of its words are in capitals."""
    return compare(count_capital_words(text), capital_relation, capital_frequency)


def english_capital(text: str) -> bool:
    """It is English in capitals."""
    return text.isupper() and response_language(text.lower(), "en")


def english_lowercase(text: str) -> bool:
    """It is English without capitals."""
    return text.islower() and response_language(text, "en")


def no_comma(text: str) -> bool:
    """It has no comma, of Chinese width neither."""
    return "," not in text and "，" not in text


@dataclass(frozen=True)
class Kind:
    """A kind of instruction."""

    follows: Callable[..., bool]
    """Of a response and the arguments by their names: whether it is followed."""
    arguments: Mapping[str, type]
    """What must be given: the names as IFEval's ``kwargs`` have them, and what each is: a whole number, a text, a list
    of texts."""


def _kind(follows: Callable[..., bool], **arguments: type) -> Kind:
    return Kind(follows, arguments)


KINDS: dict[str, Kind] = {
    "keywords:existence": _kind(existence, keywords=list),
    "keywords:frequency": _kind(frequency, keyword=str, frequency=int, relation=str),
    "keywords:forbidden_words": _kind(forbidden_words, forbidden_words=list),
    "keywords:letter_frequency": _kind(letter_frequency, letter=str, let_frequency=int, let_relation=str),
    "language:response_language": _kind(response_language, language=str),
    "length_constraints:number_sentences": _kind(number_sentences, num_sentences=int, relation=str),
    "length_constraints:number_paragraphs": _kind(number_paragraphs, num_paragraphs=int),
    "length_constraints:number_words": _kind(number_words, num_words=int, relation=str),
    "length_constraints:nth_paragraph_first_word": _kind(nth_paragraph_first_word, num_paragraphs=int,
                                                         nth_paragraph=int, first_word=str),
    "detectable_content:number_placeholders": _kind(number_placeholders, num_placeholders=int),
    "detectable_content:postscript": _kind(postscript, postscript_marker=str),
    "detectable_format:number_bullet_lists": _kind(number_bullet_lists, num_bullets=int),
    "detectable_format:constrained_response": _kind(constrained_response),
    "detectable_format:number_highlighted_sections": _kind(number_highlighted_sections, num_highlights=int),
    "detectable_format:multiple_sections": _kind(multiple_sections, section_spliter=str, num_sections=int),
    "detectable_format:json_format": _kind(json_format),
    "detectable_format:title": _kind(title),
    "combination:two_responses": _kind(two_responses),
    "combination:repeat_prompt": _kind(repeat_prompt, prompt_to_repeat=str),
    "startend:end_checker": _kind(end_checker, end_phrase=str),
    "startend:quotation": _kind(quotation),
    "change_case:capital_word_frequency": _kind(capital_word_frequency, capital_frequency=int, capital_relation=str),
    "change_case:english_capital": _kind(english_capital),
    "change_case:english_lowercase": _kind(english_lowercase),
    "punctuation:no_comma": _kind(no_comma),
}
"""Every kind, by IFEval's name for it."""
