"""Long runs of words that occur more than once in the corpus: Lee et al. 2022, "Deduplicating Training Data Makes
Language Models Better", whose suffix array finds every repeated run of 50 tokens.

A suffix array needs the whole corpus in memory, many times over. The same runs are found here by their hashes, in parts
that each look at a piece of the corpus only:

1. ``mark``: every shard writes the minimizers of its texts (Roberts et al. 2004): of all runs of 25 words in a window
   of 50, the one of the least hash. Equal windows have equal minimizers, so a window that occurs twice has one that
   occurs twice.
2. ``repeated_hashes``: a range of these hashes, from all shards: which of them occur more than once?
3. ``windows``: every shard writes the hashes of its windows of 50 words whose minimizer is one of those, and no others.
4. ``repeats``: a range of these, from all shards: every occurrence of a window but the first one in the corpus.
5. ``cut``: the words that such occurrences cover go.

The outcome is that of a suffix array over the words, but for chance collisions of 64-bit hashes: one is expected among
6e9 windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from trivium.corpus.shards import among, in_range, read_array, write_array
from trivium.corpus.words import PLAIN_WORD, mix, plain_words, visible, word_hashes
from trivium.errors import TriviumError

PARTITION_MARKS = 6_000_000


@dataclass(frozen=True)
class SpanSettings:
    """The search for long passages that occur more than once."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    enabled: bool = False
    """Cut out every occurrence of a long passage but the first one in the corpus."""
    words: int = 50
    """Fewest words of such a passage; in scripts without spaces a character counts as a word."""
    min_words_left: int = 20
    """A document that keeps fewer words is rejected."""

    def __post_init__(self) -> None:
        if self.words < 2 or self.min_words_left < 1:
            raise TriviumError(
                f"corpus: spans: words is {self.words} and min_words_left {self.min_words_left}; "
                "they must be at least 2 and 1"
            )


def run_hashes(hashes: np.ndarray, n: int) -> np.ndarray:
    """A hash for each run of ``n`` words, uint64 [words - n + 1]: a polynomial in the words' hashes, modulo 2^64, from
    prefix sums, so that its cost does not grow with ``n``."""
    if len(hashes) < n:
        return np.empty(0, np.uint64)
    sums = np.zeros(len(hashes) + 1, np.uint64)
    np.cumsum(hashes * _powers(_BASE, len(hashes)), out=sums[1:])
    return mix((sums[n:] - sums[:-n]) * _powers(_INVERSE, len(hashes) - n + 1))


_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 2**64)


def _powers(base: int, count: int) -> np.ndarray:
    """``base`` to the powers 0 to count - 1, modulo 2^64."""
    return _table(base, max(1 << 12, 1 << (count - 1).bit_length()))[:count]


@lru_cache(maxsize=4)
def _table(base: int, count: int) -> np.ndarray:
    factors = np.full(count, base, np.uint64)
    factors[0] = 1
    return np.cumprod(factors)


def least(values: np.ndarray, width: int, smallest: bool = True) -> np.ndarray:
    """The least (or greatest) of every ``width`` neighbouring values, in about log2(width) passes."""
    pick = np.minimum if smallest else np.maximum
    done = 1
    while done < width:
        step = min(done, width - done)
        values = pick(values[:-step], values[step:])
        done += step
    return values


def words_of(text: str) -> list[str]:
    """The words whose runs are compared, in the text's own order and number."""
    if text.isascii():  # no letter changes its length
        return plain_words(text)
    return [visible(word.lower()) for word in PLAIN_WORD.findall(text)]


def minimizers(hashes: np.ndarray, words: int) -> tuple[np.ndarray, np.ndarray]:
    """``(minimizer of each window of that many words, hashes of all runs that are one's minimizer, each occurrence)``,
    mixed once more: the least of many hashes is small, and partitions by hash would not be of one size."""
    run = (words + 1) // 2
    runs = run_hashes(hashes, run)
    width = words - run + 1
    if len(runs) < width:
        return np.empty(0, np.uint64), np.empty(0, np.uint64)
    windows = least(runs, width)
    padded = np.zeros(len(windows) + 2 * (width - 1), np.uint64)
    padded[width - 1:len(padded) - width + 1] = windows
    chosen = runs == least(padded, width, smallest=False)
    return mix(windows), mix(runs[chosen])


