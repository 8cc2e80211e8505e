"""The names of people, found by models that learned them: spaCy's for languages with spaces, jieba's dictionary and
tagger for Chinese. They err far more often than the rules for numbers do, so nothing uses them unasked."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from trivium.errors import TriviumError, extra

PIECE = 50_000
"""Longest text that a model is given at once, in characters."""
PLACEHOLDER = "<NAME>"
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_HIDDEN = re.compile(r"<[A-Z_]+>")
_NAME_TAGS = frozenset(("nr", "nrfg"))


def check(pipeline: str) -> None:
    """Load both models. Raises :class:`TriviumError` where the extra or the pipeline is not installed."""
    _spacy(pipeline)
    _jieba()


def names(text: str, pipeline: str) -> list[tuple[int, int]]:
    """Where names of people stand: (start, end), in order. A text with Chinese in it is read by jieba, another one by
    the ``pipeline`` of spaCy. Placeholders hold no names."""
    hidden = [match.span() for match in _HIDDEN.finditer(text)]
    found: list[tuple[int, int]] = []
    for start, piece in _pieces(text):
        if len(_CHINESE.findall(piece)) * 4 > len(piece):
            spans = [(start + begin, start + end) for word, begin, end in _tagged(piece)
                     if word in _NAME_TAGS and end - begin > 1]
        else:
            spans = [(start + entity.start_char, start + entity.end_char) for entity in _spacy(pipeline)(piece).ents
                     if entity.label_ in ("PERSON", "PER")]
        found += [(begin, end) for begin, end in spans
                  if text[begin:end].strip() and not any(begin < stop and at < end for at, stop in hidden)]
    return found


def without_names(text: str, pipeline: str) -> tuple[str, int]:
    """The text with each name replaced, and how many there were."""
    found = names(text, pipeline)
    pieces, written = [], 0
    for start, end in found:
        pieces += [text[written:start], PLACEHOLDER]
        written = end
    return "".join(pieces) + text[written:], len(found)


def _pieces(text: str) -> list[tuple[int, str]]:
    """The text in lines, as many at a time as a model is given at once."""
    pieces, start = [], 0
    while start < len(text):
        end = min(start + PIECE, len(text))
        if end < len(text):
            end = max(text.rfind(mark, start, end) for mark in "\n 。") + 1 or end
        pieces.append((start, text[start:end]))
        start = end
    return pieces


def _tagged(text: str) -> list[tuple[str, int, int]]:
    """The words' tags and places."""
    tagged, place = [], 0
    for pair in _jieba().cut(text):
        tagged.append((pair.flag, place, place + len(pair.word)))
        place += len(pair.word)
    return tagged


@lru_cache(maxsize=1)
def _jieba() -> Any:
    with extra("names"):
        import jieba
        import jieba.posseg
    jieba.setLogLevel(logging.ERROR)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trivium"
    with contextlib.suppress(OSError):  # its dictionary, read faster: in a folder of the user's, not in everybody's
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    jieba.dt.tmp_dir = str(cache)
    return jieba.posseg


@lru_cache(maxsize=1)
def _spacy(pipeline: str) -> Any:
    with extra("names"):
        import spacy
    try:
        return spacy.load(pipeline, exclude=["parser", "tagger", "lemmatizer", "attribute_ruler"])
    except OSError as error:
        raise TriviumError(
            f"corpus: private: pipeline: spaCy's pipeline {pipeline!r} is not installed; "
            f"install it with: python -m spacy download {pipeline}") from error
