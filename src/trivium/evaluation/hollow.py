"""Responses that say nothing: empty ones, those that say the same again and again, and those that do not name what they
are about. Rewards that count words or marks can be fooled by them."""

from __future__ import annotations

from collections.abc import Sequence

from trivium.corpus.words import words

LEAST = 12
"""Words below which nothing is called a repetition."""


def is_empty(text: str) -> bool:
    """Whether it has neither a letter nor a digit."""
    return not any(map(str.isalnum, text))


def misses(text: str, about: Sequence[str]) -> bool:
    """Whether it has none of the words of its topic, in any case, within words too."""
    return bool(about) and not any(word.lower() in text.lower() for word in about)


def repeats(text: str) -> bool:
    """Whether most of its words stand in sequences of three that it has had before (as Rae et al. 2021 count
    duplicates): more than half."""
    said = [word.lower() for word in words(text)]
    triples = list(zip(said, said[1:], said[2:], strict=False))
    return len(said) >= LEAST and 2 * len(set(triples)) < len(triples)
