"""Attention of packed rows on a processor, each segment by itself: no mask, and no score that a mask would hide.

Rows that hold documents, or trees of prompts and responses, are cut into *parts*: so many queries in a row, and the
keys that they see, all of them or causally. A document is one part. A prompt with K responses is a causal part for the
prompt with the first response, K - 1 for the others among themselves, and one in which those look at the prompt. What
several parts give for one query is put together by the logarithms of their softmaxes' sums (Milakov and Gimelshein
2018; Juravsky et al. 2024), which is exact, and so is the gradient: given the whole output and the whole sum, each
part's backward pass gives its share. Both passes are PyTorch's flash kernel for processors (Dao 2023), called once for
a long part, and once for all short ones of about one size.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from trivium.model.attention import Attend

COLUMNS = ("row", "queries from", "queries to", "keys from", "keys to", "causal", "first", "distance")
"""What a part is, as a row of integers. ``first``: no earlier part gave these queries anything. ``distance``: of the
first query's position from the first key's."""

ROUNDED_FROM = 512
"""Tokens from which a part's gradient is computed in bf16, where that is the queries' format. PyTorch's kernel takes
2.0 to 3.1 times as long in bf16 as in float32 at 64 to 128 tokens, 1.3 to 1.7 times at 200 to 300, and as long at 512
(4 heads of 64, Intel Xeon with AMX)."""

BATCHED_BELOW = 256
"""Tokens below which causal parts of about one size go through the kernel together: a call for each would cost more
than its arithmetic."""

STEP = 32
"""Sizes that are called about the same lie between two multiples of it."""

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_back = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def tree_parts(documents: np.ndarray, parents: np.ndarray, window: int | None = None) -> Tensor | None:
    """The parts ``[n, 8]`` of rows ``[R, L]`` as :func:`~trivium.model.attention.packed_attention` has them, where
    positions count along each branch; None where they cannot be cut so: a segment's tokens do not stand side by side,
    or a response goes on with a response."""
    found: list[tuple[int, ...]] = []
    for row, names in enumerate(documents):
        edges = [0, *(np.flatnonzero(np.diff(names)) + 1).tolist(), len(names)]
        places: dict[int, tuple[int, int]] = {}
        joined: dict[int, int] = {}  # prompts, and where the response that goes on with them ends
        waiting: dict[int, list[tuple[int, int]]] = {}  # prompts, and the other responses to them
        for start, end in itertools.pairwise(edges):
            name = int(names[start])
            if name in places:
                return None
            if name < 0:
                continue
            parent = int(parents[row, start])
            before = places.get(parent)
            if before is not None and int(parents[row, before[0]]) in places.keys() - {parent}:
                return None
            places[name] = start, end
            if before is not None and before[1] == start and parent not in joined and parent not in waiting:
                joined[parent] = end
            elif before is not None:
                waiting.setdefault(parent, []).append((start, end))
        continued = set(joined.values())
        for name, (start, end) in places.items():
            if end in continued and name not in joined:
                continue  # it stands in its prompt's part
            end = joined.get(name, end)
            found.append((row, start, end, start, end, 1, 1, 0))
        for parent, responses in waiting.items():
            found += [(row, *part, 0, 0, distance) for part, distance in
                      _looks_back(responses, places[parent], window)]
    return _table(found)


def _looks_back(responses: Sequence[tuple[int, int]], prompt: tuple[int, int],
                window: int | None) -> list[tuple[tuple[int, int, int, int], int]]:
    """The parts in which responses look at their prompt: neighbours in one, unless a window hides something of it."""
    size = prompt[1] - prompt[0]
    if window is not None and any(size + end - start > window for start, end in responses):
        hidden = max(0, size - window + 1)  # of the prompt, even to a response's first token
        return [((start, min(end, start + window - 1), prompt[0] + hidden, prompt[1]), size - hidden)
                for start, end in responses if window > 1]
    merged: list[list[int]] = []
    for start, end in responses:
        if merged and merged[-1][1] == start:
            merged[-1][1] = end
        else:
            merged.append([start, end])
    return [((start, end, *prompt), 0) for start, end in merged]


def document_parts(documents: np.ndarray) -> Tensor | None:
    """The parts of rows ``[R, L]`` whose tokens see all of their own segment; None where a segment's tokens do not
    stand side by side."""
    return pair_parts(documents, documents)


def pair_parts(documents: np.ndarray, others: np.ndarray) -> Tensor | None:
    """The parts in which segments of rows ``[R, L]`` look at those of the same number in rows ``[R, S]``; None where a
    segment's tokens do not stand side by side."""
    found: list[tuple[int, ...]] = []
    for row, (names, seen) in enumerate(zip(documents, others, strict=True)):
        queries, keys = _runs(names), _runs(seen)
        if queries is None or keys is None:
            return None
        found += [(row, start, end, *keys[name], 0, 1, 0) for name, (start, end) in queries.items() if name in keys]
    return _table(found)


