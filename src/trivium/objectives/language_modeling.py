"""Next-token prediction."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def token_log_probs(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """``log softmax(hidden @ weight.T / temperature)[target]`` in float32, ``[N]``, for hidden states ``[N, D]``, an
    output matrix ``[V, D]`` and target ids ``[N]``."""
    logits = F.linear(hidden, weight).float()
    if temperature != 1.0:
        logits = logits / temperature
    return -F.cross_entropy(logits, targets, reduction="none")


def entropies(hidden: Tensor, weight: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy of the next-token distribution in nats, ``[N]``."""
    log_p = torch.log_softmax(F.linear(hidden, weight).float() / temperature, dim=-1)
    return -(log_p.exp() * log_p).sum(-1)
