"""The field's quality rules, each a small pure function that gives ``None`` or a reason.

Gopher (Rae et al. 2021, appendix A), C4 (Raffel et al. 2020, section 2.2) and FineWeb (Penedo et al. 2024). Words are
counted by :mod:`trivium.corpus.words`, so that in Chinese, Japanese or Thai a character counts as a word; rules about
English or about the length of words pass over such texts. What ends a sentence or a line, and what is a letter, goes by
Unicode's properties (:mod:`trivium.corpus.scripts`); characters that are not seen do not count.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cached_property, lru_cache

import numpy as np

from trivium.corpus.scripts import (
    CLAUSE_TERMINAL,
    CLOSING,
    HAN_AND_KANA,
    LINE_ENDS,
    MARKS,
    SENTENCE_TERMINAL,
    SYLLABLES,
    UNSPACED,
    split,
)
from trivium.corpus.thresholds import QualityThresholds
from trivium.corpus.words import characters_a_word, visible, words
from trivium.errors import TriviumError, nearest


class Page:
    """One text and what the rules measure of it, each measured once."""

    def __init__(self, text: str) -> None:
        self.text = text if text.isascii() else visible(text)

    @cached_property
    def words(self) -> list[str]:
        return words(self.text)

    @cached_property
    def lines(self) -> list[str]:
        return [line for line in map(str.strip, self.text.splitlines()) if line]

    @cached_property
    def paragraphs(self) -> list[str]:
        return [part for part in map(str.strip, re.split(r"\n\s*\n", self.text)) if part]

    @cached_property
    def characters_a_word(self) -> int:
        return characters_a_word(self.text)

    @cached_property
    def unspaced(self) -> bool:
        return self.characters_a_word > 1

    @cached_property
    def word_characters(self) -> int:
        return max(1, sum(map(len, self.words)))

    @cached_property
    def _hashes(self) -> np.ndarray:
        return np.fromiter(map(hash, self.words), np.int64, len(self.words)).view(np.uint64)

    @cached_property
    def _lengths(self) -> np.ndarray:
        return np.fromiter(map(len, self.words), np.int64, len(self.words))

    def most_frequent(self, n: int) -> tuple[int, int]:
        """``(how often the most frequent run of n words occurs, characters of the longest run)``, which few texts need
        to know more than; by hashes, as arrays."""
        count = len(self.words) - n + 1
        if count < 1:
            return 0, 0
        runs, lengths = np.zeros(count, np.uint64), np.zeros(count, np.int64)
        for k in range(n):
            runs = runs * _PRIME + self._hashes[k:count + k]
            lengths += self._lengths[k:count + k]
        runs.sort()
        ends = np.flatnonzero(runs[1:] != runs[:-1])
        most = max(ends[0] + 1, count - 1 - ends[-1], (ends[1:] - ends[:-1]).max(initial=0)) if len(ends) else count
        return int(most), int(lengths.max())


@lru_cache(maxsize=1)
def _page(text: str) -> Page:
    return Page(text)  # the families ask about the same text one after another


_PRIME = np.uint64(0x9E3779B97F4A7C15)

Rule = Callable[[Page, QualityThresholds], str | None]

ELLIPSES = ("...", "…", "。。。")
BULLETS = ("•", "‣", "◦", "▪", "●", "·", "*", "-", "–")
TERMINAL = LINE_ENDS | frozenset(";:；：")
_CLAUSE = re.compile(rf"[^\s{split(CLAUSE_TERMINAL)[0]},!?;…~～]{{2,}}")
_SENTENCE_END = re.compile(rf"[.!?…][\"')\]{CLOSING}]*(?=\s|$)|[{split(SENTENCE_TERMINAL)[0]}]+")
_ASCII_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s|$)")
# marks of rarer scripts, and keys that stand for a mark that keyboards lack: a Greek question mark, an Armenian full
# stop, a danda, Ethiopic's
_TYPED_END = re.compile(f"[{split(SENTENCE_TERMINAL)[1]}]+|"
                        r"(?<=[\u0370-\u03ff\u1f00-\u1fff]);(?=\s|$)|(?<=[\u0531-\u0587]):(?=\s|$)"
                        r"|(?<=[\u0900-\u0dff]) ?\|(?=\s|$)|(?<=[\u1200-\u135a])(?:::|\u1361\u1361)")
# says what three letters say: the declaration of human rights has a third to a quarter of the English length
_DENSE = re.compile(f"[{HAN_AND_KANA}\ua000-\ua4cf]")
_SYLLABLE, _MARK = re.compile(f"[{SYLLABLES}]"), re.compile(f"[{MARKS}]")
_BEGINS_SPACED = re.compile(f"[^{UNSPACED}]")


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _above(name: str, value: float, limit: float) -> str | None:
    return f"{value:.3g} {name}, at most {limit:.3g}" if value > limit else None


def _below(name: str, value: float, limit: float) -> str | None:
    return f"{value:.3g} {name}, at least {limit:.3g}" if value < limit else None


# Gopher's quality rules


def word_count(page: Page, t: QualityThresholds) -> str | None:
    return _below("words", len(page.words), t.min_words) or _above("words", len(page.words), t.max_words)


def word_length(page: Page, t: QualityThresholds) -> str | None:
    """A word is long in letters, and short in what they say: a mark upon a letter, such as a vowel of Hindi, counts
    against the least length only, where a character that is a syllable, as in Korean, counts as two letters."""
    spaced = page.words if page.text.isascii() else [word for word in page.words if _BEGINS_SPACED.match(word)]
    if page.unspaced or not spaced:
        return None
    letters, few, many = sum(map(len, spaced)), t.min_word_length, t.max_word_length
    if few * len(spaced) <= letters <= many * len(spaced):
        return None
    long, short = (letters + sign * len(kind.findall(page.text)) for kind, sign in ((_SYLLABLE, 1), (_MARK, -1)))
    return (_below("characters a word", long / len(spaced), few)
            or _above("characters a word", short / len(spaced), many))


def hashes(page: Page, t: QualityThresholds) -> str | None:
    return _above("'#' a word", _share(page.text.count("#"), len(page.words)), t.max_hashes)


def ellipses(page: Page, t: QualityThresholds) -> str | None:
    return _above("ellipses a word", _share(sum(map(page.text.count, ELLIPSES)), len(page.words)), t.max_ellipses)


def bullet_lines(page: Page, t: QualityThresholds) -> str | None:
    bullets = sum(line.startswith(BULLETS) for line in page.lines)
    return _above("of lines begin with a bullet", _share(bullets, len(page.lines)), t.max_bullet_lines)


def ellipsis_lines(page: Page, t: QualityThresholds) -> str | None:
    unfinished = sum(line.endswith(ELLIPSES) for line in page.lines)
    return _above("of lines end in an ellipsis", _share(unfinished, len(page.lines)), t.max_ellipsis_lines)


def letter_words(page: Page, t: QualityThresholds) -> str | None:
    of_letters = sum(map(str.isalpha, page.words))  # most texts pass by these alone, ten times as fast
    if page.words and of_letters / len(page.words) >= t.min_letter_words:
        return None
    with_letter = sum(any(map(str.isalpha, word)) for word in page.words)
    return _below("of words have a letter", _share(with_letter, len(page.words)), t.min_letter_words)


def stop_words(page: Page, t: QualityThresholds) -> str | None:
    if page.unspaced or not t.stop_words:
        return None
    wanted = set(t.stop_words)
    if len(wanted.intersection(page.words)) >= t.min_stop_words:  # most texts pass as their words stand
        return None
    plain = [word.strip(_AROUND).lower() for word in page.words]
    found = len(wanted.intersection(plain))
    if found < t.min_stop_words and t.min_recurring_words:
        return _below("short words recur", _recurring(plain), t.min_recurring_words)
    return _below("stop words", found, t.min_stop_words)


_AROUND = ".,;:!?\"'()«»‹›„“”‘’¿¡…"


def _recurring(plain: list[str]) -> int:
    """How many words do in a text what stop words do, whatever the language: they are no longer than its mean word, and
    one word in fifty, two at least, is such a one."""
    mean = sum(map(len, plain)) / max(1, len(plain))
    return sum(len(word) <= mean and number >= max(2, 0.02 * len(plain)) and any(map(str.isalpha, word))
               for word, number in Counter(plain).items())


# Gopher's repetition rules


def _repeated(parts: list[str]) -> tuple[int, int]:
    """How many parts stood before, and their characters."""
    seen: set[str] = set()
    count = characters = 0
    for part in parts:
        if part in seen:
            count, characters = count + 1, characters + len(part)
        seen.add(part)
    return count, characters


def _duplicates(parts: list[str], kind: str, max_count: float, max_characters: float) -> str | None:
    count, characters = _repeated(parts)
    share = _share(characters, sum(map(len, parts)))
    return (_above(f"of {kind}s are repeated", _share(count, len(parts)), max_count)
            or _above(f"of characters are in repeated {kind}s", share, max_characters))


def duplicate_lines(page: Page, t: QualityThresholds) -> str | None:
    return _duplicates(page.lines, "line", t.max_duplicate_lines, t.max_duplicate_line_characters)


def duplicate_paragraphs(page: Page, t: QualityThresholds) -> str | None:
    return _duplicates(page.paragraphs, "paragraph", t.max_duplicate_paragraphs, t.max_duplicate_paragraph_characters)


def _ngrams(parts: list[str], n: int) -> Iterable[tuple[str, ...]]:
    return zip(*(parts[k:] for k in range(n)), strict=False)


def top_ngrams(page: Page, t: QualityThresholds) -> str | None:
    """Occurrences that overlap, as in a drawn-out "haha…" or in one character written twenty times, share their
    characters: what is measured is the part of the text that the n-gram covers, not its count times its length, which
    may be more than the whole text."""
    for n, limit in enumerate(t.max_top_ngrams, 2):
        size = n * page.characters_a_word
        most, longest = page.most_frequent(size)
        if most < 2:
            return None  # where none repeats, no longer one can
        if most * longest <= limit * page.word_characters:
            continue
        counts = Counter(_ngrams(page.words, size))
        most = max(counts.values())
        ends, covered = dict[tuple[str, ...], int](), Counter[tuple[str, ...]]()
        for start, gram in enumerate(_ngrams(page.words, size)):
            if counts[gram] == most:
                covered[gram] += sum(map(len, page.words[max(start, ends.get(gram, 0)):start + size]))
                ends[gram] = start + size
        if reason := _above(f"of characters are in one {n}-gram", max(covered.values()) / page.word_characters, limit):
            return reason
    return None


def duplicate_ngrams(page: Page, t: QualityThresholds) -> str | None:
    if page.most_frequent(5 * page.characters_a_word)[0] < 2:
        return None
    for n, limit in enumerate(t.max_duplicate_ngrams, 5):
        size = n * page.characters_a_word
        seen: set[tuple[str, ...]] = set()
        covered = characters = 0  # words up to the index ``covered`` are counted already
        for start, gram in enumerate(_ngrams(page.words, size)):
            if gram in seen:
                characters += sum(map(len, page.words[max(start, covered):start + size]))
                covered = start + size
            seen.add(gram)
        if not characters:
            return None  # where no 5-gram repeats, no longer one can
        if reason := _above(f"of characters are in repeated {n}-grams", characters / page.word_characters, limit):
            return reason
    return None


# C4's rules about whole documents; those about lines are in c4.py


def lorem_ipsum(page: Page, t: QualityThresholds) -> str | None:
    return "a placeholder text" if "lorem ipsum" in page.text.lower() else None


def curly_bracket(page: Page, t: QualityThresholds) -> str | None:
    return "'{' is of code, not prose" if "{" in page.text else None


def sentences(page: Page, t: QualityThresholds) -> str | None:
    if page.unspaced:  # clauses: a comma, a space or a line's end separates what English would put into sentences
        return _below("clauses", len(_CLAUSE.findall(page.text)), t.min_sentences)
    if page.text.isascii():
        return _below("sentences", len(_ASCII_SENTENCE_END.findall(page.text)), t.min_sentences)
    number = len(_SENTENCE_END.findall(page.text))
    if number < t.min_sentences:
        number += len(_TYPED_END.findall(page.text))
    return _below("sentences", number, t.min_sentences)


# FineWeb's rules


def punctuated_lines(page: Page, t: QualityThresholds) -> str | None:
    punctuated = sum(line[-1] in TERMINAL or (line[-1] in "|\u1361" and _TYPED_END.search(line[-3:]) is not None)
                     for line in page.lines)
    return _below("of lines end in punctuation", _share(punctuated, len(page.lines)), t.min_punctuated_lines)


def short_lines(page: Page, t: QualityThresholds) -> str | None:
    short = sum(len(line) <= t.short_line and (line.isascii() or _said(line) <= t.short_line) for line in page.lines)
    return _above("of lines are short", _share(short, len(page.lines)), t.max_short_lines)


def _said(line: str) -> int:
    """The line's length, where one of Chinese or Japanese counts as three characters and a syllable as two."""
    return len(line) + 2 * len(_DENSE.findall(line)) + len(_SYLLABLE.findall(line))


