"""Learning from another model's whole distributions over the next token."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from trivium.objectives.language_modeling import LARGEST

Divergence = Literal["forward_kl", "reverse_kl", "jensen_shannon"]


def divergences(hidden: Tensor, weight: Tensor, teacher_hidden: Tensor, teacher_weight: Tensor,
                kind: Divergence = "forward_kl", beta: float = 0.5, temperature: float = 1.0) -> Tensor:
    """How far a student's distributions are from its teacher's, in nats, ``[N]``, for hidden states ``[N, D]`` and
    ``[N, D']`` and output matrices ``[V, D]`` and ``[V, D']``. With ``p`` the teacher's and ``q`` the student's softmax
    of logits over ``temperature``:

    ``forward_kl``      ``KL(p || q)`` (Hinton et al. 2015): the student covers all that the teacher would say
    ``reverse_kl``      ``KL(q || p)`` (Gu et al. 2024): the student says what the teacher would say most
    ``jensen_shannon``  ``beta KL(p || m) + (1 - beta) KL(q || m)`` with ``m = beta p + (1 - beta) q`` (Agarwal et al.
                        2024, eq. 1), which lies between them

    All are multiplied by ``temperature ** 2``, so that gradients keep their size (Hinton et al. 2015, section 2). Where
    tokens times vocabulary is large, logits are made in pieces and made again for the gradient."""
    size = max(1, LARGEST // 4 // weight.shape[0])
    given = (weight, teacher_weight, kind, beta, temperature)
    if len(hidden) <= size:
        return _piece(hidden, teacher_hidden, *given)
    found = [checkpoint(_piece, mine, theirs, *given, use_reentrant=False)
             for mine, theirs in zip(torch.split(hidden, size), torch.split(teacher_hidden, size), strict=True)]
    return torch.cat(found)


def _piece(hidden: Tensor, teacher_hidden: Tensor, weight: Tensor, teacher_weight: Tensor, kind: Divergence,
           beta: float, temperature: float) -> Tensor:
    log_q = torch.log_softmax(F.linear(hidden, weight).float() / temperature, -1)
    with torch.no_grad():
        log_p = torch.log_softmax(F.linear(teacher_hidden, teacher_weight).float() / temperature, -1)
    if kind == "forward_kl":
        found = kl(log_p, log_q)
    elif kind == "reverse_kl":
        found = kl(log_q, log_p)
    else:
        share = torch.tensor(beta, device=log_q.device)
        log_m = torch.logaddexp(log_p + share.log(), log_q + (1 - share).log())
        found = beta * kl(log_p, log_m) + (1 - beta) * kl(log_q, log_m)
    return found * temperature ** 2


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """``KL(p || q)`` over the last dimension."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)
