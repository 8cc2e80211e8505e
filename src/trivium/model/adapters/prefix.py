"""Prefix tuning (Li & Liang 2021): every layer attends to a few learned keys and values before the text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trivium.model.attention import Attend, causal_attention


class Prefix(nn.Module):
    """Keys and values of ``tokens`` positions for each layer, ``[layers, kv_heads, tokens, head_dim]``.

    They begin as the activations of random words, which the paper found far better than random numbers (section 7.3),
    and are trained as they are, without the network through which it reparametrises them. The text's own positions
    count from 0 as ever. The prefix enters through ``attend``, so the model's file knows nothing of it.
    """

    on: bool

    def __init__(self, trunk: Any, tokens: int, generator: torch.Generator) -> None:
        super().__init__()
        words = torch.randint(trunk.config.vocab_size, (1, tokens),
                              generator=generator).to(trunk.embed_tokens.weight.device)
        seen: list[tuple[Tensor, Tensor]] = []
        causal = causal_attention()

        def record(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            seen.append((k[0].detach().clone(), v[0].detach().clone()))
            return causal(layer, q, k, v)

        with torch.no_grad():
            trunk(words, None, record)
        self.keys = nn.Parameter(torch.stack([k for k, _ in seen]))
        self.values = nn.Parameter(torch.stack([v for _, v in seen]))
        trunk.register_forward_pre_hook(self._enter)

    def _enter(self, trunk: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
        """Put the prefix before what the trunk attends to."""
        tokens, positions, attend = (*given, None, None)[:3]
        within: Attend = attend or causal_attention(trunk.config.sliding_window)
        if not self.on:
            return tokens, positions, within

        def prefixed(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            rows = (k.shape[0], -1, -1, -1)
            return within(layer, q, torch.cat([self.keys[layer].expand(rows).to(k.dtype), k], 2),
                          torch.cat([self.values[layer].expand(rows).to(v.dtype), v], 2))

        return tokens, positions, prefixed
