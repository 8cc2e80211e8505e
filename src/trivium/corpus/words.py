"""Words, in scripts with and without spaces.

Chinese, Japanese, Thai and their like do not mark words by spaces. There every character counts as one word, so that
one document may mix scripts and a rule that counts words need not know the language.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from hashlib import blake2b

import numpy as np

from trivium.corpus.scripts import COMPLEX, HAN_AND_KANA, INVISIBLE, MARKS, UNSPACED, WORD_SPACES, split

_WORD = re.compile(rf"[{UNSPACED}][^\w\s]*|[^\s{UNSPACED}{WORD_SPACES}]+")
_ON = (f"[{split(MARKS)[0]}{split(INVISIBLE)[0]}"
       "\U00010d24-\U00010d27\U00011100-\U00011102\U00011127-\U00011134\U0001e944-\U0001e94a"  # living scripts' marks
       "\U000e0000-\U000e0fff]")
PLAIN_WORD = re.compile(
    rf"[^\W{UNSPACED}]+(?:{_ON}+[^\W{UNSPACED}]*)*|[{HAN_AND_KANA}\ua000-\ua4cf]|[{COMPLEX}](?<=\w){_ON}*")
"""A word with the marks upon its letters and with what stands in it unseen, or one letter of an unspaced script."""
_MARKED, _UNMARKED_WORD = re.compile(f"[{COMPLEX}]|{_ON}"), re.compile(rf"[^\W{UNSPACED}]+|[{UNSPACED}]")
"""Text without marks and without letters that bear them has the same words by a pattern that is faster."""
_UNSPACED, _COMPLEX = re.compile(f"[{UNSPACED}]"), re.compile(f"[{COMPLEX}]")
_INVISIBLE = re.compile(f"[{INVISIBLE}]+")
_UNSEEN_LETTERS = re.compile(  # those of them that Python calls printable
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]")
_ASCII_WORDS = str.maketrans(
    {character: character if character.isalnum() or character == "_" else
     "" if _INVISIBLE.match(character) else " " for character in map(chr, range(128))})


def words(text: str) -> list[str]:
    """The words with their punctuation: what stands between spaces, or one character of an unspaced script."""
    return text.split() if text.isascii() else _WORD.findall(text)


def visible(text: str) -> str:
    """The text without the characters that are not seen, as texts are compared and judged; a text that is written out
    keeps them, for Persian and Hindi are misspelt without."""
    if text.replace("\n", " ").isprintable() and not _UNSEEN_LETTERS.search(text):  # ten times as fast, and most texts
        return text
    return _INVISIBLE.sub("", text)


def plain_words(text: str) -> list[str]:
    """The words alone, without case, width, punctuation or unseen characters: what two versions of one text have in
    common."""
    if text.isascii():  # the same words, three times as fast
        return text.lower().translate(_ASCII_WORDS).split()
    text = unicodedata.normalize("NFKC", visible(text)).casefold()
    return (PLAIN_WORD if _MARKED.search(text) else _UNMARKED_WORD).findall(text)


def is_unspaced(text: str) -> bool:
    """Whether at least half of the letters belong to a script without spaces."""
    if text.isascii():
        return False
    return 2 * len(_UNSPACED.findall(text)) >= max(1, sum(map(str.isalpha, text)))


def characters_a_word(text: str) -> int:
    """How many of what :func:`words` finds make about a word: 1 where words are spaced, 2 in Chinese and Japanese, 4 in
    Thai and its like."""
    if not is_unspaced(text):
        return 1
    return 4 if 2 * len(_COMPLEX.findall(text)) > len(_UNSPACED.findall(text)) else 2


class _Hashes(dict[str, int]):
    """Words that were met, with their hashes; a common word is looked up, not computed."""

    most = 1 << 18

    def __missing__(self, word: str) -> int:
        if len(self) >= self.most:
            self.clear()
        found = self[word] = int.from_bytes(
            blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
        return found


_hashes = _Hashes()


def word_hash(word: str) -> int:
    """64 bits that are the same in every process, as Python's own ``hash`` is not."""
    return _hashes[word]


def word_hashes(parts: list[str]) -> np.ndarray:
    """:func:`word_hash` of each word: uint64 [words]."""
    return np.fromiter(map(_hashes.__getitem__, parts), np.uint64, len(parts))


def plain_hashes(texts: Iterable[str]) -> list[np.ndarray]:
    """:func:`word_hashes` of each text's :func:`plain_words`."""
    return [word_hashes(plain_words(text)) for text in texts]


def ngram_hashes(hashes: np.ndarray, n: int) -> np.ndarray:
    """A 64-bit hash for every run of ``n`` words, a polynomial in the words' hashes: uint64 [words - n + 1]."""
    count = len(hashes) - n + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    total = np.zeros(count, np.uint64)
    for k in range(n):
        total = total * np.uint64(0x9E3779B97F4A7C15) + hashes[k:k + count]
    return mix(total)


def mix(z: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea & Flood 2014): spreads every bit of uint64 values over all 64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = z ^ (z >> np.uint64(31))
    return mixed
