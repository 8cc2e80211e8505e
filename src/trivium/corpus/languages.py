"""Which language a text is in, and what the quality rules have to know about it.

Languages are told by py3langid (Lui & Baldwin 2012; Barbaresi's fork), which brings its model along and knows 140 of
them by their ISO 639 codes.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

from trivium.errors import TriviumError, extra, nearest

UNKNOWN = "und"
"""The code of a text whose language cannot be told (ISO 639-2)."""


@dataclass(frozen=True)
class LanguageSettings:
    """The identification of languages."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    enabled: bool = True
    """Tell every document's language: it is written beside the text, and the quality rules go by it."""
    keep: list[str] = field(default_factory=list)
    """Codes of the languages to keep, such as [en, zh]; documents in others are rejected. Empty keeps all of them."""
    min_confidence: float = 0.65
    """Least probability of a language; below it a document counts as und, unknown."""
    characters: int = 500
    """How much of a document's beginning is looked at."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_confidence <= 1 or self.characters < 1:
            raise TriviumError(
                f"corpus: language: min_confidence is {self.min_confidence} and characters {self.characters}; one lies "
                "between 0 and 1, the other is at least 1")
        for code in self.keep if self.enabled else ():
            if code not in {*known(), UNKNOWN}:
                raise TriviumError(f"corpus: language: there is no language {code!r}; codes are those of ISO 639, such "
                                   f"as en or zh{nearest(code, known())}")


@lru_cache(maxsize=1)
def _identifier() -> Any:
    with extra("corpus"):
        from py3langid import langid

    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)


@lru_cache(maxsize=1)
def known() -> tuple[str, ...]:
    """The codes of all languages that can be told."""
    return tuple(sorted(_identifier().labels))


def identify(text: str, settings: LanguageSettings) -> tuple[str, float]:
    """The language's code and its probability; ``und`` when that is too low. Where one script belongs to one language,
    the script decides: most Han and next to no kana is Chinese (of any century, which a model of modern text is unsure
    about), some kana Japanese, Thai letters Thai. Languages that differ in a few words only, such as Indonesian and
    Malay, share a text's probability: their sum counts, for the more probable one."""
    start = text[:settings.characters]
    if code := None if start.isascii() else _by_script(start):
        return code, 1.0
    code, probability = _identifier().classify(start)
    if probability < settings.min_confidence and (group := next((group for group in TWINS if code in group), None)):
        probability = sum(share for other, share in _identifier().rank(start) if other in group)
    return (code if probability >= settings.min_confidence else UNKNOWN), float(probability)


def among(text: str, codes: Collection[str], characters: int = 10_000) -> str:
    """The likeliest of some languages for a text, by its first ``characters``. It is told from small letters: capitals
    mislead the identifier."""
    start = text[:characters].lower()
    if (code := None if start.isascii() else _by_script(start)) in codes:
        return str(code)
    return next((code for code, _ in _identifier().rank(start) if code in codes), UNKNOWN)


TWINS = (("id", "ms"), ("bs", "hr", "sr"), ("da", "nn", "no"), ("ar", "ary", "arz"), ("xh", "zu"), ("gl", "pt"),
         ("cs", "sk"))
"""Languages so near to each other that a model hesitates between them."""


def _by_script(text: str) -> str | None:
    letters = sum(map(str.isalpha, text))
    han, kana = len(_HAN.findall(text)), len(_KANA.findall(text))
    if 2 * (han + kana) > letters:
        return "ja" if 20 * kana > han else "zh"
    return next((code for code, script in _SCRIPTS.items() if 2 * len(script.findall(text)) > letters), None)


_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_KANA = re.compile("[\u3041-\u3096\u30a1-\u30fa\uff66-\uff9f]")
_SCRIPTS = {"th": re.compile("[\u0e01-\u0e3a\u0e40-\u0e4e]"), "lo": re.compile("[\u0e80-\u0eff]"),
            "km": re.compile("[\u1780-\u17dd]")}

STOP_WORDS: dict[str, list[str]] = {
    "en": ["the", "be", "to", "of", "and", "that", "have", "with"],
    "de": ["der", "die", "und", "das", "ist", "nicht", "von", "mit", "ein", "zu"],
    "fr": ["le", "la", "de", "et", "les", "des", "que", "est", "un", "une"],
    "es": ["el", "la", "de", "que", "y", "en", "los", "se", "un", "con"],
    "pt": ["o", "a", "de", "que", "e", "do", "da", "em", "um", "com"],
    "it": ["il", "di", "che", "la", "e", "un", "per", "non", "del", "con"],
    "nl": ["de", "het", "een", "van", "en", "is", "dat", "niet", "met", "op"],
    "sv": ["och", "att", "det", "som", "en", "på", "är", "av", "för", "med"],
    "da": ["og", "at", "det", "som", "en", "på", "er", "af", "for", "med"],
    "no": ["og", "å", "det", "som", "en", "på", "er", "av", "for", "med"],
    "pl": ["i", "w", "na", "z", "się", "nie", "do", "to", "że", "jest"],
    "cs": ["a", "v", "se", "na", "je", "že", "to", "s", "z", "do"],
    "ru": ["и", "в", "не", "на", "что", "с", "по", "как", "это", "к"],
    "uk": ["і", "в", "не", "на", "що", "з", "та", "до", "як", "це"],
    "tr": ["ve", "bir", "bu", "da", "de", "için", "ile", "çok", "o", "daha"],
    "id": ["yang", "dan", "di", "ini", "itu", "dengan", "untuk", "dari", "tidak", "pada"],
    "sw": ["na", "ya", "wa", "kwa", "ni", "katika", "za", "la", "hii", "yake"],
    "af": ["die", "en", "van", "is", "het", "in", "nie", "om", "te", "met"],
}
"""Frequent small words of some languages, for Gopher's rule; texts in others are not judged by theirs."""

_OTHERS = {"min_word_length": 2.0, "max_word_length": 14.0, "min_recurring_words": 3}
_UNSPACED = {"min_sentences": 3, "min_punctuated_lines": 0.0, "max_ellipsis_lines": 1.0}
UNSPACED_LANGUAGES = ("zh", "wuu", "yue", "ja", "th", "lo", "km", "my", "dz")
LONG_WORDED = ("am", "eu", "et", "fi", "hu", "ka", "kk", "kn", "ko", "ky", "ml", "mn", "mr", "ne", "qu", "rw", "sa",
               "sn", "ta", "te", "tr", "tt", "ug", "uz", "xh", "zu")
"""Languages that say in three quarters of the words or fewer what English says: by the declaration of human rights,
Malayalam in half, Tamil, Zulu and Finnish in three fifths, Korean in two thirds."""


def defaults(code: str) -> dict[str, float]:
    """Where a language's thresholds are milder than English's. Words of other languages are shorter or longer; some say
    as much in fewer; in scripts without spaces a line's end or a space often stands for a full stop, and a line that
    ends in an ellipsis is seldom one that was cut. A language that cannot be told may be any of them."""
    if code == "en":
        return {}
    if code in UNSPACED_LANGUAGES:
        return _OTHERS | _UNSPACED
    if code in LONG_WORDED:
        return _OTHERS | {"min_words": 30}
    if code == UNKNOWN:
        return {"min_word_length": 2.0, "max_word_length": 18.0, "min_words": 40, "min_recurring_words": 2}
    return _OTHERS
