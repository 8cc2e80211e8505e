"""How tokens see one another: what callers of a model hand it as ``attend``."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from trivium.model.segments import document_parts, segment_attention, tree_parts

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""``attend(layer, q [B, heads, T, d], k [B, kv_heads, T, d], v [B, kv_heads, T, d]) -> [B, heads, T, d]``. Keys and
values may have P more places in front, which every token sees (:mod:`trivium.model.adapters.prefix`)."""

Cross = Callable[[int, Tensor, Callable[[Tensor], tuple[Tensor, Tensor]]], Tensor]
"""``cross(layer, q [B, heads, T, d], keys_values) -> [B, heads, T, d]``: a decoder's look at another text, where
``keys_values`` turns that text's states ``[B, S, hidden_size]`` into keys and values ``[B, kv_heads, S, d]``."""


def bias_of(mask: Tensor, kind: torch.dtype) -> Tensor:
    """A mask as what is added to scores: 0 or minus infinity. Its rows begin at multiples of 16 numbers, as PyTorch's
    kernels on a GPU want it."""
    length = mask.shape[-1]
    bias = torch.zeros(*mask.shape[:-1], -(-length // 16) * 16, dtype=kind, device=mask.device)
    return bias.narrow(-1, 0, length).masked_fill_(~mask, float("-inf"))


def masked_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float | None = None) -> Tensor:
    """Attention of ``q [B, heads, T, d]`` to keys and values of as many heads or fewer, where ``mask`` (broadcast to
    ``[B, heads, T, S]``; or what :func:`bias_of` made of it) says so; scores are multiplied by ``scale``,
    ``d ** -0.5`` unless given.

    On a GPU no kernel takes a mask together with shared heads but the one that writes all T x S scores down: there each
    head gets its own copy of its keys and values, which are far smaller."""
    shared = q.shape[1] // k.shape[1]
    mask = mask if mask.dtype == torch.bool else mask.to(q.dtype)
    if shared > 1 and q.device.type == "cuda":
        k, v, shared = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1), 1
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=shared > 1)


def causal_attention(window: int | None = None) -> Attend:
    """Every token sees itself and all before it in its row, or those of the last ``window`` places."""

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        shared, before = q.shape[1] != k.shape[1], k.shape[2] - q.shape[2]
        if (window is None or window >= q.shape[2]) and not before:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=shared)
        mask = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).tril()
        mask = F.pad(mask if window is None else mask.triu(1 - window), (before, 0), value=True)
        return masked_attention(q, k, v, mask)

    return attend


def packed_attention(documents: Tensor, parents: Tensor, positions: Tensor, window: int | None = None,
                     kind: torch.dtype | None = None) -> Attend:
    """Attention for rows that hold several documents, or a prompt followed by several responses to it: see
    :func:`tree_mask`. On a processor each segment is computed by itself; elsewhere the mask is.

    On a GPU each layer's kernel makes a bias in the queries' format of the mask, and keeps it for the gradient. Where
    that format, ``kind``, is told, it is made once for all layers.
    """
    if by_segments(documents):
        parts = tree_parts(documents.numpy(), parents.numpy(), window)
        if parts is not None:
            return segment_attention(parts, window)
    mask = tree_mask(documents, parents, positions, window)
    return attention_by(bias_of(mask, kind) if kind is not None and mask.device.type == "cuda" else mask)


def by_segments(documents: Tensor) -> bool:
    """Whether segments can be computed by themselves: on a processor, where there are contents to look at."""
    return documents.device.type == "cpu" and type(documents) is Tensor


def tree_mask(documents: Tensor, parents: Tensor, positions: Tensor, window: int | None = None) -> Tensor:
    """Which token sees which, ``[B, 1, T, T]``.

    ``documents [B, T]`` names each token's segment and ``parents [B, T]`` the segment its own one continues (or any
    number that names none). A token sees itself and, among the tokens before it, its segment and that segment's parent,
    back to ``window`` of the ``positions [B, T]`` that count along its branch. So packed documents cannot see one
    another, and K responses share one prompt without seeing each other."""
    q, k = documents.unsqueeze(2), documents.unsqueeze(1)
    earlier = torch.ones(documents.shape[1], documents.shape[1], dtype=torch.bool, device=documents.device).tril()
    mask = (((q == k) | (parents.unsqueeze(2) == k)) & earlier).unsqueeze(1)
    if window is not None:
        mask = mask & (positions[:, :, None] - positions[:, None, :] < window)[:, None]
    return mask


def attention_by(mask: Tensor) -> Attend:
    """Attention where ``mask [B, 1, T, T]`` says so; keys that stand before those of the row, as a prefix does, are
    seen by every query."""

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        all_see = 1.0 if mask.dtype == torch.bool else 0.0
        seen = mask if k.shape[2] == q.shape[2] else F.pad(mask, (k.shape[2] - q.shape[2], 0), value=all_see)
        return masked_attention(q, k, v, seen)

    return attend


def both_ways_attention(documents: Tensor) -> Attend:
    """For encoders: every token sees all tokens of its own segment ``documents [B, T]``."""
    if by_segments(documents):
        parts = document_parts(documents.numpy())
        if parts is not None:
            return segment_attention(parts)
    return attention_by((documents[:, :, None] == documents[:, None, :])[:, None])
