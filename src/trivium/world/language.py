"""The town's language: which words it has, and what of its grammar can be told without understanding.

The words are those of every text that the town is written from, so there is no list to keep; a name counts only where
somebody has said it, in the prompt or its truth. Anything else is a word that exists nowhere, such as "gladlyly".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import cache
from typing import Any

from trivium.world import answers, documents, exercises, phrases, questions, scenes, tasks, town

WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
"""A word: letters, with apostrophes inside."""

ALSO = (
    "review customer says that step by the answer is both they two sentences if read them well use write result "
    "value gives larger smaller number length sum first item last word joined with because total so many items are in "
    "list how begins ends longer shorter heavier lighter against lamps coins pears boats apples",
    "metre meter meters centimetre centimeter centimeters kilogram kilos m cm kg two "
    "three four five six seven",
    "can't won't don't doesn't isn't aren't i'm it's that's you're they're we're i'll helper's",
    "different differ differs opposite opposites assist tell explain do must may cannot will sorry true false",
)
"""Words of the town that stand inside code, other spellings of units and numbers, contractions, and what else the
rubric lets somebody say."""

VERBLESS = 6
"""A sentence of so many words has a verb."""

_VERBS = (
    "am is are was were be been has have had do does did can cannot could will would must may might should let began "
    "ask asks tell tells say says said mean means give gives make makes made get gets go goes come comes came went "
    "use write type take takes see find finds found look looks know knows knew think thought thank thanks help helps "
    "hope like likes love loves prefer prefers order orders keep keeps own owns share shares work works live lives "
    "sleep sleeps eat eats feed feeds weigh weighs measure measures grow grows reach reaches taste tastes lie lies "
    "stand stands need needs earn earns enjoy enjoyed stay rest wish remember told learn took call called read cook "
    "cooked need wait sit return returns evaluates want wants seem seemed plus remembers prints add can't won't don't "
    "doesn't isn't it's i'm i'll you're they're we're that's aren't visit closed shut opened mended repaired "
    "broke bought purchased sold lost discovered finished completed raised lifted lowered buy answer please "
    "pleases explain stopped ate leads waited burned sat woke wanted slept see welcome")
VERBS = frozenset(_VERBS.split())
"""What a whole sentence of the town has one of, at least."""

_FAULTS = re.compile(
    r"\b(they|we|you) (is|has|was|does)\b|(?<!and )\bi (is|are|has|does)\b|\b(he|she|it) (are|am)\b|"
    r"\ban (?![aeioh`\"])\w+|\ba (?!one\b)[aeio]\w+|\b(is|are|am) (is|are|am|has|have|does)\b|"
    r"\b(my|your|its) (my|your|its|the|a|is|are)\b|\b(i|we|they|he|she) (i|we|you|they|he|she|the|a|an)\b|"
    r"\b(cannot|will|must|can) (is|are|am|has|the|a|of)\b")
"""Verbs that do not agree, articles before the wrong sound, and pairs of words of which one is too many."""


def texts_in(value: object) -> Iterator[str]:
    """Every text in nested tuples, lists, sets and mappings; of a mapping, its values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from texts_in(inner)
    elif isinstance(value, (tuple, list, frozenset)):
        for inner in value:
            yield from texts_in(inner)


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without what stands in back quotes and without what is filled in later."""
    return WORD.findall(re.sub(r"`[^`]*`|\{\w+\}|<\w+>", " ", text.lower().replace("\u2019", "'")))


@cache
def vocabulary() -> frozenset[str]:
    """Every word of the town but the names."""
    found = set(words_of(" ".join(ALSO)))
    for module in (answers, documents, exercises, phrases, questions, scenes, tasks, town):
        for name, value in vars(module).items():
            if not name.startswith("__") and name not in ("_STEMS", "_ENDINGS"):
                found |= {word for text in texts_in(value) for word in words_of(text)}
    return frozenset(found)


def unknown_words(answer: str, row: dict[str, Any], names: Collection[str] = ()) -> list[str]:
    """The words of an answer that neither the town has, nor the prompt, nor what is true of it, nor ``names``."""
    text = re.sub(r'"[^"]*"', " ", answer) if row["task"] == "code" else answer
    strange = [word for word in words_of(text) if word not in vocabulary()]
    if not strange:
        return []
    said = " ".join([*texts_in(row["truth"]), *(message["content"] for message in row["prompt"])])
    known = {*WORD.findall(said.lower()), *(name.lower() for name in names)}
    return [word for word in strange if word not in known]


def grammar_faults(answer: str) -> int:
    """How many breaks of grammar can be told in an answer: see :data:`_FAULTS`, and long sentences without a verb."""
    text = re.sub(r"`[^`]*`", "`", " ".join(answer.lower().replace("\u2019", "'").split()))
    plain = re.sub(r'"[^"]*"', '"', text)
    faults = len(_FAULTS.findall(plain))
    for sentence in re.split(r"(?<=[.!?:])\s+", plain):
        words = WORD.findall(sentence)
        faults += len(words) >= VERBLESS and not VERBS & set(words)
    return faults
