"""Batches of packed trees, epoch after epoch, as a pure function of the step."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from trivium.errors import TriviumError
from trivium.model.adapters.folder import weights_digest as weights_digest
from trivium.training.batch import Batch, Tree, make_batch
from trivium.training.batch import map_trees as map_trees
from trivium.training.packing import Packing


@dataclass(frozen=True)
class Limit:
    """The longest that a sequence may be, and why."""

    given: int | None
    """The setting `length`; None where it is left open."""
    positions: int
    """Those of the model."""
    what: str = "sequences"

    @property
    def tokens(self) -> int:
        """The longest that fits."""
        return self.positions if self.given is None else min(self.given, self.positions)

    def say_left_out(self, sizes: Sequence[int], total: int, mend: str = "") -> str:
        """What is said when ``sizes`` of ``total`` do not fit: how many, which share, the longest, and the mend."""
        longest = max(sizes)
        bound = f"`length: {self.given}`" if self.tokens == self.given else f"the model's {self.positions:,} positions"
        more = sum(size <= self.positions for size in sizes)
        if more and self.tokens < self.positions:
            takes = max(size for size in sizes if size <= self.positions)
            mend = f"`length: {takes}`, or null, takes in {'all' if more == len(sizes) else more} of them"
        elif not mend:
            mend = f"no setting takes them in, as the model has {self.positions:,} positions: shorten them"
        return (f"WARNING: {len(sizes):,} of {total:,} {self.what} ({len(sizes) / total:.0%}) were left out, as they "
                f"are longer than {bound}; the longest has {longest:,} tokens; {mend}")


def longest_branch(tree: Tree) -> int:
    """Tokens of a tree's prompt with the longest of its responses: what the model's positions bound."""
    return len(tree.prompt) + max(map(len, tree.responses), default=0)


def fits(trees: Iterable[Tree], limit: Limit, say: Callable[[str], None]) -> list[Tree]:
    """The trees each of whose branches fits; how many do not is said. Raises :class:`TriviumError` where none does."""
    given = list(trees)
    every = [tree for tree in given if all(map(len, tree.responses))]
    if len(every) < len(given):
        say(f"{len(given) - len(every)} sequences with a response of no tokens were left out: nothing can be learned "
            "from it")
    sizes = [size for tree in every if (size := longest_branch(tree)) > limit.tokens]
    if not every:
        raise TriviumError("there is nothing to train on: every row has a response of no tokens" if given else
                           "there is nothing to train on: no row belongs to the training split; bring more rows or "
                           "lower `heldout`")
    if len(sizes) == len(every):
        raise TriviumError(f"none of {len(every):,} {limit.what} fits: {limit.say_left_out(sizes, len(every))[9:]}")
    if sizes:
        say(limit.say_left_out(sizes, len(every)))
    return [tree for tree in every if longest_branch(tree) <= limit.tokens]


class PackedEpochs:
    """Batches of packed trees, a pure function of the step: see :mod:`trivium.training.packing`.

    Each epoch has all trees in an order of its own. Each batch holds ``rows`` rows, the last of an epoch empty ones as
    well, so that every batch has one shape. ``trees`` may be made when they are asked for; their ``sizes`` are then
    known beforehand."""

    def __init__(self, trees: Sequence[Tree], length: int, rows: int, seed: int,
                 finish: Callable[[Batch], None] = lambda batch: None) -> None:
        self.trees, self.length, self.rows, self.seed, self.finish = trees, length, rows, seed, finish
        sizes = self.sizes()
        self.tokens = int(sizes.sum(dtype=np.int64))
        self.packing = Packing(sizes, length, seed)
        self.rows_per_epoch = self.packing.rows
        self.steps_per_epoch = math.ceil(self.rows_per_epoch / rows)

    def sizes(self) -> np.ndarray:
        """The places that each tree takes in a row."""
        known: np.ndarray | None = getattr(self.trees, "sizes", None)
        return np.array([self.size_of(tree) for tree in self.trees], np.int64) if known is None else known

    def size_of(self, tree: Tree) -> int:
        """The places that a tree takes in a row."""
        return len(tree)

    def make(self, rows: list[list[Tree]], count: int, epoch: int) -> Batch:
        """A batch of ``count`` rows that hold the trees of ``rows``."""
        return make_batch(rows, self.length, count)

    def __call__(self, step: int, part: int = 0, parts: int = 1, rows: int | None = None) -> list[Batch]:
        """The slice ``part`` of ``parts`` of the batch at a step, in microbatches of at most ``rows`` rows. Raises
        :class:`TriviumError` for more parts than rows."""
        if parts > self.rows:
            raise TriviumError(
                f"a batch of {self.rows} rows cannot be shared by {parts} processes; raise `rows` or start fewer")
        epoch, within = divmod(step, self.steps_per_epoch)
        share = math.ceil(self.rows / parts)
        chosen = self.packing(epoch, within * self.rows, (within + 1) * self.rows)[part::parts]
        chosen += [[] for _ in range(share)]
        batches = []
        for start in range(0, share, rows or share):
            end = min(start + (rows or share), share)
            batch = self.make([[self.trees[i] for i in row] for row in chosen[start:end]], end - start, epoch)
            self.finish(batch)
            batches.append(batch)
        return batches


def contents_of(trees: Sequence[Tree]) -> str:
    """A digest of all that trees hold."""
    digest = hashlib.sha256()
    for tree in trees:
        for part in (tree.prompt, *tree.responses, *(tree.loss or ())):
            digest.update(len(part).to_bytes(8, "little") + np.ascontiguousarray(part).tobytes())
        digest.update(repr(tree.payload).encode())
    return digest.hexdigest()