def repeated_lines(page: Page, t: QualityThresholds) -> str | None:
    return _above("of characters are in repeated lines", _share(_repeated(page.lines)[1], sum(map(len, page.lines))),
                  t.max_repeated_line_characters)


def newlines(page: Page, t: QualityThresholds) -> str | None:
    return _above("line breaks a word", _share(page.text.count("\n"), len(page.words)), t.max_newlines)


FAMILIES: dict[str, list[Rule]] = {
    "gopher_repetition": [duplicate_lines, duplicate_paragraphs, top_ngrams, duplicate_ngrams],
    "gopher_quality": [word_count, word_length, hashes, ellipses, bullet_lines, ellipsis_lines, letter_words,
                       stop_words],
    "c4": [lorem_ipsum, curly_bracket, sentences],
    "fineweb": [punctuated_lines, short_lines, repeated_lines, newlines],
}
RULES: dict[str, Rule] = {f"{family}.{rule.__name__}": rule for family, rules in FAMILIES.items() for rule in rules}
LINE_RULES = ["c4.long_word", "c4.short_line", "c4.terminal_punctuation", "c4.javascript", "c4.policy"]
BY_NAME_ONLY = {"c4.terminal_punctuation"}  # it drops good lines from many pages: part of no family


def chosen(rules: list[str], without: list[str]) -> list[str]:
    """The names of all rules that ``rules`` asks for, families spelt out, less those in ``without``, in their order."""
    every = [*RULES, *LINE_RULES]
    for name in (*rules, *without):
        if name not in every and name not in FAMILIES:
            raise TriviumError(f"corpus: there is no quality rule {name!r}{nearest(name, [*every, *FAMILIES])}")
    wanted = {rule for rule in every if rule in rules or (rule.split(".")[0] in rules and rule not in BY_NAME_ONLY)}
    return [rule for rule in every if rule in wanted and rule not in without and rule.split(".")[0] not in without]


def check(text: str, rules: list[str], thresholds: QualityThresholds) -> str | None:
    """The first of the named rules that the text breaks, as ``rule: what was found``."""
    page = _page(text)
    for name in rules:
        if reason := RULES[name](page, thresholds):
            return f"{name}: {reason}"
    return None
