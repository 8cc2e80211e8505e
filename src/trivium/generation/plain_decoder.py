"""Sampling through a model's own forward pass: for models whose matrices cannot be laid out anew, such as those with
adapters or of other families. Slower than :class:`trivium.generation.decoder.Decoder`, which has the same face."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trivium.model.transformer import LanguageModel, Transformer, causal_attention, masked_attention


def must_be_plain(model: LanguageModel) -> bool:
    """Whether a model computes anything but our Transformer's own matrices."""
    return not isinstance(model.model, Transformer) or any(hasattr(module, "adapters") for module in model.modules())


class PlainDecoder:
    """Keys and values are ``[layers, rows, kv_heads, capacity, head_dim]``. A learned prefix, whose keys and values the
    model itself puts before those of the text, is the same for all rows and not kept."""

    def __init__(self, model: LanguageModel, rows: int, capacity: int) -> None:
        config = self.config = model.config
        self.model, self.causal = model, causal_attention(config.sliding_window)
        weight = model.lm_head.weight
        shape = (config.num_layers, rows, config.num_kv_heads, capacity, config.head_dim)
        self.keys, self.values = weight.new_zeros(shape), weight.new_zeros(shape)

    def prefill(self, tokens: Tensor, first: int) -> None:
        """Compute padded prompts ``[N, T]``, or vectors ``[N, T, hidden_size]``, into the rows from ``first`` on."""
        rows, length = slice(first, first + len(tokens)), tokens.shape[1]

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            self.keys[layer, rows, :, :length] = k[:, :, -length:]
            self.values[layer, rows, :, :length] = v[:, :, -length:]
            return self.causal(layer, q, k, v)
        self.model.model(tokens, None, attend)

    def step(self, tokens: Tensor, places: Tensor, longest: int, even: bool) -> Tensor:
        """Logits ``[N, V]`` in float32 after one more token a row, at ``places [N]``; ``longest`` is the most tokens of
        a row then."""
        count = len(places)
        rows = torch.arange(count, device=places.device)
        every = torch.arange(longest, device=places.device)
        mask = every <= places[:, None]
        if self.config.sliding_window is not None:
            mask &= every > places[:, None] - self.config.sliding_window
        mask = mask[:, None, None]

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            self.keys[layer, rows, :, places] = k[:, :, -1]
            self.values[layer, rows, :, places] = v[:, :, -1]
            keys, values = self.keys[layer, :count, :, :longest], self.values[layer, :count, :, :longest]
            seen, before = mask, k.shape[2] - 1
            if before:
                keys, values = torch.cat([k[:, :, :before], keys], 2), torch.cat([v[:, :, :before], values], 2)
                seen = F.pad(mask, (before, 0), value=True)
            return masked_attention(q, keys, values, seen)
        return self.model.lm_head(self.model.model(tokens[:, None], places[:, None], attend))[:, 0].float()

    def move(self, source: list[int], target: list[int], length: int) -> None:
        """Copy the first ``length`` places of rows to others."""
        self.keys[:, target, :, :length] = self.keys[:, source, :, :length]
        self.values[:, target, :, :length] = self.values[:, source, :, :length]
