"""Sums of small numbers, and counting letters, words and things: exercises with one number as the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trivium.data.exercises.material import LETTERED, THINGS, TOPICS
from trivium.files import Row

SUMS = {"en": ("What is {sum}?", "Work out {sum}.", "{sum} = ?", "Please calculate {sum}.", "How much is {sum}?"),
        "zh": ("{sum}等于多少？", "请计算{sum}。", "{sum} = ？", "算一算：{sum}是多少？")}
LETTERS = {"en": ("How many times does the letter {letter} occur in \"{text}\"?",
                  "Count the letter {letter} in \"{text}\"."),
           "zh": ("“{text}”里有几个字母 {letter}？", "数一数：字母 {letter} 在“{text}”中出现几次？")}
WORDS = {"en": ("How many words are there in this list of words: {text}?", "Count the words: {text}"),
         "zh": ("“{text}”一共有几个字？", "数一数这句话有几个字：{text}")}
ITEMS = {"en": ("Here are {text}. How many things are there altogether?",
                "On the table lie {text}. How many things lie there?"),
         "zh": ("桌上有{text}。一共有多少件东西？", "这里有{text}，总共多少件？")}


def pick(rng: np.random.Generator, among: Sequence[Any]) -> Any:
    """One of several."""
    return among[int(rng.integers(len(among)))]


def between(rng: np.random.Generator, low: int, high: int) -> int:
    """A whole number, both ends possible."""
    return int(rng.integers(low, high + 1))


def asked(rng: np.random.Generator, wordings: dict[str, Any], language: str, answer: int, **given: str) -> Row:
    """A row with its question, answer and check; its ``key`` is what is asked, however it is worded."""
    return {"prompt": pick(rng, wordings[language]).format(**given), "check": "number", "answer": str(answer),
            "key": " ".join(given.values())}


def sums(rng: np.random.Generator, language: str, difficulty: int) -> Row:
    """Two numbers of two digits: added or, the larger first, subtracted (difficulty 1); any order, and times one digit
    (2); times two digits, and three numbers (3)."""
    a, b = between(rng, 10, 99), between(rng, 10, 99)
    ways = ["+", "-"] + (["×"] if difficulty > 1 else []) + (["++"] if difficulty > 2 else [])
    way = pick(rng, ways)
    if way == "++":
        c = between(rng, 10, 99)
        return asked(rng, SUMS, language, a + b - c, sum=f"{a} + {b} - {c}")
    if way == "×" and difficulty < 3:
        b = between(rng, 2, 9)
    if way == "-" and difficulty < 2:
        a, b = max(a, b), min(a, b)
    if way == "-":
        return asked(rng, SUMS, language, a - b, sum=f"{a} - {b}")
    made = asked(rng, SUMS, language, a * b if way == "×" else a + b, sum=f"{a} {way} {b}")
    return made | {"key": f"{min(a, b)} {way} {max(a, b)}"}


def letters(rng: np.random.Generator, language: str, difficulty: int) -> Row:
    """How often a letter stands in a word; in two or three words where it is harder."""
    word = " ".join(pick(rng, LETTERED) for _ in range(difficulty))
    letter = pick(rng, sorted(set(word.replace(" ", ""))))
    return asked(rng, LETTERS, language, word.count(letter), text=word, letter=letter)


def words(rng: np.random.Generator, language: str, difficulty: int) -> Row:
    """How many words a list has; in Chinese, how many characters a phrase has."""
    if language == "zh":
        text = "".join(pick(rng, TOPICS["zh"]) for _ in range(difficulty))
        return asked(rng, WORDS, language, len(text), text=text)
    chosen = [pick(rng, LETTERED) for _ in range(between(rng, 2, 3 + 4 * difficulty))]
    return asked(rng, WORDS, language, len(chosen), text=" ".join(chosen))


def items(rng: np.random.Generator, language: str, difficulty: int) -> Row:
    """How many things there are of several kinds together."""
    kinds = [THINGS[language][place] for place in rng.permutation(len(THINGS[language]))[:difficulty + 1]]
    counts = [between(rng, 2, 5 * difficulty + 4) for _ in kinds]
    each = [f"{count} {kind}" if language == "en" else f"{count}件{kind}"
            for count, kind in zip(counts, kinds, strict=True)]
    text = f"{', '.join(each[:-1])} and {each[-1]}" if language == "en" else "、".join(each[:-1]) + "和" + each[-1]
    return asked(rng, ITEMS, language, sum(counts), text=text)
