"""Which language a text is in, and what the quality rules have to know about it.

Languages are told by py3langid (Lui & Baldwin 2012; Barbaresi's fork), which brings its model along and knows 97 of
them by their ISO 639-1 codes.
"""

from __future__ import annotations

import re
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
                raise TriviumError(f"corpus: language: there is no language {code!r}{nearest(code, known())}")


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
    about), some kana Japanese, Thai letters Thai."""
    start = text[:settings.characters]
    if code := None if start.isascii() else _by_script(start):
        return code, 1.0
    code, probability = _identifier().classify(start)
    return (code if probability >= settings.min_confidence else UNKNOWN), float(probability)


def _by_script(text: str) -> str | None:
    letters = sum(map(str.isalpha, text))
    han, kana, thai = (len(script.findall(text)) for script in (_HAN, _KANA, _THAI))
    if 2 * (han + kana) > letters:
        return "ja" if 20 * kana > han else "zh"
    return "th" if 2 * thai > letters else None


_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_KANA = re.compile("[\u3041-\u3096\u30a1-\u30fa\uff66-\uff9f]")
_THAI = re.compile("[\u0e01-\u0e3a\u0e40-\u0e4e]")

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

DEFAULTS: dict[str, dict[str, float]] = {
    code: {"min_sentences": 3, "min_punctuated_lines": 0.0, "max_ellipsis_lines": 1.0}
    for code in ("zh", "ja", "th", "lo", "km")
}
"""Where a language's thresholds are milder than English's: in scripts without spaces a line's end or a space often
stands for a full stop, and a line that ends in an ellipsis is seldom one that was cut."""