def mark(texts: list[str], plain: list[np.ndarray], settings: SpanSettings, folder: Path) -> int:
    """Step 1 for one shard; the number of marks. ``plain``: the hashes of each text's plain words, which in ASCII are
    those that are compared here."""
    marks = [
        minimizers(hashes if text.isascii() else word_hashes(words_of(text)), settings.words)[1]
        for text, hashes in zip(texts, plain, strict=True)
    ]
    hashes = np.concatenate([*marks, np.empty(0, np.uint64)])
    rows = np.repeat(np.arange(len(texts), dtype=np.uint32), [len(mark) for mark in marks])
    _write_sorted(folder, "marks", hashes, rows)
    return len(hashes)


def _write_sorted(folder: Path, name: str, hashes: np.ndarray, *columns: np.ndarray) -> None:
    order = np.argsort(hashes, kind="stable")
    write_array(folder / f"{name}.npy", hashes[order])
    for number, column in enumerate(columns):
        write_array(folder / f"{name}-{number}.npy", column[order])


def marks_of(shards: list[Path], starts: list[int], dropped: np.ndarray, partition: int,
             partitions: int) -> dict[str, np.ndarray]:
    """What step 2 looks at: the hashes in one range, from documents that are not ``dropped`` (numbers, sorted)."""
    found = []
    for shard, start in zip(shards, starts, strict=True):
        hashes = read_array(shard / "marks.npy")
        part = in_range(hashes, partition, partitions)
        numbers = read_array(shard / "marks-0.npy")[part].astype(np.int64) + start
        found.append(np.asarray(hashes[part])[~among(numbers, dropped)])
    return {"marks": np.concatenate(found)}


def repeated_hashes(marks: np.ndarray) -> np.ndarray:
    """Step 2: the hashes that occur more than once."""
    values = np.sort(marks)
    twice = values[1:][values[1:] == values[:-1]]
    return np.unique(twice)


def windows(texts: dict[int, str], hashes: list[np.ndarray], settings: SpanSettings, folder: Path) -> int:
    """Step 3 for one shard: ``texts`` by row, ``hashes`` the sorted arrays of step 2, in order of their ranges."""
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for row, text in texts.items():
        words = word_hashes(words_of(text))
        least_of, _ = minimizers(words, settings.words)
        starts = np.flatnonzero(np.logical_or.reduce([among(least_of, part) for part in hashes]))
        if len(starts):
            found.append((run_hashes(words, settings.words)[starts], np.full(len(starts), row,
                                                                             np.uint32), starts.astype(np.uint32)))
    columns = [np.concatenate([part[k] for part in found]) if found else np.empty(0, kind)
               for k, kind in enumerate((np.uint64, np.uint32, np.uint32))]
    _write_sorted(folder, "windows", *columns)
    return len(columns[0])


def windows_of(shards: list[Path], filtered_starts: list[int], partition: int,
               partitions: int) -> dict[str, np.ndarray]:
    """What step 4 looks at: the windows in one range, their documents' numbers and first words."""
    columns: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for shard, start in zip(shards, filtered_starts, strict=True):
        hashes = read_array(shard / "windows.npy")
        part = in_range(hashes, partition, partitions)
        columns.append((np.asarray(hashes[part]), read_array(shard / "windows-0.npy")[part].astype(np.int64) + start,
                        np.asarray(read_array(shard / "windows-1.npy")[part])))
    return dict(zip(("hashes", "numbers", "words"), map(np.concatenate, zip(*columns, strict=True))))


def repeats(hashes: np.ndarray, numbers: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Step 4: ``(document's number, first word)`` of every window that stood before in the corpus, sorted."""
    order = np.lexsort((words, numbers, hashes))
    again = order[1:][hashes[order][1:] == hashes[order][:-1]]
    numbers, words = numbers[again], words[again]
    order = np.lexsort((words, numbers))
    return numbers[order], words[order]


def cut(text: str, starts: np.ndarray, settings: SpanSettings) -> tuple[str, int, int]:
    """Step 5: ``(the text without the windows that begin at those words, words cut, words left)``. What stands between
    two cuts and holds no word goes with them."""
    places = [match.span() for match in PLAIN_WORD.finditer(text)]
    gone = np.zeros(len(places) + 1, np.int64)
    np.add.at(gone, starts, 1)
    np.add.at(gone, np.minimum(starts + settings.words, len(places)), -1)
    covered = np.cumsum(gone[:-1]) > 0
    edges = np.flatnonzero(np.diff(np.r_[False, covered, False].astype(np.int8)))
    pieces, place = [], 0
    for first, after in edges.reshape(-1, 2).tolist():
        pieces.append(text[place:places[first][0]])
        place = places[after][0] if after < len(places) else len(text)
    pieces.append(text[place:])
    kept = "\n".join(piece.strip() for piece in pieces if PLAIN_WORD.search(piece))
    removed = int(covered.sum())
    return kept, removed, len(places) - removed