def _runs(names: np.ndarray) -> dict[int, tuple[int, int]] | None:
    """Where each segment of a row stands, padding left out."""
    edges = [0, *(np.flatnonzero(np.diff(names)) + 1).tolist(), len(names)]
    runs = {int(names[start]): (start, end) for start, end in itertools.pairwise(edges)}
    return {name: run for name, run in runs.items() if name >= 0} if len(runs) == len(edges) - 1 else None


def _table(found: list[tuple[int, ...]]) -> Tensor:
    """Parts as a table, whose height is a multiple of 64: a graph is compiled anew where shapes differ."""
    parts = torch.zeros(-(-max(len(found), 1) // 64) * 64, len(COLUMNS), dtype=torch.int64)
    if found:
        parts[:len(found)] = torch.tensor(found)
    return parts


def segment_attention(parts: Tensor, window: int | None = None) -> Attend:
    """Attention by ``parts``, on a processor; causal ones reach back to ``window`` positions. Places of no part get
    zeros. Keys that stand before those of the row, as a prefix does, are seen by every query."""

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return mixed(q, k, v, parts, window or 0, k.shape[2] - q.shape[2])

    return attend


def mixed(q: Tensor, k: Tensor, v: Tensor, parts: Tensor, window: int = 0, before: int = 0) -> Tensor:
    """Attention of ``q [B, heads, T, d]`` to keys ``[B, kv_heads, before + S, d]`` and values of that width or
    another, by ``parts``; all queries see the keys ``before``."""
    k, v = k.to(q.dtype), v.to(q.dtype)
    width, wanted = q.shape[3], v.shape[3]
    if wanted < width:  # the kernel has one width for all
        return mixed(q, k, F.pad(v, (0, width - wanted)), parts, window, before)[..., :wanted]
    if wanted > width:
        q, k = F.pad(q * (wanted / width)**0.5, (0, wanted - width)), F.pad(k, (0, wanted - width))
    if torch.compiler.is_compiling():  # what calls it elsewhere need not wait for the compiler to be imported
        return compiled_forward(q, k, v, parts, window, before)[0]
    found: Tensor = Mixed.apply(q, k, v, parts, window, before)  # type: ignore[no-untyped-call]
    return found


def forward(q: Tensor, k: Tensor, v: Tensor, parts: Tensor, window: int, before: int) -> tuple[Tensor, Tensor]:
    """``[B, heads, T, d]``, and the logarithms of the softmaxes' sums ``[B, heads, T]``."""
    batch, heads, length, width = q.shape
    out = q.new_zeros(batch, length, heads, width).transpose(1, 2)
    sums = torch.full((batch, heads, length), float("-inf"), dtype=_exact(q.dtype))
    together, rest = _groups(q, parts, window)
    for group in together:
        given, total = _flash(group.take(q), group.take(k, before), group.take(v, before), 0.0, True)
        group.put(out, given)
        group.put(sums[..., None], total[..., None])
    for queries, keys, causal, first, mask in _cut(q, rest, window, before):
        given, total = _flash(q[queries], k[keys], v[keys], 0.0, causal, attn_mask=mask)
        if first:
            out[queries], sums[queries[:-1]] = given, total
        else:
            known = sums[queries[:-1]]
            both = torch.logaddexp(known, total)
            out[queries] = out[queries] * (known - both).exp()[..., None] + given * (total - both).exp()[..., None]
            sums[queries[:-1]] = both
    return out, sums


def backward(gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, sums: Tensor, parts: Tensor, window: int,
             before: int) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients by queries, keys and values."""
    gradient = gradient if gradient.stride(-1) == 1 else gradient.contiguous()
    found = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    together, rest = _groups(q, parts, window)
    for group in together:
        given = [group.take(gradient), group.take(q), group.take(k, before), group.take(v, before), group.take(out)]
        given[0].transpose(1, 2).flatten(0, 1)[group.padding] = 0
        shares = _flash_back(*(one.to(sums.dtype) for one in given), group.take(sums[..., None])[..., 0], 0.0, True)
        for total, share, offset in zip(found, shares, (0, before, before), strict=True):
            group.put(total, share, offset)
    for queries, keys, causal, _, mask in _cut(q, rest, window, before):
        given = [gradient[queries], q[queries], k[keys], v[keys], out[queries]]
        if max(given[1].shape[2], given[2].shape[2]) < ROUNDED_FROM:
            given = [one.to(sums.dtype) for one in given]
            mask = None if mask is None else mask.to(sums.dtype)
        shares = _flash_back(*given, sums[queries[:-1]], 0.0, causal, attn_mask=mask)
        for total, place, share in zip(found, (queries, keys, keys), shares, strict=True):
            total[place] += share
    return found


class Group:
    """Causal parts of one line, of about one size, as rows of ``size`` places that begin alike; what is behind a part's
    last token is padding, which no token of it sees."""

    def __init__(self, parts: list[list[int]], size: int) -> None:
        starts, ends = torch.tensor([part[1:3] for part in parts]).T[:, :, None]
        along = starts + torch.arange(size)
        self.shape = (len(parts), size)
        self.index = along.minimum(ends - 1).flatten()
        """Where each place's token stands in the line; at padding the part's last one."""
        real = (along < ends).flatten()
        self.filled, self.padding = real.nonzero()[:, 0], (~real).nonzero()[:, 0]
        self.places = self.index[self.filled]

    def take(self, values: Tensor, before: int = 0) -> Tensor:
        """``[1, heads, T, d]`` as ``[parts, heads, size, d]``."""
        rows = values[0].transpose(0, 1).index_select(0, self.index + before)
        return rows.view(*self.shape, *rows.shape[1:]).transpose(1, 2)

    def put(self, total: Tensor, values: Tensor, before: int = 0) -> None:
        """Write ``[parts, heads, size, d]`` to where they stand in ``total [1, heads, T, d]``."""
        rows = values.transpose(1, 2).flatten(0, 1).index_select(0, self.filled)
        total[0].transpose(0, 1).index_copy_(0, self.places + before, rows.to(total.dtype))


def _groups(q: Tensor, parts: Tensor, window: int) -> tuple[list[Group], list[list[int]]]:
    """The parts that are computed together, which are the first for their queries and their keys, and the others."""
    found: dict[int, list[list[int]]] = {}
    rest = []
    for part in parts.tolist():
        _, start, end, first_key, _, causal, first, _ = part
        size = end - start
        alone = q.shape[0] > 1 or not (causal and first and start == first_key) or size >= BATCHED_BELOW or (
            0 < window < size)
        if size and alone:
            rest.append(part)
        elif size:
            found.setdefault(-(-size // STEP) * STEP, []).append(part)
    return [Group(group, size) for size, group in found.items()], rest


Place = tuple[slice, slice, slice, slice]


def _cut(q: Tensor, parts: list[list[int]], window: int,
         before: int) -> list[tuple[Place, Place, bool, bool, Tensor | None]]:
    """For each part where its queries and its keys stand, whether it is causal, whether it is the first to give its
    queries anything, and a mask where a window hides something in it."""
    every = slice(None)
    found: list[tuple[Place, Place, bool, bool, Tensor | None]] = []
    for row, start, end, first_key, last_key, causal, first, distance in parts:
        mask = None
        if window and (causal or distance) and distance + end - start > window:
            apart = (torch.arange(distance, distance + end - start)[:, None] - torch.arange(last_key - first_key))
            seen = (apart < window) & (apart >= 0) if causal else apart < window
            mask = torch.zeros(seen.shape, dtype=q.dtype).masked_fill_(~seen, float("-inf"))
        found.append(((slice(row, row + 1), every, slice(start, end), every),
                      (slice(row, row + 1), every, slice(first_key + before, last_key + before), every),
                      bool(causal) and mask is None, bool(first), mask))
    if before:
        found.append(((every, every, every, every), (every, every, slice(0, before), every), False, False, None))
    return found


def _exact(kind: torch.dtype) -> torch.dtype:
    return torch.promote_types(kind, torch.float32)


class Mixed(torch.autograd.Function):
    """Attention by parts, with its gradient."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, parts: Tensor, window: int, before: int) -> Tensor:
        out, sums = forward(q, k, v, parts, window, before)
        ctx.save_for_backward(q, k, v, out, sums, parts)
        ctx.window, ctx.before = window, before
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, sums, parts = ctx.saved_tensors
        return (*backward(gradient, q, k, v, out, sums, parts, ctx.window, ctx.before), None, None, None)


# The same for compiled graphs, of which each is one node.
compiled_forward = torch.library.custom_op("trivium::segments", forward, mutates_args=())
compiled_backward = torch.library.custom_op("trivium::segments_backward", backward, mutates_args=())


@compiled_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, parts: Tensor, window: int, before: int) -> tuple[Tensor, Tensor]:
    batch, heads, length, width = q.shape
    return (q.new_empty(batch, length, heads, width).transpose(1, 2),
            q.new_empty(batch, heads, length, dtype=_exact(q.dtype)))


@compiled_backward.register_fake
def _(gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, sums: Tensor, parts: Tensor, window: int,
      before: int) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, parts, ctx.window, ctx.before = inputs
    ctx.save_for_backward(q, k, v, *output, parts)
    ctx.mark_non_differentiable(output[1])


def _share(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, out, sums, parts = ctx.saved_tensors
    return (*compiled_backward(gradient, q, k, v, out, sums, parts, ctx.window, ctx.before), None, None, None)


compiled_forward.register_autograd(_share, setup_context=_keep)
