"""Next-token prediction."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

LARGEST = 1 << 25
"""Logits that are made at once, at most: 128 MB in float32."""


def token_log_probs(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """``log softmax(hidden @ weight.T / temperature)[target]`` in float32, ``[N]``, for hidden states ``[N, D]``, an
    output matrix ``[V, D]`` and target ids ``[N]``.

    Where tokens times vocabulary is large, the logits are made in pieces and made again for the gradient, so that
    memory does not grow with their product: a third more arithmetic in this layer (as in Wijmans et al. 2024, 'Cut your
    losses').
    """
    if len(targets) * weight.shape[0] <= LARGEST:
        logits = F.linear(hidden, weight).float()
        if temperature != 1.0:
            logits = logits / temperature
        return -F.cross_entropy(logits, targets, reduction="none")
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):
        hidden, weight = hidden.to(torch.get_autocast_dtype(kind)), weight.to(torch.get_autocast_dtype(kind))
    found: Tensor = _Pieces.apply(hidden, weight, targets, temperature)  # type: ignore[no-untyped-call]
    return found


class _Pieces(torch.autograd.Function):
    """The log-probabilities piece by piece."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> Tensor:
        size = max(1, LARGEST // 2 // weight.shape[0])
        found, norms = [], []
        for h, t in zip(torch.split(hidden, size), torch.split(targets, size), strict=True):
            logits = (h @ weight.T).float().div_(temperature)
            norms.append(logits.logsumexp(-1))
            found.append(logits.gather(1, t[:, None])[:, 0] - norms[-1])
        ctx.save_for_backward(hidden, weight, targets, torch.cat(norms))
        ctx.temperature, ctx.size = temperature, size
        return torch.cat(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        hidden, weight, targets, norms = ctx.saved_tensors
        to_hidden = torch.empty_like(hidden)
        to_weight = torch.zeros_like(weight if ctx.needs_input_grad[1] else weight[:0], dtype=torch.float32)
        for start in range(0, len(hidden), ctx.size):
            part = slice(start, start + ctx.size)
            logits = (hidden[part] @ weight.T).float().div_(ctx.temperature)
            slope = logits.sub_(norms[part, None]).exp_().neg_()  # d log p / d logits = onehot - softmax
            slope.scatter_add_(1, targets[part, None], torch.ones_like(norms[part, None]))
            slope = slope.mul_(gradients[0][part, None] / ctx.temperature).to(weight.dtype)
            torch.mm(slope, weight, out=to_hidden[part])
            if ctx.needs_input_grad[1]:
                to_weight += slope.T @ hidden[part]
        return to_hidden, to_weight.to(weight.dtype) if ctx.needs_input_grad[1] else None, None, None


def entropies(hidden: Tensor, weight: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy of the next-token distribution in nats, ``[N]``; made in pieces, without gradients."""
    found = []
    with torch.no_grad():
        for part in torch.split(hidden, max(1, LARGEST // 2 // weight.shape[0])):
            log_p = torch.log_softmax(F.linear(part, weight).float().div_(temperature), dim=-1)
            found.append(-(log_p.exp() * log_p).sum(-1))
    return torch.cat(found)


def learned_entropies(hidden: Tensor, weight: Tensor, temperature: float = 1.0) -> Tensor:
    """The same ``[N]``, to be learned through: the logits of each piece are made again for the gradient."""
    def entropy(part: Tensor, weight: Tensor) -> Tensor:
        log_p = torch.log_softmax(F.linear(part, weight).float() / temperature, dim=-1)
        return -(log_p.exp() * log_p).sum(-1)

    pieces = torch.split(hidden, max(1, LARGEST // 2 // weight.shape[0]))
    return torch.cat([checkpoint(entropy, part, weight, use_reentrant=False) for part in pieces])
