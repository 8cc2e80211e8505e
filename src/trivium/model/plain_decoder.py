"""Sampling through a model's own forward pass: for models whose matrices cannot be laid out anew, such as those with
adapters or of other families. Slower than :class:`trivium.generation.decoder.Decoder`, which has the same face."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trivium.model.attention import causal_attention, masked_attention
from trivium.model.stateful_decoder import StatefulDecoder
from trivium.model.transformer import LanguageModel, Transformer


def must_be_plain(model: LanguageModel) -> bool:
    """Whether a model computes anything but our Transformer's own matrices."""
    return not isinstance(model.model, Transformer) or any(hasattr(module, "adapters") for module in model.modules())


def decoder_of(model: LanguageModel, rows: int, capacity: int) -> PlainDecoder | StatefulDecoder | None:
    """What samples ``rows`` texts of up to ``capacity`` tokens from a model that computes anything but our
    Transformer's own matrices; None for one that does not."""
    if not must_be_plain(model):
        return None
    trunk: Any = model.model
    if capacity <= getattr(trunk, "kept", capacity):
        return PlainDecoder(model, rows, capacity)
    return StatefulDecoder(model, rows)


class PlainDecoder:
    """Keys and values of each layer are ``[rows, kv_heads, capacity, width]``, of a width of their own each. A learned
    prefix, whose keys and values the model itself puts before those of the text, is the same for all rows and not
    kept."""

    def __init__(self, model: LanguageModel, rows: int, capacity: int) -> None:
        config = self.config = model.config
        self.model, self.causal = model, causal_attention(config.sliding_window)
        self.rows, self.capacity = rows, capacity
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}

    def _room(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The cache of a layer, made when its first keys ``[N, kv_heads, T, width]`` and values come."""
        if layer not in self.keys:
            self.keys[layer] = k.new_zeros(self.rows, k.shape[1], self.capacity, k.shape[3])
            self.values[layer] = v.new_zeros(self.rows, v.shape[1], self.capacity, v.shape[3])
        return self.keys[layer], self.values[layer]

    def prefill(self, tokens: Tensor, first: int, lengths: Sequence[int] = ()) -> None:
        """Compute padded prompts ``[N, T]``, or vectors ``[N, T, hidden_size]``, into the rows from ``first`` on. Their
        ``lengths`` do not matter: what padding leaves is written over before it is seen."""
        rows, length = slice(first, first + len(tokens)), tokens.shape[1]

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self._room(layer, k, v)
            keys[rows, :, :length] = k[:, :, -length:]
            values[rows, :, :length] = v[:, :, -length:]
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
            all_keys, all_values = self._room(layer, k, v)
            all_keys[rows, :, places] = k[:, :, -1]
            all_values[rows, :, places] = v[:, :, -1]
            keys, values = all_keys[:count, :, :longest], all_values[:count, :, :longest]
            seen, before = mask, k.shape[2] - 1
            if before:
                keys, values = torch.cat([k[:, :, :before], keys], 2), torch.cat([v[:, :, :before], values], 2)
                seen = F.pad(mask, (before, 0), value=True)
            return masked_attention(q, keys, values, seen)
        return self.model.lm_head(self.model.model(tokens[:, None], places[:, None], attend))[:, 0].float()

    def move(self, source: list[int], target: list[int], length: int) -> None:
        """Copy the first ``length`` places of rows to others."""
        for kept in (*self.keys.values(), *self.values.values()):
            kept[target, :, :length] = kept[source, :, :length]
