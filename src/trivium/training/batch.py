"""Batches: trees of tokens packed into rows of one fixed length.

A *tree* is a prompt and the responses that continue it. A document is a tree with one response; K ranked responses are
a tree with K, and their prompt is computed once for all of them. Trees are packed several to a row; attention within a
row follows the trees (:func:`trivium.model.attention.packed_attention`) and positions count along each branch, so
every response sees just what it would see alone. The loss is not taken over rows but over pairs *(source, target)*: the
place of a hidden state and the token it should predict; a response's first token is predicted by its prompt's last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic

import numpy as np
import torch
from torch import Tensor
from typing_extensions import TypeVar

from trivium.errors import TriviumError
from trivium.model.apart import hidden_apart
from trivium.model.attention import Cross, by_segments, causal_attention, packed_attention
from trivium.model.transformer import Transformer
from trivium.training.machine import sent

PLAIN_FROM = 512
"""Tokens in a row from which attention without a mask is used where it is right: of shorter rows it saves next to
nothing, and a run that has both kinds of batches compiles its blocks twice."""

Payload = TypeVar("Payload", default=Any)


@dataclass(frozen=True)
class Tree(Generic[Payload]):
    """A prompt ``[P]`` and the responses ``[R_k]`` to it, as token ids. ``Tree[X]`` carries an X."""

    prompt: np.ndarray
    responses: tuple[np.ndarray, ...]
    loss: tuple[np.ndarray, ...] | None = None
    """For each response a mask of the tokens that are trained on; all of them when None."""
    payload: Payload = None  # type: ignore[assignment]
    """What the objective needs to know of the tree, such as a ranking of its responses."""

    def __len__(self) -> int:
        return len(self.prompt) + sum(map(len, self.responses))


@dataclass
class Batch:
    """Packed rows and what to learn from them. R rows of length L, S responses, N targets."""

    tokens: Tensor
    """``[R, L]`` token ids."""
    positions: Tensor
    """``[R, L]`` position of each token along its branch."""
    documents: Tensor
    """``[R, L]`` number of each token's segment; padding is -1."""
    parents: Tensor
    """``[R, L]`` number of the segment that each token's segment continues, or -2."""
    sources: Tensor
    """``[N]`` places, in the flattened rows, of the hidden states that predict."""
    targets: Tensor
    """``[N]`` token ids to predict there."""
    places: Tensor
    """``[N]`` where those tokens themselves stand, in the flattened rows."""
    owners: Tensor
    """``[N]`` the response that each target belongs to."""
    ends: Tensor
    """``[S]`` places of the responses' last tokens, in the flattened rows."""
    trees: list[Tree]
    """The trees in the order of their responses."""
    counts: dict[str, float] = field(default_factory=dict)
    """What sums over this batch are divided by, once they are added over all microbatches and processes."""
    extra: dict[str, Tensor] = field(default_factory=dict)
    """Further tensors for the objective."""
    plain: bool = False
    """Whether each row holds one chain of tokens at most: then plain causal attention is right, as nothing real comes
    after the padding."""
    unit: ClassVar[str] = "tokens"

    @property
    def size(self) -> int:
        """Places in the rows, padding included."""
        return self.tokens.numel()

    @property
    def real(self) -> int:
        """Tokens that are not padding."""
        return int((self.documents >= 0).sum())

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        if self.tokens.device == device:
            return self
        moved = {name: sent(value, device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return Batch(**moved, trees=self.trees, counts=self.counts, plain=self.plain,
                     extra={name: sent(value, device) for name, value in self.extra.items()})


def pack(lengths: Sequence[int], length: int) -> list[list[int]]:
    """Group items into rows of at most ``length``: best fit in decreasing order (Johnson 1973). Returns for each row
    the items' indices. O(n log n + n * length)."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    rows: list[list[int]] = []
    open_rows: list[list[int]] = [[] for _ in range(length + 1)]  # open_rows[space] = rows with that much space left
    for item in order:
        size = lengths[item]
        if not 0 < size <= length:
            raise TriviumError(
                f"a sequence of {size} tokens does not fit a row of {length}; raise `length` or shorten it")
        space = next((s for s in range(size, length + 1) if open_rows[s]), None)
        if space is None:
            rows.append([])
            row, space = len(rows) - 1, length
        else:
            row = open_rows[space].pop()
        rows[row].append(item)
        open_rows[space - size].append(row)
    return rows


def split_tree(tree: Tree, length: int) -> list[Tree]:
    """A tree as trees of at most ``length`` tokens: its prompt before as many of its responses as fit, in their order.
    One that fits is itself; a branch that does not fit is a tree of its own. Payloads are left out of parts."""
    if len(tree) <= length or len(tree.responses) < 2:
        return [tree]
    groups: list[list[int]] = [[]]
    size = len(tree.prompt)
    for number, response in enumerate(tree.responses):
        if groups[-1] and size + len(response) > length:
            groups.append([])
            size = len(tree.prompt)
        groups[-1].append(number)
        size += len(response)
    return [Tree(tree.prompt, tuple(tree.responses[i] for i in group),
                 None if tree.loss is None else tuple(tree.loss[i] for i in group)) for group in groups]


def make_batch(rows: Sequence[Sequence[Tree]], length: int, row_count: int | None = None) -> Batch:
    """Lay trees out in rows; ``row_count`` (at least ``len(rows)``) fixes the shape by adding rows of padding."""
    count = max(row_count or 0, len(rows), 1)
    tokens = np.zeros((count, length), np.int64)
    positions = np.zeros((count, length), np.int64)
    documents = np.full((count, length), -1, np.int64)
    parents = np.full((count, length), -2, np.int64)
    sources: list[np.ndarray] = []
    targets: list[np.ndarray] = []
    places: list[np.ndarray] = []
    owners: list[np.ndarray] = []
    ends: list[int] = []
    trees: list[Tree] = []
    segment = 0
    for r, row in enumerate(rows):
        at = 0
        for tree in row:
            prompt, start = segment, at
            size = len(tree.prompt)
            tokens[r, at:at + size] = tree.prompt
            positions[r, at:at + size] = np.arange(size)
            documents[r, at:at + size] = prompt
            at, segment = at + size, segment + 1
            for k, response in enumerate(tree.responses):
                n = len(response)
                tokens[r, at:at + n] = response
                positions[r, at:at + n] = np.arange(size, size + n)
                documents[r, at:at + n] = segment
                parents[r, at:at + n] = prompt
                before = np.arange(at - 1, at + n - 1)
                before[0] = start + size - 1
                learn = np.ones(n, bool) if tree.loss is None else np.array(tree.loss[k], bool)
                if size == 0:
                    learn[0] = False  # nothing comes before it
                sources.append(r * length + before[learn])
                targets.append(response[learn])
                places.append(r * length + np.arange(at, at + n)[learn])
                owners.append(np.full(int(learn.sum()), len(ends)))
                ends.append(r * length + at + n - 1)
                at, segment = at + n, segment + 1
            trees.append(tree)

    def join(parts: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.concatenate([*parts, np.zeros(0, np.int64)]).astype(np.int64))

    counts = {"tokens": float(sum(map(len, targets))), "responses": float(len(ends)), "trees": float(len(trees))}
    return Batch(torch.from_numpy(tokens), torch.from_numpy(positions), torch.from_numpy(documents),
                 torch.from_numpy(parents), join(sources), join(targets), join(places), join(owners),
                 torch.tensor(ends, dtype=torch.int64), trees, counts,
                 plain=all(len(row) <= 1 and all(len(tree.responses) <= 1 for tree in row) for row in rows))


def hidden_states(trunk: Transformer, batch: Batch, vectors: Tensor | None = None,
                  cross: Cross | None = None) -> Tensor:
    """Every token's last hidden state, ``[R * L, hidden_size]``: what the batch's places point into. ``vectors [R, L,
    hidden_size]`` stand in for the tokens' embeddings where they are given; a decoder looks at its sources by
    ``cross``. Where texts of another family cannot share a row, each is computed in one of its own.

    On a processor the rows go through the trunk as one line without their padding, where states are zeros."""
    packs = getattr(trunk, "packs", None)  # of another family
    if packs is not None and not packs(int(batch.positions.max()) + 1):
        return hidden_apart(trunk, batch.tokens, batch.documents, batch.parents)
    window = trunk.config.sliding_window
    plain = batch.plain and batch.tokens.shape[1] >= PLAIN_FROM
    if by_segments(batch.documents) and not plain and cross is None:
        return hidden_in_line(trunk, batch, vectors)
    attend = causal_attention(window) if plain else packed_attention(batch.documents, batch.parents, batch.positions,
                                                                     window, format_of_products(trunk))
    hidden: Tensor = trunk(batch.tokens if vectors is None else vectors, batch.positions, attend,
                           **({} if cross is None else {"cross": cross}))
    return hidden.flatten(0, 1)


def hidden_in_line(trunk: Transformer, batch: Batch, vectors: Tensor | None = None) -> Tensor:
    """:func:`hidden_states` by one line of the batch's tokens, without padding."""
    real = (batch.documents.flatten() >= 0).nonzero()[:, 0]
    if not len(real):
        real = real.new_zeros(1)  # of padding alone: still a part of the graph, for processes that wait for one another
    given = batch.tokens.flatten() if vectors is None else vectors.flatten(0, 1)
    line, positions, documents, parents = (
        values[real][None] for values in (given, *(one.flatten() for one in (batch.positions, batch.documents,
                                                                              batch.parents))))
    attend = packed_attention(documents, parents, positions, trunk.config.sliding_window)
    hidden = trunk(line, positions, attend)[0]
    return hidden.new_zeros(batch.size, hidden.shape[1]).index_copy(0, real, hidden)


def format_of_products(trunk: torch.nn.Module) -> torch.dtype:
    """The number format of a model's queries: autocast's where that is on, else its weights'."""
    weight = next(trunk.parameters())
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


def map_trees(compute: Callable[[Batch], Tensor], trees: Sequence[Tree], length: int, rows: int, device: torch.device,
              per_token: bool, progress: Callable[[int, int], None] = lambda done, total: None) -> list[np.ndarray]:
    """Run ``compute`` over packed batches of ``trees`` without gradients and hand its results back in their order.

    ``compute`` gives a number (or a row of them) for each target (``per_token``) or for each response; the result is,
    for each tree, those of its responses one after another. Without masks a tree has a target for every token of its
    responses. The responses of a tree longer than ``length`` are spread over several rows. ``progress`` is told after
    each batch how many rows of how many are done.
    """
    if any(len(tree) > length and len(tree.responses) > 1 for tree in trees):
        parts = [split_tree(tree, length) for tree in trees]
        flat = map_trees(compute, [part for group in parts for part in group], length, rows, device, per_token,
                         progress)
        ends = np.cumsum([len(group) for group in parts])
        return [np.concatenate(flat[end - len(group):end]) for group, end in zip(parts, ends, strict=True)]
    found: dict[int, np.ndarray] = {}
    packed = pack([len(tree) for tree in trees], length)
    for start in range(0, len(packed), rows):
        chosen = packed[start:start + rows]
        with torch.no_grad():
            batch = make_batch([[trees[i] for i in row] for row in chosen], length, len(chosen))
            values = compute(batch.to(device)).float().cpu().numpy()
        at = 0
        for index in (i for row in chosen for i in row):
            size = sum(map(len, trees[index].responses)) if per_token else len(trees[index].responses)
            found[index] = values[at:at + size]
            at += size
        progress(min(start + rows, len(packed)), len(packed))
    return [found[index] for index in range(len(trees))]
