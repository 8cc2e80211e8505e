"""The documents of a tokenised corpus as trees, cut from the memory map when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np

from trivium.tokenizer.tokens import Tokens
from trivium.training.batch import Tree

BLOCK = 1 << 20
"""Documents whose lengths are looked at together."""


class Pieces(Sequence[Tree[Any]]):
    """Documents as trees whose prompt is the token that ends a document, ``start``; those too long for a row of
    ``length`` are cut in equal pieces, so that nothing is lost. Held are four bytes a document and two (of rows of
    65,536 tokens or more, four) a piece."""

    def __init__(self, corpus: Tokens, start: int, length: int) -> None:
        self.corpus, self.start, self.length = corpus, np.array([start], np.int64), length
        count = 0
        most = len(corpus) + corpus.total // (length - 1)
        firsts = np.zeros(len(corpus) + 1, np.uint32 if most < 1 << 32 else np.int64)
        for begin, lengths in self._lengths():
            ends = count + np.cumsum(self._parts(lengths))
            firsts[begin + 1:begin + 1 + len(lengths)] = ends
            count = int(ends[-1])
        self.firsts = firsts
        """The number of each document's first piece, and of all pieces."""
        self.sizes = np.empty(count, np.uint16 if length < 1 << 16 else np.uint32)
        """Tokens of each piece, the one before it included."""
        for begin, lengths in self._lengths():
            parts = self._parts(lengths)
            first, end = int(firsts[begin]), int(firsts[begin + len(lengths)])
            within = np.arange(first, end) - np.repeat(firsts[begin:begin + len(lengths)].astype(np.int64), parts)
            longer = within < np.repeat(lengths % parts, parts)
            self.sizes[first:end] = np.repeat(lengths // parts, parts) + longer + 1

    def _lengths(self) -> Iterator[tuple[int, np.ndarray]]:
        """Where each block of documents begins, and their lengths in tokens."""
        offsets = self.corpus.offsets
        for begin in range(0, len(self.corpus), BLOCK):
            yield begin, np.diff(offsets[begin:begin + BLOCK + 1]).astype(np.int64)

    def _parts(self, lengths: np.ndarray) -> np.ndarray:
        """Into how many pieces documents of so many tokens are cut."""
        return -(-lengths // (self.length - 1))

    def __len__(self) -> int:
        return len(self.sizes)

    @overload
    def __getitem__(self, number: int) -> Tree[Any]: ...

    @overload
    def __getitem__(self, number: slice) -> list[Tree[Any]]: ...

    def __getitem__(self, number: int | slice) -> Tree[Any] | list[Tree[Any]]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(f"piece {number} of {len(self)}")
        number = int(number) % len(self)
        index = int(np.searchsorted(self.firsts, number, "right")) - 1
        document = self.corpus.document(index)
        parts = -(-len(document) // (self.length - 1))
        part, (each, longer) = number - int(self.firsts[index]), divmod(len(document), parts)
        begin = part * each + min(part, longer)
        return Tree(self.start, (document[begin:begin + each + (part < longer)].astype(np.int64), ))
