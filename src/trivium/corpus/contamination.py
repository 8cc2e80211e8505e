"""Documents that give away the evaluation: those that share a run of words with an evaluation text.

Brown et al. (2020, appendix C) take runs of 13 words, and no text of fewer than 8. A question of fewer than 13 counts
as one run, an answer only from 8 on. In scripts without spaces a run has as many characters as 13 words have: 26 in
Chinese and Japanese, where 13 are a common phrase, 52 in Thai and its like. Runs are compared by 64-bit hashes in
sorted arrays, which any number of processes can map at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from trivium.corpus.shards import read_array, write_array
from trivium.corpus.words import characters_a_word, ngram_hashes, plain_words, word_hashes
from trivium.errors import TriviumError


@dataclass(frozen=True)
class ContaminationSettings:
    """The search for evaluation texts in the corpus."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    enabled: bool = True
    """Reject documents that share a run of words with an evaluation text."""
    run: int = 13
    """Length of such a run, in words (two characters of Chinese or Japanese, four of Thai, are one). Short questions
    want a shorter one, such as 8."""
    min_words: int = 3
    """Questions of fewer words are passed over: they would hit everything."""
    min_answer_words: int = 8
    """Choices and answers of fewer words are passed over: they stand in ordinary text."""
    passages: bool = False
    """Also search for the passages that questions are asked about (fields such as context, passage, article), which
    often come from books and encyclopedias that a corpus may hold."""

    def __post_init__(self) -> None:
        for name in ("run", "min_words", "min_answer_words"):
            if getattr(self, name) < 1:
                raise TriviumError(
                    f"corpus: contamination: {name} is {getattr(self, name)}; it must be at least 1")


def write_index(texts: Iterable[str], settings: ContaminationSettings, folder: Path,
                answers: Iterable[str] = ()) -> dict[str, Any]:
    """Write, for every length of run that occurs, the sorted hashes of all runs and the text that each comes from (the
    first one that holds it; answers are numbered behind the texts)."""
    lengths: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    passed_over = number = 0
    least = chain(((text, settings.min_words) for text in texts), ((text, settings.min_answer_words)
                                                                   for text in answers))
    for number, (text, fewest) in enumerate(least, 1):
        hashes, characters = word_hashes(plain_words(text)), characters_a_word(text)
        if len(hashes) < fewest * characters:
            passed_over += 1
            continue
        n = min(settings.run * characters, len(hashes))
        runs = ngram_hashes(hashes, n)
        lengths.setdefault(n, []).append((runs, np.full(len(runs), number - 1, np.int64)))
    for n, parts in lengths.items():
        runs, owners = (np.concatenate(column) for column in zip(*parts, strict=True))
        unique, first = np.unique(runs, return_index=True)
        write_array(folder / f"runs-{n}.npy", unique)
        write_array(folder / f"owners-{n}.npy", owners[first])
    return {"texts": number, "passed_over": passed_over}


class ContaminationIndex:
    """The written index of :func:`write_index`."""

    def __init__(self, folder: Path) -> None:
        files = sorted(folder.glob("runs-*.npy"), key=lambda file: -int(file.stem[5:]))
        self.tables = [(int(file.stem[5:]), read_array(file), read_array(folder / f"owners-{file.stem[5:]}.npy"))
                       for file in files]

    def find(self, text: str) -> tuple[int, str] | None:
        """The evaluation text that the document shares its first longest run with, as its place in the list, and the
        run."""
        parts = plain_words(text)
        hashes = word_hashes(parts)
        for n, runs, owners in self.tables:
            ours = ngram_hashes(hashes, n)
            places = np.minimum(np.searchsorted(runs, ours), len(runs) - 1)
            hits = np.flatnonzero(runs[places] == ours)
            if len(hits):
                return int(owners[places[hits[0]]]), " ".join(parts[hits[0]:hits[0] + n])
        return None
