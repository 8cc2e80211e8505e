"""C4's rules about single lines (Raffel et al. 2020, section 2.2): a bad line is dropped, the document goes on."""

from __future__ import annotations

import re
from collections import Counter

from trivium.corpus.scripts import LINE_ENDS
from trivium.corpus.thresholds import QualityThresholds
from trivium.corpus.words import visible, words


def drop_lines(text: str, rules: list[str], thresholds: QualityThresholds) -> tuple[str, Counter[str]]:
    """The text without the lines that the named rules drop, and how many lines each rule dropped."""
    dropped: Counter[str] = Counter()
    if not rules:
        return text, dropped
    kept = []
    for line in text.split("\n"):
        rule = line_fault(line, rules, thresholds) if line.strip() else None
        if rule is None:
            kept.append(line)
        else:
            dropped[rule] += 1
    return (re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip("\n") if dropped else text), dropped


def line_fault(line: str, rules: list[str], t: QualityThresholds) -> str | None:
    """The first of the named rules that drops the line."""
    parts, lower = words(line), line.lower()
    faults = {
        "c4.long_word": lambda: len(line) > t.max_word_characters and any(
            len(word) > t.max_word_characters for word in parts),
        "c4.short_line": lambda: len(parts) < t.min_line_words,
        "c4.terminal_punctuation": lambda: visible(line).rstrip()[-1:] not in LINE_ENDS,
        "c4.javascript": lambda: "javascript" in lower,
        "c4.policy": lambda: any(phrase in lower for phrase in t.policy_phrases),
    }
    return next((rule for rule in rules if faults[rule]()), None)
