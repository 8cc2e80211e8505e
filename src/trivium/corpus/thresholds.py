"""The thresholds of all quality rules, in one place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class QualityThresholds:
    """Every rule's threshold. The defaults are the papers'."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    min_words: int = 50
    """Fewest words of a document."""
    max_words: int = 100_000
    """Most words of a document."""
    min_word_length: float = 3.0
    """Smallest mean length of words, in characters."""
    max_word_length: float = 10.0
    """Greatest mean length of words, in characters."""
    max_hashes: float = 0.1
    """Most '#' signs for each word."""
    max_ellipses: float = 0.1
    """Most ellipses for each word."""
    max_bullet_lines: float = 0.9
    """Greatest share of lines that begin with a bullet."""
    max_ellipsis_lines: float = 0.3
    """Greatest share of lines that end in an ellipsis."""
    min_letter_words: float = 0.8
    """Smallest share of words with at least one letter."""
    stop_words: list[str] = field(default_factory=lambda: ["the", "be", "to", "of", "and", "that", "have", "with"])
    """Words that any running English text holds."""
    min_stop_words: int = 2
    """How many different stop words a document must hold."""
    min_recurring_words: int = 0
    """How many short words must recur, as stop words do, in a document that has too few of them: what is asked of
    documents whose language is unknown. 0 asks for stop words."""
    max_duplicate_lines: float = 0.3
    """Greatest share of lines that stood before in the document."""
    max_duplicate_line_characters: float = 0.2
    """Greatest share of characters in such lines."""
    max_duplicate_paragraphs: float = 0.3
    """Greatest share of paragraphs that stood before in the document."""
    max_duplicate_paragraph_characters: float = 0.2
    """Greatest share of characters in such paragraphs."""
    max_top_ngrams: list[float] = field(default_factory=lambda: [0.20, 0.18, 0.16])
    """Greatest share of characters in the most frequent 2-gram, 3-gram and 4-gram of words."""
    max_duplicate_ngrams: list[float] = field(default_factory=lambda: [0.15, 0.14, 0.13, 0.12, 0.11, 0.10])
    """Greatest share of characters in words that repeat an earlier 5-gram, 6-gram, up to 10-gram."""
    max_word_characters: int = 1000
    """A line with a longer word is dropped."""
    min_line_words: int = 3
    """A line of fewer words is dropped."""
    policy_phrases: list[str] = field(default_factory=lambda: [
        "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"])
    """A line with one of these phrases is dropped."""
    min_sentences: int = 5
    """Fewest sentences of a document."""
    min_punctuated_lines: float = 0.12
    """Smallest share of lines that end in a punctuation mark."""
    short_line: int = 30
    """A line of at most this many characters is short; a Chinese or Japanese one counts as three, a syllable as two."""
    max_short_lines: float = 0.67
    """Greatest share of short lines."""
    max_repeated_line_characters: float = 0.01
    """Greatest share of characters in lines that stood before: FineWeb's stricter form."""
    max_newlines: float = 0.3
    """Most line breaks for each word."""
