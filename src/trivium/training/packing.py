"""Which trees share a row, for any number of them: found from how many there are of each size, and never written down.

Best fit in decreasing order (Johnson 1973) looks at sizes alone, and things of one size are all the same to it. So it
is played with *patterns*, rows that hold the same sizes, of which each stands for as many rows as there are of it: a
few thousand patterns whatever the corpus. Which tree then stands at which place is an order of each size's own, and
which row comes when is one more; both are permutations that are computed place by place. A batch so is a pure function
of the seed, the epoch and the step, and costs the same at any step of any corpus; held are the trees' sizes and their
numbers in order of size, six bytes a tree.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping

import numpy as np

from trivium import randomness
from trivium.errors import TriviumError

BLOCK = 1 << 20
"""Trees that are sorted at a time: what is held in between stays small."""


def patterns(counts: Mapping[int, int], length: int) -> list[tuple[dict[int, int], int]]:
    """Rows of at most ``length`` for so many things of each size, by best fit in decreasing order: for each pattern how
    many things of which size it holds, and of how many rows it is. Raises :class:`TriviumError` for a size that does
    not fit."""
    groups: dict[int, list[tuple[dict[int, int], int]]] = {}  # open rows, by the space that they have left
    spaces: list[int] = []  # those of them, in order

    def put(space: int, pattern: dict[int, int], rows: int) -> None:
        if rows:
            if space not in groups:
                groups[space] = []
                bisect.insort(spaces, space)
            groups[space].append((pattern, rows))

    for size in sorted(counts, reverse=True):
        left = counts[size]
        if left and not 0 < size <= length:
            raise TriviumError(
                f"a sequence of {size} tokens does not fit a row of {length}; raise `length` or shorten it")
        while left:
            place = bisect.bisect_left(spaces, size)
            new = place == len(spaces)
            space = length if new else spaces[place]
            each = space // size  # once a thing is in, the row's space is the smallest in which the next one fits
            pattern, rows = ({}, -(-left // each)) if new else groups[space].pop()
            if not new and not groups[space]:
                del groups[space], spaces[place]
            full = min(rows, left // each)
            put(space - each * size, pattern | {size: each}, full)
            left -= full * each
            if full < rows and left:
                put(space - left * size, pattern | {size: left}, 1)
                left, full = 0, full + 1
            if not new:
                put(space, pattern, rows - full)
    return [group for space in spaces for group in groups[space]]


class Packing:
    """Rows of trees whose ``sizes`` are given, in an order of its own for each epoch."""

    def __init__(self, sizes: np.ndarray, length: int, seed: int) -> None:
        self.seed = seed
        counts = np.zeros(1, np.int64)
        for start in range(0, len(sizes), BLOCK):
            more = np.bincount(sizes[start:start + BLOCK], minlength=len(counts))
            more[:len(counts)] += counts
            counts = more
        self.counts = counts
        self.patterns = patterns({int(size): int(counts[size]) for size in np.flatnonzero(counts)}, length)
        self.ends = np.cumsum([rows for _, rows in self.patterns], dtype=np.int64)
        """Of each pattern's rows among all rows."""
        self.rows = int(self.ends[-1]) if len(self.ends) else 0
        self.used: list[dict[int, int]] = []
        """Of each pattern, how many things of a size the patterns before it hold."""
        before: dict[int, int] = dict.fromkeys(map(int, np.flatnonzero(counts)), 0)
        for pattern, rows in self.patterns:
            self.used.append({size: before[size] for size in pattern})
            for size, each in pattern.items():
                before[size] += rows * each
        self.starts = np.concatenate([[0], np.cumsum(counts)])
        self.by_size = in_order_of_size(sizes, self.starts)

    def __call__(self, epoch: int, start: int, end: int) -> list[list[int]]:
        """The trees of the rows from ``start`` to before ``end`` of an epoch, each row's largest first."""
        places = np.arange(start, min(end, self.rows))
        rows = randomness.shuffled(places, self.rows, self.seed, "rows", epoch)
        kinds = np.searchsorted(self.ends, rows, "right")
        wanted: dict[int, list[int]] = {}  # of each size, which things of it, in the order of the rows
        for row, kind in zip(rows.tolist(), kinds.tolist(), strict=True):
            pattern, count = self.patterns[kind]
            within = row - (int(self.ends[kind]) - count)
            for size, each in pattern.items():
                first = self.used[kind][size] + within * each
                wanted.setdefault(size, []).extend(range(first, first + each))
        found = {size: iter(self.by_size[self.starts[size] + randomness.shuffled(
            np.array(things), int(self.counts[size]), self.seed, "order", epoch, size)].tolist())
            for size, things in wanted.items()}
        return [[next(found[size]) for size, each in self.patterns[kind][0].items() for _ in range(each)]
                for kind in kinds.tolist()]


def in_order_of_size(sizes: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The numbers of things in order of size, those of one size in their own; ``starts`` says where each size's
    begin."""
    order = np.empty(len(sizes), np.uint32 if len(sizes) < 1 << 32 else np.int64)
    following = starts.copy()
    for start in range(0, len(sizes), BLOCK):
        block = sizes[start:start + BLOCK]
        sorted_block = np.argsort(block, kind="stable")
        counts = np.bincount(block, minlength=len(starts) - 1)
        places = np.arange(len(block)) + np.repeat(following[:-1] - (np.cumsum(counts) - counts), counts)
        order[places] = (start + sorted_block).astype(order.dtype)
        following[:-1] += counts
    return order
